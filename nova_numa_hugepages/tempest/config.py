# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Options of the plugin in ``tempest.conf``.

Nothing is registered at import. All but one are in the group
``[numa_hugepages]``, which has the name of the group in ``nova.conf`` and
nothing else in common with it: one configures Nova, the other describes a
cloud to Tempest.
"""

from __future__ import annotations

from oslo_config import cfg

from nova_numa_hugepages.tempest import config_hosts
from nova_numa_hugepages.tempest import config_servers

numa_hugepages_group = cfg.OptGroup(
    name='numa_hugepages',
    title='Tests of nova-numa-hugepages',
    help="""
What the tests of nova-numa-hugepages may expect of the cloud, and how many of
its resources they may use.
""",
)

service_available_opts = [
    cfg.BoolOpt(
        'numa_hugepages',
        default=True,
        help="""
Whether the scheduler of the cloud runs NUMAHugepagesFilter.

Possible values:

* ``True``: the tests run.
* ``False``: all tests of nova-numa-hugepages are skipped.

For example, set it to ``False`` where one environment with this plugin is used
for several clouds, for those that run without the filter.

Related options:

* ``[service_available] nova``
""",
    ),
]

host_opts = [
    cfg.IntOpt(
        'host_nodes',
        default=2,
        min=1,
        max=1024,
        help="""
NUMA nodes of the compute host that has the fewest.

If it is 1, tests that need servers with two cells are skipped.

Possible values:

* An integer from 1 to 1024: nodes with CPUs and memory for servers.

For example, ``host_nodes = 4`` for a cloud whose hosts have two sockets with
two nodes each.
""",
    ),
    cfg.BoolOpt(
        'distances_known',
        default=False,
        help="""
Whether all compute hosts report how far their NUMA nodes are from each other.

Hosts with NUMAHugepagesDriver do, hosts that run Nova's own driver do not.

Possible values:

* ``True``: tests of distances run. Any two nodes of a host have to be farther
  apart than 10, which is the distance of a node to itself; some kernels that
  emulate nodes report 10 for all of them.
* ``False``: these tests are skipped.

For example, ``True`` where ``numactl --hardware`` prints 21 on the hosts, and
``compute_driver`` is ``numa_hugepages.NUMAHugepagesDriver`` on all of them.

Related options:

* ``[numa_hugepages] host_nodes``
""",
    ),
]


NAME = numa_hugepages_group.name

_ALL = (*host_opts, *config_servers.ALL, *config_hosts.ALL)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options; repeating it changes nothing.

    :param conf: the configuration object of Tempest
    """
    conf.register_opts(service_available_opts, group='service_available')
    conf.register_group(numa_hugepages_group)
    conf.register_opts(_ALL, group=numa_hugepages_group)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """List the options for Tempest's sample file.

    :returns: pairs of the name of a group and its options
    """
    return [
        ('service_available', list(service_available_opts)),
        (NAME, list(_ALL)),
    ]
