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

"""How many pairs are made, in which order, and what they show."""

from nova_numa_hugepages.experiment import analysis
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.procedure import Decision
from nova_numa_hugepages.experiment.procedure import Procedure
from nova_numa_hugepages.experiment.trial import Pair
from tests.unit.experiment import made

PLAN = Plan(
    (Arm('control'), Arm('huge', '2048')), {'work': {}}, most_pairs=500
)


def carried_out(
    plan: Plan, place: made.Place
) -> tuple[Decision, list[Pair], list[tuple[int, int, str]]]:
    pairs: list[Pair] = []
    told: list[tuple[int, int, str]] = []
    procedure = Procedure(
        plan,
        [made.Work()],
        place,
        pairs.append,
        lambda *seen: told.append(seen),
    )
    decision = procedure.decide()
    procedure.run(decision)
    return decision, pairs, told


def is_shown(times: float, seed: int) -> bool:
    place = made.Place({'huge': times}, 0.012, seed)
    _, pairs, _ = carried_out(PLAN, place)
    (found,) = analysis.compare(PLAN, [made.Work()], pairs)
    assert found.ratio is not None
    return found.ratio.differs


def test_equal_arms_show_no_difference() -> None:
    assert sum(is_shown(1.0, seed) for seed in range(100)) <= 5


def test_a_difference_of_3_percent_is_found() -> None:
    # With so many pairs it is found nine times of ten or more.
    assert sum(is_shown(1.03, seed) for seed in range(100)) >= 85


def test_pairs_that_tell_how_many_it_takes_count_for_nothing_else() -> None:
    decision, pairs, told = carried_out(PLAN, made.Place({}, 0.01, 1))

    assert sum(pair.first for pair in pairs) == PLAN.first_pairs
    assert sum(not pair.first for pair in pairs) == decision.pairs
    assert decision.pairs == decision.needed >= 12
    assert told[0] == (0, PLAN.first_pairs, 'work, idle, huge')
    assert told[-1] == (
        decision.pairs - 1,
        decision.pairs,
        'work, idle, huge',
    )


def test_a_number_of_pairs_that_is_given() -> None:
    plan = Plan(PLAN.arms, PLAN.workloads, pairs=13)
    decision, pairs, _ = carried_out(plan, made.Place({}, 0.01, 1))

    assert decision == Decision(13, 13)
    assert len(pairs) == 13


def test_a_limit() -> None:
    plan = Plan(PLAN.arms, PLAN.workloads, most_pairs=13)
    decision, _, _ = carried_out(plan, made.Place({}, 0.2, 1))

    assert decision.pairs == 13
    assert decision.needed > 100


def test_each_treatment_is_paired_with_control_in_any_order() -> None:
    plan = Plan(
        (Arm('control'), Arm('huge', '2048'), Arm('far', far=True)),
        {'work': {}},
        loads=('idle', 'cpu'),
        pairs=20,
    )
    place = made.Place({}, 0.01, 1)
    _, pairs, _ = carried_out(plan, place)

    assert len(pairs) == 20 * 2 * 2
    assert set(place.orders) == {
        ('control', 'huge'),
        ('huge', 'control'),
        ('control', 'far'),
        ('far', 'control'),
    }
    assert {pair.load for pair in pairs} == {'idle', 'cpu'}
