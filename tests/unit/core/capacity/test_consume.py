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


"""What a host cell has left after a guest cell has come to it."""

from __future__ import annotations

import hypothesis

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.fit import host_fit
from nova_numa_hugepages.core.fit.fitter import fit
from nova_numa_hugepages.core.fit.fitter import Fitter
from nova_numa_hugepages.core.model import HostCell
from nova_numa_hugepages.core.model import Plan
from nova_numa_hugepages.core.model import ThreadPolicy
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import host
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import KIB_4
from tests.unit.core.builders import MIB_2
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request
from tests.unit.core.builders import small
from tests.unit.core.capacity.slot_strategies import Count
from tests.unit.core.capacity.slot_strategies import counts
from tests.unit.core.dice import examples


def accounts(cell: HostCell) -> tuple[object, ...]:
    """Return what the fit reads of a host cell, whichever CPUs are free."""
    return cell._replace(pinned_cpus=frozenset(), pools=tuple(cell.pools))


def after(*guests: model.GuestCell, on: model.HostTopology, **others: bool):
    """Fit a guest and let it come."""
    asked = request(*guests, **others)
    plan = fit(asked, on)
    assert isinstance(plan, Plan), plan
    return consume.after_plan(asked, plan, on)


class TestExamples:
    def test_a_guest_takes_its_cpus_and_pages(self):
        cell = host_cell(pools=(small(16), huge(8, used=1)))

        assert after(pinned_cell(2, 4, MIB_2), on=host(cell)) == {
            0: cell._replace(
                pinned_cpus={0, 1},
                memory_used_mib=4,
                pools=[*small_and(huge(8, used=3))],
            )
        }

    def test_without_a_wish_it_takes_the_smallest_pages(self):
        cell = host_cell(shared_cores=4, pools=(small(16), huge(8)))

        assert after(floating_cell(3, 4), on=host(cell)) == {
            0: cell._replace(
                shared_used=3,
                memory_used_mib=4,
                pools=[small(16, used_mib=4), huge(8)],
            )
        }

    def test_where_there_are_no_pages_it_takes_memory(self):
        cell = host_cell(memory_used_mib=1)

        assert after(pinned_cell(1, 4), on=host(cell)) == {
            0: cell._replace(pinned_cpus={0}, memory_used_mib=5, pools=[])
        }

    def test_an_isolated_guest_takes_whole_cores(self):
        cell = host_cell(cores=3, threads=2, pools=(small(16),))

        found = after(
            pinned_cell(1, 4, threads=ThreadPolicy.ISOLATE),
            on=host(cell),
            emulator_isolated=True,
        )

        assert found[0].pinned_cpus == {0, 1, 2, 3}

    def test_the_emulator_takes_a_cpu(self):
        cell = host_cell(shared_cores=2, pools=(small(16),))

        found = after(
            mixed_cell(1, 2, 4), on=host(cell), emulator_isolated=True
        )

        assert (found[0].pinned_cpus, found[0].shared_used) == ({0, 1, 2}, 1)

    def test_host_cells_that_it_does_not_take_are_not_named(self):
        cells = [host_cell(number, pools=(small(16),)) for number in range(3)]

        found = after(
            pinned_cell(1, 4), pinned_cell(1, 4, first=1), on=host(*cells)
        )

        assert set(found) == {0, 1}

    def test_a_choice_takes_as_many_cpus(self):
        fitter = Fitter(
            request(pinned_cell(2, 4, KIB_4), emulator_isolated=True),
            model.Strategy(),
        )
        cell = host_cell(pinned={0}, pools=(small(16), huge(8)))
        choice = fitter.choose(host(cell))
        assert isinstance(choice, host_fit.Choice)

        (found,) = consume.after_choice(fitter, choice).values()

        assert len(found.pinned_cpus) == 4
        assert found.pinned_cpus >= cell.pinned_cpus
        assert found.pools == [small(16, used_mib=4), huge(8)]


def small_and(*pools: model.PagePool) -> tuple[model.PagePool, ...]:
    return (small(16), *pools)


@examples(0.02)
@hypothesis.given(counts())
def test_a_plan_takes_what_was_free(count: Count) -> None:
    # Given a guest that fits
    plan = count.fit()
    hypothesis.assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    before = {cell.id: cell for cell in count.host.cells}
    # When it comes
    cells = consume.after_plan(count.request, plan, count.host)
    # Then only its host cells change, by what the plan says
    assert set(cells) == {cell.host_cell for cell in plan.cells}
    for guest, planned in zip(count.request.cells, plan.cells, strict=True):
        had, has = before[planned.host_cell], cells[planned.host_cell]
        taken = has.pinned_cpus - had.pinned_cpus
        named = {cpu for _, cpu in planned.pinning} | planned.emulator_cpus
        assert named <= taken <= had.free_cpus
        assert taken == named or guest.thread_policy is ThreadPolicy.ISOLATE
        pages_kib = [
            (pool.used - old.used) * pool.size_kib
            for old, pool in zip(had.pools, has.pools, strict=True)
        ]
        assert sum(pages_kib) in (guest.memory_mib * 1024, 0)
        assert bool(sum(pages_kib)) == bool(had.pools)
        assert has == had._replace(
            pinned_cpus=had.pinned_cpus | taken,
            memory_used_mib=had.memory_used_mib + guest.memory_mib,
            shared_used=had.shared_used + len(guest.shared_vcpus),
            pools=has.pools,
        )


@examples(0.02)
@hypothesis.given(counts())
def test_a_choice_takes_what_its_plan_takes(count: Count) -> None:
    # Given a guest that fits
    fitter = Fitter(count.request, count.strategy)
    choice = fitter.choose(count.host, limits=count.limits)
    hypothesis.assume(isinstance(choice, host_fit.Choice))
    assert isinstance(choice, host_fit.Choice)
    # When it comes, once with its pinning and once without
    pinned = consume.after_plan(count.request, fitter.plan(choice), count.host)
    quick = consume.after_choice(fitter, choice)
    # Then the same is left, whatever CPUs are free
    assert {key: accounts(cell) for key, cell in quick.items()} == {
        key: accounts(cell) for key, cell in pinned.items()
    }
    # And as many of them, unless idle threads are left beside them
    if all(
        guest.thread_policy is not ThreadPolicy.ISOLATE
        for guest in count.request.cells
    ):
        assert {key: len(cell.free_cpus) for key, cell in quick.items()} == {
            key: len(cell.free_cpus) for key, cell in pinned.items()
        }
