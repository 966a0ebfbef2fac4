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


"""The fit against the oracle, and what holds for any plan or rejection."""

from __future__ import annotations

import copy
import itertools

import hypothesis

from nova_numa_hugepages.core.fit.fitter import fit
from nova_numa_hugepages.core.model import CellPlan
from nova_numa_hugepages.core.model import CPUPolicy
from nova_numa_hugepages.core.model import GuestCell
from nova_numa_hugepages.core.model import HostCell
from nova_numa_hugepages.core.model import Plan
from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection
from tests.unit.core import oracle_rules as rules
from tests.unit.core.dice import examples
from tests.unit.core.dice import Focus
from tests.unit.core.oracle import Best
from tests.unit.core.oracle import distance
from tests.unit.core.oracle import oracle
from tests.unit.core.oracle import rank
from tests.unit.core.strategies import Case
from tests.unit.core.strategies import cases

# Reasons that compare what is needed with the most that there is. The others
# name something that is missing altogether.
COUNTS = (
    Reason.TOO_FEW_CELLS,
    Reason.PAGES,
    Reason.MEMORY,
    Reason.DEDICATED_CPUS,
    Reason.SHARED_CPUS,
    Reason.THREADS,
    Reason.CORES,
    Reason.CPU_RATIO,
    Reason.RAM_RATIO,
    Reason.SMALL_PAGES,
    Reason.CELL_MEMORY,
)


def fit_case(case: Case) -> Plan | Rejection:
    return fit(
        case.request,
        case.host,
        limits=case.limits,
        strategy=case.strategy,
        devices=case.devices,
    )


def ask_oracle(case: Case) -> Best | None:
    return oracle(
        case.request, case.host, case.limits, case.strategy, case.devices
    )


def as_best(case: Case, plan: Plan) -> Best:
    """Make of a plan what the oracle would answer."""
    index = {cell.id: place for place, cell in enumerate(case.host.cells)}
    chosen = [index[cell.host_cell] for cell in plan.cells]
    ranks = rank(case.request, case.host, case.strategy, case.devices)
    by_guest = tuple(ranks[place] for place in chosen)
    return Best(
        tuple(cell.page_size_kib for cell in plan.cells),
        tuple(cell.host_cell for cell in plan.cells),
        (*distance(case.host, chosen), tuple(sorted(by_guest)), by_guest),
    )


def assert_same(case: Case) -> None:
    # When the fit and the oracle place the same guest on the same host
    answer = fit_case(case)
    best = ask_oracle(case)
    # Then they agree on whether it fits, where, and on what pages
    if isinstance(answer, Rejection):
        hypothesis.event(f'rejected: {answer.reason.name}')
        assert best is None, str(answer)
    else:
        hypothesis.event('fits')
        assert as_best(case, answer) == best


@examples(0.35)
@hypothesis.given(cases())
def test_same_as_oracle(case: Case) -> None:
    assert_same(case)


@examples(0.15)
@hypothesis.given(cases(Focus.CPUS))
def test_same_cpus_as_oracle(case: Case) -> None:
    assert_same(case)


@examples(0.2)
@hypothesis.given(cases(Focus.MEMORY))
def test_same_memory_as_oracle(case: Case) -> None:
    assert_same(case)


@examples(0.15)
@hypothesis.given(cases(Focus.PLACES))
def test_same_places_as_oracle(case: Case) -> None:
    assert_same(case)


def assert_pages(guest: GuestCell, cell: HostCell, planned: CellPlan) -> None:
    """Check that the pages hold the memory exactly, and are free."""
    if guest.page_size is None:
        assert planned.page_size_kib is None
        assert planned.pages is None
        return
    assert planned.page_size_kib is not None
    assert planned.pages is not None
    assert type(planned.pages) is int
    assert planned.pages * planned.page_size_kib == guest.memory_mib * 1024
    free = {pool.size_kib: pool.free for pool in cell.pools}
    assert planned.pages <= free[planned.page_size_kib]


def assert_cpus(
    guest: GuestCell, cell: HostCell, planned: CellPlan, isolated: bool
) -> None:
    """Check that the pinning is one to one, on free CPUs of the cell."""
    pinned = guest.cpu_policy is not CPUPolicy.SHARED
    vcpus = [vcpu for vcpu, _ in planned.pinning]
    cpus = [cpu for _, cpu in planned.pinning]
    assert vcpus == sorted(guest.dedicated_vcpus if pinned else ())
    assert len(planned.emulator_cpus) == int(pinned and isolated)
    taken = [*cpus, *planned.emulator_cpus]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= cell.dedicated_cpus - cell.pinned_cpus


