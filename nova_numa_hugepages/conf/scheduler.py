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

weigher_opts = [
    cfg.FloatOpt(
        'weight_multiplier',
        default=10000.0,
        help="""
How much the NUMAHugepagesWeigher counts beside other weighers.

The weigher puts the hosts that a guest fits on in an order, the one on which
the guest costs the fleet least first. The best host gets a weight of this
value, the worst one 0, and the others lie between them at equal distances.

Aggregates can override it for their hosts with the metadata key
``numa_hugepages_weight_multiplier``.

Possible values:

* A large positive number, such as the default: the weigher decides, whatever
  Nova's default weighers say. Only those that keep guests from hosts where
  builds failed, and in their cell, count more. Where hosts are equally good,
  the other weighers decide among them.
* A small positive number, such as 1.0: the weigher is one among others.
* ``0.0``: the weigher has no say.
* A negative number: the order is reversed, and guests go where they do most
  harm. Of use only to empty the good hosts of an aggregate.

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
Seconds after which a request counts half for the demand.

The weigher learns from the requests that it sees which kinds of guests are
asked for, and keeps room for these. What was asked for lately tells more about
what will be asked for than what was asked for long ago.

Possible values:

* An integer from 60 to 315360000 (ten years): seconds. Shorter where demand
  changes from day to day, longer where there are few requests.

For example, with the default of a week a request of two weeks ago counts a
quarter of one that came now.

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
Kinds of guests that count for the demand at a time.

Guests are of the same kind if they ask for the same cells, CPUs and pages. The
time that the weigher takes for a host grows with the number of kinds, so only
those that are asked for most count.

Possible values:

* An integer from 1 to 200.

For example, a cloud that has 60 flavors with huge pages, 10 of which are in
regular use, does well with the default.

Related options:

* ``[numa_hugepages] demand_half_life``
""",
    ),
    cfg.DictOpt(
        'demand_mix',
        default={},
        help="""
The demand, if it is not to be learned.

Possible values:

* Empty: the demand is learned.
* A list of flavors and how often each is asked for in relation to the others,
  as ``name:share,name:share``; a name with a colon or a comma can't be given.
  The flavors are looked up by name in Nova's API database. One that does not
  exist there is told in the log and does not count; if none exists, the demand
  is learned. All flavors given count, whatever ``demand_kinds`` says.

For example, ``db.large:3,vnf.small:1`` keeps three times as much room for
guests of the flavor ``db.large`` as for those of ``vnf.small``, and none for
others.

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
Seconds until the flavors are read again from Nova's API database.

As long as few requests have been seen, the flavors that ask for NUMA cells,
huge pages or dedicated CPUs stand in for the demand, all alike.

Possible values:

* An integer from 1 to 86400: seconds.
* ``0``: flavors are not read. The demand is learned from requests alone, and
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
File that keeps the learned demand over a restart of the scheduler.

It is written at most once a minute. Deleting it does no harm.

Possible values:

* The name of a file, in ``[DEFAULT] state_path`` or absolute. The service must
  be able to write to its folder, or refuses to start.
* Empty: nothing is kept.

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
    """Read the shares of ``demand_mix``.

    :param shares: the name of a flavor to its share, as text
    :returns: the name of a flavor to its share
    :raises: :class:`nova_numa_hugepages.exception.InvalidOption` if a share is
        not a number above 0
    """
    found = {}
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
        found[name] = share
    return found
