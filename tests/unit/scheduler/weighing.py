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


"""Short ways to write down what the weigher is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from nova import objects
from nova.scheduler import host_manager
from nova.scheduler import weights as nova_weights

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import weights
from tests.unit import nova_builders
from tests.unit.core import builders

# What computes with the stock driver report.
STOCK = {'num_instances': '0'}

HALF = builders.pinned_cell(4, 8, builders.MIB_2)
WHOLE = builders.pinned_cell(8, 16, builders.MIB_2)
LITTLE = builders.pinned_cell(1, 2, builders.MIB_2)
POOLS = (builders.small(64), builders.huge(16))


def kind(*cells: model.GuestCell) -> guest_kinds.GuestKind:
    return guest_kinds.guest_kind(builders.request(*cells))


SHARES = {kind(WHOLE): 0.5, kind(HALF): 0.5}


def host(
    name: str,
    *,
    pinned: Iterable[int] = (),
    pools: Sequence[model.PagePool] = POOLS,
    **others: Any,
) -> host_manager.HostState:
    """Make a host of one cell of 8 CPUs."""
    cell = builders.host_cell(cores=8, pinned=pinned, pools=pools)
    return nova_builders.host_state(
        name, nova_builders.topology(cell), **others
    )


def free_and_half_used(**others: Any) -> list[host_manager.HostState]:
    return [
        host('free', **others),
        host('half used', pinned=range(4), **others),
    ]


def pinned(shares: Mapping[guest_kinds.GuestKind, float]) -> demand.Demand:
    """Make a demand that is not learned."""
    return demand.Demand(half_life_s=3600.0, at_most=20, pinned=lambda: shares)


def weigher(
    shares: Mapping[guest_kinds.GuestKind, float],
) -> weights.NUMAHugepagesWeigher:
    return weights.NUMAHugepagesWeigher(pinned(shares))


def guest_spec(
    *cells: model.GuestCell, memory_mib: int | None = None
) -> objects.RequestSpec:
    """Ask for a guest; for one without a topology if no cells are given."""
    found = nova_builders.spec(
        nova_builders.guest(*cells) if cells else None, memory_mib=memory_mib
    )
    found.requested_resources = []
    return found


def weigh(
    hosts: Sequence[host_manager.HostState],
    spec: objects.RequestSpec,
    *weighers: nova_weights.BaseHostWeigher,
) -> dict[str, float]:
    """Weigh hosts as Nova does.

    :returns: the weights by name, the best host first
    """
    found = nova_weights.HostWeightHandler().get_weighed_objects(
        weighers, hosts, spec
    )
    return {weighed.obj.host: weighed.weight for weighed in found}


def raw(
    asked: nova_weights.BaseHostWeigher,
    hosts: Iterable[host_manager.HostState],
    spec: objects.RequestSpec,
) -> dict[str, float]:
    """Return what a weigher answers, by the names of the hosts."""
    weighed = [nova_weights.WeighedHost(host, 0.0) for host in hosts]
    answer = asked.weigh_objects(weighed, spec)
    return {
        each.obj.host: weight
        for each, weight in zip(weighed, answer, strict=True)
    }
