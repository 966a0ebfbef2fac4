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


"""Options of the ``[numa_hugepages]`` group.

The group lives in the configuration file of the Nova service that loads this
package. This module registers nothing: whoever needs the options calls
:func:`register_opts` with its own configuration object, as
``virt/hardware.py`` does with Nova's when it is loaded.
"""

from oslo_config import cfg

from nova_numa_hugepages import exception

numa_hugepages_group = cfg.OptGroup(
    'numa_hugepages',
    title='NUMA and huge pages options',
    help="""
Options of nova-numa-hugepages, the scheduler filter and NUMA fit for guests
with NUMA cells, huge pages and dedicated CPUs.
""",
)

filter_opts = [
    cfg.BoolOpt(
        'account_small_pages',
        default=True,
        help="""
Admit guests on small pages against small-page memory only.

Nova compares a guest that uses no huge pages with the whole memory of a host
cell, the memory that sits in pools of huge pages included, although such a
guest can never use it. It also leaves guests without a NUMA topology out of
the account of the cells. A host with large pools then accepts more guests than
its small pages can back, and the kernel kills some of them.

When this option is enabled, the memory in pools of huge pages is taken off
before a guest on small pages is admitted, and the memory of guests without a
NUMA topology is counted. The overcommit ratio of the host applies to what is
left.

Possible values:

* ``True``: small-page guests are admitted against small-page memory.
* ``False``: small-page guests are admitted as stock Nova admits them. Only for
  hosts whose pools are known to be given back before small pages run out.

For example, a host cell of 64 GiB with 48 GiB in a pool of 1 GiB pages and
``ram_allocation_ratio = 1.0`` admits 16 GiB of small-page guests with this
option, and 64 GiB without it.

Related options:

* ``[DEFAULT] ram_allocation_ratio``
* ``[DEFAULT] reserved_huge_pages``
* ``[DEFAULT] reserved_host_memory_mb``
""",
    ),
    cfg.IntOpt(
        'stock_claim_search_limit',
        default=5000,
        min=1,
        max=1000000,
        help="""
Arrangements of guest cells that are tried for a host that runs stock Nova.

A compute service that does not load this package claims resources with Nova's
own fit. To send it only guests that its claim will accept, the filter replays
the search of that claim, which tries one arrangement of the guest's cells on
the host's cells after the other. This option bounds how many arrangements are
replayed for one host in one request. A host for which the bound is reached is
rejected, because what its claim would answer is not known.

Hosts that report to the scheduler that they run this package are never judged
this way, and cost no search.

Possible values:

* An integer from 1 to 1000000: the number of arrangements.

For example, a guest of 4 cells on a host of 8 cells has 1680 arrangements, so
that the default covers it; a guest of 8 cells on a host of 8 cells has 40320,
of which the default tries the first 5000.

Related options:

* ``[filter_scheduler] enabled_filters``
* ``[compute] packing_host_numa_cells_allocation_strategy``
""",
    ),
    cfg.IntOpt(
        'rejection_reasons',
        default=5,
        min=1,
        max=50,
        help="""
Reasons that the log line of a request lists.

For each request that lost hosts the filter logs one line at INFO, with the
reasons counted, the most frequent first, and the nearest miss of each. This
option limits how many different reasons the line lists; the hosts lost to the
others are given as one number. The reason of every single host is logged at
DEBUG.

Possible values:

* An integer from 1 to 50: the number of reasons.

For example, with ``rejection_reasons = 2`` the line of a request that lost 40
hosts for four reasons gives the two most frequent reasons and says for how
many hosts there were others.

Related options:

* ``[DEFAULT] debug``
""",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of the group; repeating it changes nothing.

    :param conf: the configuration object of the service
    """
    conf.register_group(numa_hugepages_group)
    conf.register_opts(filter_opts, group=numa_hugepages_group)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """List the options for ``oslo-config-generator`` and the documentation.

    :returns: pairs of a group and its options
    """
    return [(numa_hugepages_group, list(filter_opts))]


def validate(conf: cfg.ConfigOpts) -> None:
    """Read every option of the group, so that a bad value is found at start.

    oslo.config checks the range of an option only when it is read, which may
    be hours after the service was started.

    :param conf: a configuration object on which :func:`register_opts` was
        called
    :raises: :class:`nova_numa_hugepages.exception.InvalidOption` if a value is
        out of range or of the wrong type
    """
    group = numa_hugepages_group.name
    for opt in filter_opts:
        try:
            conf[group][opt.dest]
        except cfg.Error as error:
            # oslo.config names the option but not its group.
            raise exception.InvalidOption(
                group, opt.name, str(error)
            ) from error
