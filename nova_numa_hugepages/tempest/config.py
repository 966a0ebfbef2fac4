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

# About the servers that the tests create.
server_opts = [
    cfg.IntOpt(
        'page_size_kib',
        default=2048,
        min=64,
        help="""
Page size in KiB on which the test servers run.

Possible values:

* An integer: a size of huge pages that all compute hosts can provide, 2048 and
  1048576 on x86.

For example, with ``page_size_kib = 1048576`` and ``cell_memory_mib = 1024``
each cell of a server takes one page of 1 GiB.

Related options:

* ``[numa_hugepages] cell_memory_mib``
""",
    ),
    cfg.IntOpt(
        'cell_memory_mib',
        default=128,
        min=1,
        help="""
Memory of each cell of a test server, in MiB.

Possible values:

* An integer from 1: MiB, a multiple of ``page_size_kib``. The image has to
  boot with it. Servers that are resized get cells of twice that size, and a
  host may have to hold both at the same time.

For example, with the default a server of two cells takes 64 pages of 2 MiB on
each of two nodes.

Related options:

* ``[numa_hugepages] page_size_kib``
* ``[compute] image_ref``
""",
    ),
    cfg.IntOpt(
        'cell_vcpus',
        default=1,
        min=1,
        help="""
vCPUs of each cell of a test server.

Possible values:

* An integer from 1. Each node needs that many free dedicated CPUs for each
  server that runs at the same time.

For example, with ``cell_vcpus = 2`` a server of two cells has four vCPUs.

Related options:

* ``[numa_hugepages] dedicated_cpus``
""",
    ),
    cfg.BoolOpt(
        'dedicated_cpus',
        default=True,
        help="""
Whether the test servers have dedicated CPUs.

Possible values:

* ``True``: they have, and the tests compare the CPUs of the host that they are
  pinned to. Compute hosts need ``cpu_dedicated_set``.
* ``False``: they share the CPUs of the node.

For example, ``False`` for a cloud whose hosts have ``cpu_shared_set`` only.
""",
    ),
    cfg.IntOpt(
        'flavor_disk_gib',
        default=1,
        min=0,
        help="""
Disk of the test servers, in GiB.

Possible values:

* An integer from 0: GiB, large enough for ``[compute] image_ref``. With 0 the
  disk is as large as the image, which by default is for administrators only.

For example, the default is enough for an image of 112 MiB.

Related options:

* ``[compute] image_ref``
""",
    ),
    cfg.StrOpt(
        'availability_zone',
        help="""
Availability zone in which the test servers are created.

Possible values:

* The name of a zone. The other options describe the compute hosts in it.
* Not set: the cloud decides.

For example, ``hugepages`` if only the hosts in that zone have huge pages.
""",
    ),
]

load_opts = [
    cfg.IntOpt(
        'servers_at_once',
        default=4,
        min=2,
        max=100,
        help="""
Number of servers that one test requests at once.

Possible values:

* An integer from 2 to 100. Some of them may be refused if there is no room;
  they must not leave anything behind.

For example, 10 in a cloud that has room for seven, with ``fill_servers = 7``.

Related options:

* ``[numa_hugepages] fill_servers``
""",
    ),
    cfg.IntOpt(
        'fill_cell_memory_mib',
        default=0,
        min=0,
        help="""
Memory, in MiB, of servers of one cell that fill the cloud.

The tests that use it need a cloud without other users.

Possible values:

* ``0``: no test fills the cloud.
* An integer from 1: MiB, a multiple of ``page_size_kib``. Choose a size with
  which few servers fill the cloud: a little more than half of a node.

For example, ``fill_cell_memory_mib = 640`` and ``fill_servers = 4`` for a
cloud of one host with four nodes, each of which can have 1 GiB in pages.

Related options:

* ``[numa_hugepages] fill_servers``
* ``[numa_hugepages] servers_at_once``
""",
    ),
    cfg.IntOpt(
        'fill_servers',
        default=0,
        min=0,
        max=100,
        help="""
Number of servers with ``fill_cell_memory_mib`` that fit in the empty cloud, or
in the availability zone.

Possible values:

* ``0``: no test fills the cloud.
* An integer from 1 to 100. The test expects exactly that many to fit.

For example, 7 for a cloud with memory for seven cells of that size, on nodes
with ``cell_vcpus`` free CPUs for each.

Related options:

* ``[numa_hugepages] fill_cell_memory_mib``
* ``[numa_hugepages] cell_vcpus``
""",
    ),
]

