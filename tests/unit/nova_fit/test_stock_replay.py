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


"""The replay of a stock claim against stock Nova itself, on random cases.

Guests are such as Nova makes them: the policies and the page size are the
same for all cells, CPUs and memory may differ.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
from hypothesis import strategies as st
from nova import objects
from nova.virt import hardware as nova_hardware

from nova_numa_hugepages.core.fit import fitter
from nova_numa_hugepages.core.fit import stock_replay
from nova_numa_hugepages.core.model import CPUPolicy
from nova_numa_hugepages.core.model import GuestCell
from nova_numa_hugepages.core.model import HostCell
from nova_numa_hugepages.core.model import HostTopology
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import PagePool
from nova_numa_hugepages.core.model import PageRequest
from nova_numa_hugepages.core.model import Plan
from nova_numa_hugepages.core.model import Request
from nova_numa_hugepages.core.model import Strategy
from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.nova_fit import pci_devices
from tests.unit import nova_builders
from tests.unit.core.builders import giant
from tests.unit.core.builders import GIB_1
from tests.unit.core.builders import huge
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import small
from tests.unit.core.dice import examples

PHYSNETS = ('red', 'blue')
WISHES = (None, MIB_2, None, *PageRequest, KIB_4, GIB_1)


@dataclasses.dataclass(frozen=True)
class Case:
    """The arguments of one claim.

    :ivar cards: free PCI devices by host cell
    :ivar asked: PCI devices that the guest asks for
    """

    request: Request
    host: HostTopology
    limits: Limits | None
    pack: bool
    cards: dict[int | None, int]
    asked: int


def _some(draw: Any, items: Any) -> frozenset[Any]:
    """Draw a subset."""
    listed = sorted(items)
    bits = draw(st.integers(0, (1 << len(listed)) - 1))
    return frozenset(
        item for place, item in enumerate(listed) if bits >> place & 1
    )


def _pick(draw: Any, *choices: Any) -> Any:
    return choices[draw(st.integers(0, len(choices) - 1))]


@st.composite
def _host_cells(draw: Any, number: int, threads: int, odd: bool) -> HostCell:
    first = number * 100
    cores = draw(st.integers(0 if odd else 1, 4))
    siblings = [
        frozenset(range(cpu, cpu + threads))
        for cpu in range(first, first + cores * threads, threads)
    ]
    cpus = frozenset().union(*siblings)
    layout = draw(st.integers(0, 3))
    if layout == 0:  # [DEFAULT] vcpu_pin_set
        dedicated = shared = cpus
    elif layout == 1:
        dedicated, shared = cpus, frozenset()
    elif layout == 2:  # by cores
        split = draw(st.integers(0, cores)) * threads
        dedicated = frozenset(sorted(cpus)[:split])
        shared = cpus - dedicated
    else:  # by threads
        dedicated = _some(draw, cpus)
        shared = cpus - dedicated
    pinned: frozenset[int] = frozenset()
    if draw(st.booleans()):
        pinned = _some(draw, dedicated)
    if odd and draw(st.booleans()):
        siblings = siblings[draw(st.integers(0, 2)) :]
    pools: list[PagePool] = [
        small(4096, _pick(draw, 0, 2048, 3072), _pick(draw, 0, 512))
    ]
    if draw(st.booleans()):
        pools.append(huge(1024, _pick(draw, 0, 512, 1024, 768)))
    if draw(st.booleans()):
        pools.append(giant(_pick(draw, 2, 1, 4), _pick(draw, 0, 1)))
    if odd and draw(st.booleans()):
        pools = pools[draw(st.integers(0, 3)) :]
    memory_mib = sum(p.total * p.size_kib for p in pools) // 1024 or 4096
    return HostCell(
        id=number,
        shared_cpus=shared,
        dedicated_cpus=dedicated,
        pinned_cpus=pinned,
        siblings=tuple(siblings),
        memory_mib=memory_mib,
        memory_used_mib=_pick(draw, 0, 2048, 4096),
        shared_used=_pick(draw, 0, 1, 3),
        pools=tuple(pools),
        physnets=_some(draw, PHYSNETS),
        tunneled=draw(st.booleans()),
    )


@st.composite
def _cases(draw: Any, odd: bool = False) -> Case:
    """Draw a case.

    :param odd: whether host cells may lack CPUs, siblings and page sizes
    """
    threads = _pick(draw, 1, 2)
    ids = _pick(draw, (0, 1, 2, 3), (2, 0, 3, 1), (5, 1, 0, 7))
    cells = tuple(
        draw(_host_cells(ids[index], threads, odd))
        for index in range(_pick(draw, 3, 4, 4, 2, 1))
    )
    policy = _pick(draw, *CPUPolicy)
    thread_policy = ThreadPolicy.PREFER
    if policy is not CPUPolicy.SHARED:
        thread_policy = _pick(draw, *ThreadPolicy, ThreadPolicy.PREFER)
    wish = _pick(draw, *WISHES)
    alike = draw(st.booleans())
    guests: list[GuestCell] = []
    vcpu = 0
    for index in range(min(len(cells), _pick(draw, 2, 3, 2, 1))):
        if alike and index:
            pinned = len(guests[0].dedicated_vcpus)
            floating = len(guests[0].shared_vcpus)
            memory_mib = guests[0].memory_mib
        else:
            pinned = floating = 0
            memory_mib = _pick(draw, 512, 1024, 1024, 2048, 1025, 4096)
            if policy is CPUPolicy.MIXED:
                pinned = draw(st.integers(0, 2))
                floating = draw(st.integers(0 if pinned else 1, 2))
            elif policy is CPUPolicy.DEDICATED:
                pinned = _pick(draw, 1, 2, 1, 2, 3, 4)
            else:
                floating = _pick(draw, 1, 2, 1, 2, 3)
        vcpus = list(range(vcpu, vcpu + pinned + floating))
        vcpu += len(vcpus)
        guests.append(
            GuestCell(
                shared_vcpus=frozenset(vcpus[:floating]),
                dedicated_vcpus=frozenset(vcpus[floating:]),
                memory_mib=memory_mib,
                page_size=wish,
                cpu_policy=policy,
                thread_policy=thread_policy,
            )
        )
    asked = _pick(draw, 0, 0, 0, 1, 2)
    cards: dict[int | None, int] = {}
    if draw(st.booleans()):
        cards = {
            number: draw(st.integers(1, 2))
            for number in sorted(_some(draw, ids[: len(cells)]))
        }
    return Case(
        request=Request(
            cells=tuple(guests),
            emulator_isolated=_pick(draw, False, False, True)
            and policy is not CPUPolicy.SHARED,
            physnets=(
                _some(draw, PHYSNETS) if draw(st.booleans()) else frozenset()
            ),
            tunneled=_pick(draw, False, False, False, True),
            asks_devices=bool(asked),
        ),
        host=HostTopology(cells),
        limits=_pick(
            draw, None, Limits(), Limits(1.5, 1.5), Limits(16.0, 1.0)
        ),
        pack=draw(st.booleans()),
        cards=cards,
        asked=asked,
    )


def _devices(case: Case) -> pci_devices.PciDevices | None:
    found = nova_builders.devices(
        nova_builders.topology(*case.host.cells), case.cards
    )
    return pci_devices.PciDevices(found, _requests(case), None)


def _requests(case: Case) -> list[objects.InstancePCIRequest]:
    return [nova_builders.card(case.asked)] if case.asked else []


def _stock_works(case: Case) -> bool:
    """Check whether stock Nova's claim finds a plan that works."""
    topology = nova_builders.topology(*case.host.cells)
    networks = None
    if case.request.physnets or case.request.tunneled:
        networks = nova_builders.network(
            case.request.physnets, case.request.tunneled
        )
    limits = None
    if case.limits:
        limits = nova_builders.limits(
            case.limits.cpu_ratio, case.limits.ram_ratio, networks
        )
    try:
        found = numa_fit.stock_fit()(
            topology,
            nova_builders.guest(
                *case.request.cells,
                emulator_isolated=case.request.emulator_isolated,
            ),
            None,
            limits=limits,
            pci_requests=_requests(case),
            pci_stats=nova_builders.devices(topology, case.cards),
        )
    except Exception:
        # The claim fails, and so does the build.
        return False
    return nova_builders.works(
        topology, found, nova_hardware.numa_usage_from_instance_numa
    )