def assert_threads(
    guest: GuestCell, cell: HostCell, planned: CellPlan
) -> None:
    """Check that the thread policy is honoured."""
    free = cell.dedicated_cpus - cell.pinned_cpus
    cores = list(rules.cores(cell))
    cpus = {cpu for _, cpu in planned.pinning}
    if guest.cpu_policy is CPUPolicy.SHARED or not (
        cpus or planned.emulator_cpus
    ):
        return
    if guest.thread_policy is ThreadPolicy.ISOLATE:
        taken = cpus | planned.emulator_cpus
        used = [core for core in cores if core & taken]
        assert all(len(core & taken) == 1 for core in used)
        assert all(core <= free for core in used)
        assert all(
            len(core) == rules.threads_per_core(cell)
            for core in used
            if core & cpus
        )
    elif guest.thread_policy is ThreadPolicy.REQUIRE and cpus:
        # As many threads on each core, but for what is left over.
        used = [core for core in cores if core & cpus]
        assert any(
            all(len(core & free) >= threads for core in used)
            and sorted(len(core & cpus) for core in used)[1:]
            == [threads] * (len(used) - 1)
            and len(used) == -(-len(cpus) // threads)
            for threads in range(2, rules.threads_per_core(cell) + 1)
        )


@examples(0.08)
@hypothesis.given(cases())
def test_plan_keeps_to_its_cells(case: Case) -> None:
    # Given a guest that fits
    plan = fit_case(case)
    hypothesis.assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    # Then each guest cell has a host cell of its own
    cells = {cell.id: cell for cell in case.host.cells}
    assert len(plan.cells) == len(case.request.cells)
    assert len({cell.host_cell for cell in plan.cells}) == len(plan.cells)
    # And has its pages and CPUs there
    for number, (guest, planned) in enumerate(
        zip(case.request.cells, plan.cells, strict=True)
    ):
        cell = cells[planned.host_cell]
        assert_pages(guest, cell, planned)
        assert_cpus(
            guest,
            cell,
            planned,
            case.request.emulator_isolated and number == 0,
        )
        assert_threads(guest, cell, planned)


@examples(0.03)
@hypothesis.given(cases(Focus.PLACES))
def test_plan_has_the_distances(case: Case) -> None:
    # Given a guest that fits on a host whose distances are symmetric
    rows = case.host.distances
    hypothesis.assume(rows is not None)
    assert rows is not None
    hypothesis.assume(rows == tuple(zip(*rows, strict=True)))
    plan = fit_case(case)
    hypothesis.assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    # Then the plan has how far its host cells are apart
    index = {cell.id: place for place, cell in enumerate(case.host.cells)}
    pairs = [
        rows[index[one.host_cell]][index[other.host_cell]]
        for one, other in itertools.combinations(plan.cells, 2)
    ]
    assert plan.distance == sum(pairs)
    assert plan.farthest == max(pairs, default=0)


@examples(0.02)
@hypothesis.given(cases())
def test_fit_is_pure(case: Case) -> None:
    # Given a copy of all arguments
    before = copy.deepcopy(case)
    # When the fit is asked twice
    first = fit_case(case)
    second = fit_case(case)
    # Then the answers are the same, also for the copy
    assert first == second == fit_case(before)
    # And the arguments are what they were
    assert case == before


@examples(0.02)
@hypothesis.given(cases())
def test_rejection_names_the_nearest_miss(case: Case) -> None:
    # Given a guest that does not fit
    answer = fit_case(case)
    hypothesis.assume(isinstance(answer, Rejection))
    assert isinstance(answer, Rejection)
    # Then it says why, in words that are complete
    text = str(answer)
    assert text == text.strip()
    assert text
    assert 'None' not in text
    # And in numbers, where the reason is about an amount
    if answer.reason in COUNTS:
        assert answer.best < answer.needed, text
    if answer.guest_cell is not None:
        assert 0 <= answer.guest_cell < len(case.request.cells)


def test_cases_are_near_the_edge() -> None:
    # Given some of the cases that the tests above are made of
    verdicts: dict[int, list[bool]] = {}

    @hypothesis.settings(
        max_examples=400,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(cases())
    def draw(case: Case) -> None:
        verdicts.setdefault(len(case.request.cells), []).append(
            ask_oracle(case) is not None
        )

    # When the oracle places them
    draw()
    # Then neither verdict is rare, nor are guests of several cells
    every = list(itertools.chain(*verdicts.values()))
    assert 0.3 < sum(every) / len(every) < 0.75
    assert sum(map(len, verdicts.values())) - len(verdicts[1]) > 60
    assert any(verdicts[2])