# About the tests that run commands on compute hosts.
whitebox_opts = [
    cfg.BoolOpt(
        'whitebox',
        default=False,
        help="""
Whether tests may run commands on compute hosts. The hosts have to run
NUMAHugepagesDriver.

The commands change nothing. The tests compare the pools before and after, so
no other servers should be started on these hosts at the same time.

Possible values:

* ``True``: these tests run.
* ``False``: they are skipped.

For example, set it to ``True`` in a continuous integration whose compute hosts
take SSH from where Tempest runs.

Related options:

* ``[numa_hugepages] computes``
""",
    ),
    cfg.DictOpt(
        'computes',
        default={},
        help="""
How to run commands on compute hosts, as root.

Possible values:

* Pairs of a hypervisor hostname, as ``openstack hypervisor list`` prints it,
  and a command, separated by colons, the pairs by commas. The command is
  called with one more argument, a shell command line for the compute host.
  ``{host}`` in it stands for the hypervisor hostname.
* No command behind the colon: the host is this machine.
* ``*`` as the hostname: all hosts that are not named.

Servers are created on the first host that is named. If only ``*`` is given,
the scheduler chooses the host, and tests that have to read a host before a
server is on it, which are most, are skipped. Braces other than ``{host}`` are
kept.

For example, one host that is this machine, and one for SSH::

    computes = node-1:,node-2:ssh -i /etc/tempest/key root@10.0.0.2

All hosts by name, and this machine for a user other than root::

    computes = *:ssh root@{host}
    computes = node-1:sudo sh -c

Related options:

* ``[numa_hugepages] whitebox``
* ``[numa_hugepages] virsh_command``
* ``[numa_hugepages] host_command``
""",
    ),
    cfg.StrOpt(
        'virsh_command',
        default='virsh --connect qemu:///system',
        help="""
The virsh command on a compute host.

Possible values:

* The start of a shell command line, to which ``dumpxml`` and the uuid of a
  server are added.

For example, ``podman exec nova_libvirt virsh`` where libvirt is in a
container.

Related options:

* ``[numa_hugepages] computes``
""",
    ),
    cfg.StrOpt(
        'host_command',
        default='nova-numa-hugepages host show -f json',
        help="""
Command on a compute host that shows its pools and the instances that hold
pages.

Possible values:

* A shell command line that prints what ``nova-numa-hugepages host show -f
  json`` prints.

For example, ``/opt/nova/bin/nova-numa-hugepages host show -f json
--state-path /srv/nova`` where Nova is in an environment of its own.

Related options:

* ``[numa_hugepages] computes``
""",
    ),
    cfg.IntOpt(
        'command_timeout',
        default=60,
        min=1,
        help="""
Seconds that a command on a compute host may take.

Possible values:

* An integer from 1: seconds, after which the test fails.

For example, 180 for a compute host that is itself an emulated machine.

Related options:

* ``[numa_hugepages] computes``
""",
    ),
]

pool_opts = [
    cfg.StrOpt(
        'page_pools',
        default='dynamic',
        choices=[
            ('dynamic', 'Pools grow when a server starts.'),
            ('static', 'Pools stay as the operator has set them up.'),
        ],
        help="""
How huge page pools are managed on the compute hosts; the value of the option
of the same name there.

Only tests that run commands on the hosts use it.

Possible values:

* ``dynamic``: pools have to grow by the missing pages, and to have their old
  size after the server is deleted.
* ``static``: no pool may change its size.

For example, ``static`` for hosts that allocate all of their pages on the
kernel command line and have ``page_pools = static`` in their ``nova.conf``.

Related options:

* ``[numa_hugepages] whitebox``
* ``[numa_hugepages] warm_margin_mib``
""",
    ),
    cfg.IntOpt(
        'warm_margin_mib',
        default=0,
        min=0,
        max=16777216,
        help="""
Idle huge page memory, in MiB per pool, that compute hosts keep allocated when
servers are deleted; the value of the option of the same name there.

Only tests that run commands on the hosts use it.

Possible values:

* An integer from 0 to 16777216 (16 TiB): MiB. After a test, a pool may be that
  much larger than before.

For example, 4096 if ``warm_margin_mib = 4096`` is in the ``nova.conf`` of the
compute hosts.

Related options:

* ``[numa_hugepages] page_pools``
""",
    ),
]

NAME = numa_hugepages_group.name

_ALL = (*host_opts, *server_opts, *load_opts, *whitebox_opts, *pool_opts)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options; repeating it changes nothing."""
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
