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

"""Options of the scheduler: the filter, the fit and the weigher."""

from collections.abc import Mapping
import math

from oslo_config import cfg

from nova_numa_hugepages import exception
from nova_numa_hugepages.conf import group

filter_opts = [
    cfg.BoolOpt(
        'account_small_pages',
        default=True,
        help="""
Admit instances on small pages against small-page memory only.

Nova compares the memory of an instance without huge pages with all memory of a
host NUMA node, including that of huge page pools, which such an instance can
never use. It also doesn't account for instances without a NUMA topology on the
NUMA nodes. A host with large pools then accepts more instances than its small
pages can back, and the kernel kills some of them.

When this option is enabled, the memory of huge page pools is subtracted before
an instance on small pages is admitted, and the memory of instances without a
NUMA topology is counted. The overcommit ratio of the host applies to the rest.

Possible values:

* ``True``: small-page instances are admitted against small-page memory.
* ``False``: small-page instances are admitted as stock Nova admits them. Only
  for hosts whose pools are known to be freed before small pages run out.

For example, a NUMA node of 64 GiB with 48 GiB in a pool of 1 GiB pages and
``ram_allocation_ratio = 1.0`` admits 16 GiB of small-page instances with this
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
Arrangements of an instance's NUMA nodes to try for a host that runs stock
Nova.

A compute service that does not load this package claims resources with Nova's
own fit. To send it only instances that its claim will accept, the filter
replays the search of that claim, which tries one arrangement of the instance's
NUMA nodes on those of the host after the other. This option limits how many
arrangements are replayed for one host in one request. A host for which the
limit is reached is rejected, because the result of its claim is not known.

Hosts that report to the scheduler that they run this package need no search.

Possible values:

* An integer from 1 to 1000000: the number of arrangements.

For example, an instance of 4 NUMA nodes on a host of 8 has 1680 arrangements,
so that the default covers it; an instance of 8 NUMA nodes on a host of 8 has
40320, of which the default tries the first 5000.

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
Number of rejection reasons to list in the log line of a request.

For each request for which it rejected hosts, the filter logs one line at INFO,
with the reasons counted, the most frequent first, and the nearest miss of
each. This option limits how many different reasons the line lists; hosts
rejected for other reasons are given as one number. The reason of every single
host is logged at DEBUG.

Possible values:

* An integer from 1 to 50: the number of reasons.

For example, with ``rejection_reasons = 2`` the line of a request for which 40
hosts were rejected for four reasons has the two most frequent reasons, and the
number of hosts that were rejected for others.

Related options:

* ``[DEFAULT] debug``
""",
    ),
]