def _with_limits_for_networks(case: Case) -> Case:
    """Networks come with the limits; without them none are known."""
    if case.limits:
        return case
    return dataclasses.replace(
        case,
        request=dataclasses.replace(
            case.request, physnets=frozenset(), tunneled=False
        ),
    )


def _replayed(case: Case) -> stock_replay.ClaimVerdict:
    return stock_replay.replay(
        case.request,
        case.host,
        limits=case.limits,
        pack=case.pack,
        devices=_devices(case),
        at_most=5000,
    ).verdict


def _ours_takes(case: Case) -> list[HostCell]:
    """List the host cells that ours takes, none if it doesn't accept."""
    outcome = fitter.fit(
        case.request,
        case.host,
        limits=case.limits,
        strategy=Strategy(pack=case.pack),
        devices=_devices(case),
    )
    if not isinstance(outcome, Plan):
        return []
    cells = {cell.id: cell for cell in case.host.cells}
    return [cells[planned.host_cell] for planned in outcome.cells]


def _check(case: Case) -> None:
    case = _with_limits_for_networks(case)
    with nova_builders.option(
        'packing_host_numa_cells_allocation_strategy', case.pack, 'compute'
    ):
        works = _stock_works(case)

    expected = (
        stock_replay.ClaimVerdict.ACCEPTS
        if works
        else stock_replay.ClaimVerdict.REFUSES
    )
    assert _replayed(case) is expected
    taken = _ours_takes(case)
    if (
        taken
        and stock_replay.plain(case.request)
        and stock_replay.usual(case.host, taken)
    ):
        assert works


@hypothesis.given(case=_cases())
@examples(0.11)
def test_the_replay_accepts_what_stock_nova_accepts(case):
    _check(case)


@hypothesis.given(case=_cases(odd=True))
@examples(0.04)
def test_the_replay_accepts_what_stock_nova_accepts_on_odd_hosts(case):
    _check(case)
