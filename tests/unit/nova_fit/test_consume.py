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


"""What is left of host cells is what Nova accounts for."""

from __future__ import annotations

import hypothesis
from nova.virt import hardware as nova_hardware

from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import consume
from nova_numa_hugepages.core.fit import fitter
from nova_numa_hugepages.nova_fit import translate
from tests.unit import nova_builders
from tests.unit.core.capacity.slot_strategies import Count
from tests.unit.core.capacity.slot_strategies import counts
from tests.unit.core.dice import examples
from tests.unit.core.dice import Focus
from tests.unit.core.strategies import Case
from tests.unit.core.strategies import cases


def check(
    request: model.Request,
    host: model.HostTopology,
    limits: model.Limits | None,
    strategy: model.Strategy,
) -> None:
    # Given a guest that fits
    plan = fitter.fit(request, host, limits=limits, strategy=strategy)
    hypothesis.assume(isinstance(plan, model.Plan))
    assert isinstance(plan, model.Plan)
    # When it comes to the host, by our account and by Nova's
    ours = consume.after_plan(request, plan, host)
    before = nova_builders.topology(*host.cells)
    theirs = nova_hardware.numa_usage_from_instance_numa(
        before,
        translate.instance_topology(
            nova_builders.guest(
                *request.cells, emulator_isolated=request.emulator_isolated
            ),
            plan,
            before,
        ),
    )
    # Then the same is left
    left = nova_builders.topology(
        *[ours.get(cell.id, cell) for cell in host.cells]
    )
    assert translate.host_topology(left) == (translate.host_topology(theirs))


@examples(0.03)
@hypothesis.given(cases())
def test_of_guests_that_just_fit(case: Case) -> None:
    check(case.request, case.host, case.limits, case.strategy)


@examples(0.02)
@hypothesis.given(cases(Focus.MEMORY))
def test_of_guests_whose_pages_just_fit(case: Case) -> None:
    check(case.request, case.host, case.limits, case.strategy)


@examples(0.03)
@hypothesis.given(counts())
def test_of_guests_that_fit_many_times(count: Count) -> None:
    check(count.request, count.host, count.limits, count.strategy)


@examples(0.02)
@hypothesis.given(counts(Focus.CPUS))
def test_of_guests_whose_cpus_fit_many_times(count: Count) -> None:
    check(count.request, count.host, count.limits, count.strategy)