weigher_opts = [
    cfg.FloatOpt(
        'weight_multiplier',
        default=10000.0,
        help="""
Multiplier used for weighing hosts by NUMA and huge page scarcity.

The NUMAHugepagesWeigher ranks the hosts that an instance fits on by what the
instance costs the fleet there, the least first. The best host gets a weight of
this value, the worst one 0, and the others lie between them at equal
distances.

Aggregates can override it for their hosts with the metadata key
``numa_hugepages_weight_multiplier``.

Possible values:

* A large positive number, such as the default: this weigher outweighs Nova's
  default weighers, except those that avoid hosts where builds failed and that
  keep instances in their cell. Among hosts that are equally good the other
  weighers decide.
* A small positive number, such as 1.0: the weigher is one among others.
* ``0.0``: the weigher has no effect.
* A negative number: the order is reversed, and instances go to the hosts where
  they cost most. Only useful to empty the good hosts of an aggregate.

For example, with the default a host that is one place ahead of 1000 others
gets 10 more than the next one, which Nova's default weighers can't outweigh.

Related options:

* ``[filter_scheduler] weight_classes``
* ``[filter_scheduler] build_failure_weight_multiplier``
* ``[filter_scheduler] cross_cell_move_weight_multiplier``
""",
    ),
    cfg.IntOpt(
        'demand_half_life',
        default=604800,
        min=60,
        max=315360000,
        help="""
Half-life, in seconds, of a request in the learned demand.

The weigher learns from requests which kinds of instances are in demand, and
keeps room for these. Recent requests say more about future ones than old
requests do.

Possible values:

* An integer from 60 to 315360000 (ten years): seconds. Shorter where demand
  changes from day to day, longer where there are few requests.

For example, with the default of a week a request that is two weeks old counts
a quarter of a new one.

Related options:

* ``[numa_hugepages] demand_mix``
* ``[numa_hugepages] demand_file``
""",
    ),
    cfg.IntOpt(
        'demand_kinds',
        default=20,
        min=1,
        max=200,
        help="""
Maximum number of kinds of instances in the demand.

Instances are of the same kind if they request the same NUMA nodes, CPUs and
pages. The time that the weigher takes for a host grows with the number of
kinds, so only those in the highest demand count.

Possible values:

* An integer from 1 to 200: the number of kinds.

For example, the default is enough for a cloud that has 60 flavors with huge
pages, 10 of which are in regular use.

Related options:

* ``[numa_hugepages] demand_half_life``
""",
    ),
    cfg.DictOpt(
        'demand_mix',
        default={},
        help="""
Flavors in demand, with their shares, instead of the learned demand.

Possible values:

* Empty: the demand is learned.
* A list of flavors and how often each is requested in relation to the others,
  as ``name:share,name:share``; names with a colon or a comma are not
  supported. The flavors are looked up by name in Nova's API database. Those
  that do not exist are logged and ignored; if none exists, the demand is
  learned. All listed flavors count, regardless of ``demand_kinds``.

For example, ``db.large:3,vnf.small:1`` keeps three times as much room for
instances of the flavor ``db.large`` as for those of ``vnf.small``, and none
for others.

Related options:

* ``[api_database] connection``
* ``[numa_hugepages] demand_flavors_interval``
""",
    ),
    cfg.IntOpt(
        'demand_flavors_interval',
        default=600,
        min=0,
        max=86400,
        help="""
Interval, in seconds, at which flavors are read from Nova's API database.

Until enough requests have been seen, all flavors with a NUMA topology, huge
pages or dedicated CPUs stand in for the demand, with equal shares.

Possible values:

* An integer from 1 to 86400: seconds.
* ``0``: flavors are not read. The demand is learned from requests only, and
  ``demand_mix`` has no effect.

For example, with the default a new flavor counts ten minutes after it was
created, or with the first request for it.

Related options:

* ``[api_database] connection``
* ``[numa_hugepages] demand_mix``
""",
    ),
    cfg.StrOpt(
        'demand_file',
        default='nova-numa-hugepages-demand.json',
        help="""
File in which the learned demand is stored across restarts of the scheduler.

It is written at most once a minute, and can be deleted at any time.

Possible values:

* The path of a file, absolute or relative to ``[DEFAULT] state_path``. The
  scheduler must be able to write to its directory, or refuses to start.
* Empty: the demand is not stored.

For example, with ``state_path = /var/lib/nova`` the default is
``/var/lib/nova/nova-numa-hugepages-demand.json``.

Related options:

* ``[DEFAULT] state_path``
* ``[numa_hugepages] demand_half_life``
""",
    ),
]

ALL = (*filter_opts, *weigher_opts)


def demand_shares(shares: Mapping[str, str]) -> dict[str, float]:
    """Return the shares of ``demand_mix`` as numbers.

    :param shares: the name of a flavor to its share, as text
    :returns: the name of a flavor to its share
    :raises: :class:`nova_numa_hugepages.exception.InvalidOption` if a share is
        not a number above 0
    """
    numbers = {}
    for name, text in shares.items():
        try:
            share = float(text)
        except ValueError:
            share = math.nan
        if not 0 < share < math.inf:
            raise exception.InvalidOption(
                group.NAME,
                'demand_mix',
                f'flavor {name} has the share {text!r}, expected a number '
                'above 0',
            )
        numbers[name] = share
    return numbers
