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


"""Tests of the figures that are made of runs, and of what they say."""

import pytest

from nova_numa_hugepages.simulate import summary
from nova_numa_hugepages.simulate import wording
from nova_numa_hugepages.simulate.summary import Figure
from nova_numa_hugepages.simulate.summary import FlavorRefusals
from nova_numa_hugepages.simulate.summary import Metric
from nova_numa_hugepages.simulate.summary import PhaseSummary
from nova_numa_hugepages.simulate.summary import PolicySummary
from tests.unit.simulate.simulated import CHURN
from tests.unit.simulate.simulated import churn
from tests.unit.simulate.simulated import FILL
from tests.unit.simulate.simulated import fill
from tests.unit.simulate.simulated import found
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import sample
from tests.unit.simulate.simulated import STOCK
from tests.unit.simulate.simulated import TRACE


def summed(*runs):
    return summary.summarise(found(*runs))


def ratios(*runs):
    (phase,) = summed(*runs)
    return phase.ratios


def test_one_seed_gives_figures_without_intervals():
    # given
    stock = fill(STOCK, 40, bound=100)
    ours = fill(OURS, 80, refused='small', bound=100)

    # when
    result = summed(ours, stock)

    # then
    assert result == (
        (
            PhaseSummary(
                phase=FILL,
                policies=(
                    PolicySummary(
                        policy=STOCK,
                        seeds=(1,),
                        figures={
                            Metric.PLACED: Figure(40),
                            Metric.CPUS_USED_PERCENT: Figure(50),
                            Metric.CPUS_STRANDED_PERCENT: Figure(50),
                            Metric.PAGES_USED_PERCENT: Figure(25),
                            Metric.PAGES_STRANDED_PERCENT: Figure(25),
                            Metric.BOUND: Figure(100),
                            Metric.OF_BOUND_PERCENT: Figure(40),
                        },
                        by_flavor=(FlavorRefusals('large', 41, 1),),
                        first_refused=(('large', 1),),
                    ),
                    PolicySummary(
                        policy=OURS,
                        seeds=(1,),
                        figures={
                            Metric.PLACED: Figure(80),
                            Metric.CPUS_USED_PERCENT: Figure(50),
                            Metric.CPUS_STRANDED_PERCENT: Figure(50),
                            Metric.PAGES_USED_PERCENT: Figure(25),
                            Metric.PAGES_STRANDED_PERCENT: Figure(25),
                            Metric.BOUND: Figure(100),
                            Metric.OF_BOUND_PERCENT: Figure(80),
                        },
                        by_flavor=(
                            FlavorRefusals('large', 81, 0),
                            FlavorRefusals('small', 0, 1),
                        ),
                        first_refused=(('small', 1),),
                    ),
                ),
                ratios={
                    Metric.PLACED: Figure(2),
                    Metric.CPUS_USED_PERCENT: Figure(1),
                    Metric.CPUS_STRANDED_PERCENT: Figure(1),
                    Metric.PAGES_USED_PERCENT: Figure(1),
                    Metric.PAGES_STRANDED_PERCENT: Figure(1),
                    Metric.OF_BOUND_PERCENT: Figure(2),
                },
            ),
        )
    )
    assert result[0].bound == 100


def test_samples_of_the_warm_up_do_not_count():
    # given: 300 arrivals, of which the last 200 count
    run = churn(STOCK, {'large': 5})

    # when
    measured = summary.measure(run)

    # then: the samples after 200 and 300 arrivals
    assert measured == pytest.approx(
        {
            Metric.PLACED: 120,
            Metric.REFUSED_PERCENT: 2.5,
            Metric.CPUS_USED_PERCENT: 70,
            Metric.CPUS_STRANDED_PERCENT: 15,
            Metric.PAGES_USED_PERCENT: 35,
            Metric.PAGES_STRANDED_PERCENT: 7.5,
        }
    )


def test_a_trace_counts_all_samples():
    run = churn(
        STOCK,
        {},
        phase=TRACE,
        counted={'small': 300},
        samples=(sample(100, 0.2), sample(300, 0.4)),
    )

    measured = summary.measure(run)

    assert measured[Metric.CPUS_USED_PERCENT] == pytest.approx(30)


def test_a_run_that_ended_in_the_warm_up_has_no_shares():
    run = churn(
        OURS,
        {},
        arrivals=100,
        placed=100,
        counted={},
        samples=(sample(100, 0.2),),
    )

    measured = summary.measure(run)

    assert measured == {Metric.PLACED: 100, Metric.REFUSED_PERCENT: 0}


def test_a_bound_of_no_guests_has_no_share():
    measured = summary.measure(fill(STOCK, 0, bound=0, samples=()))

    assert measured == {Metric.PLACED: 0, Metric.BOUND: 0}


def test_refusals_by_flavor_are_those_of_all_seeds():
    # given: more small ones than large ones; no refusal in the third run
    counted = {'large': 80, 'small': 120}
    runs = [
        churn(OURS, {'large': 3}, seed=2, counted=counted),
        churn(OURS, {'large': 1, 'small': 1}, seed=1, counted=counted),
        churn(OURS, {}, seed=3, counted=counted),
    ]

    # when
    (phase,) = summed(*runs)
    (policy,) = phase.policies

    # then
    assert policy.policy is OURS
    assert policy.seeds == (1, 2, 3)
    assert policy.by_flavor == (
        FlavorRefusals('small', 360, 1),
        FlavorRefusals('large', 240, 4),
    )
    assert policy.first_refused == (('large', 2),)
    assert policy.unrefused == 1
    assert policy.figures[Metric.REFUSED_PERCENT].median == 1


def test_ratios_pair_the_runs_of_a_seed():
    # given: with each seed twice as many, but for the one that is alone
    stock = [fill(STOCK, placed, seed=placed) for placed in (10, 40, 30)]
    ours = [fill(OURS, 2 * placed, seed=placed) for placed in (40, 30, 10)]
    alone = fill(OURS, 1000, seed=1000)

    # when
    found_ratios = ratios(alone, *stock, *ours)

    # then
    assert found_ratios[Metric.PLACED] == Figure(
        2, 2, 2, summary.Interval.RANGE
    )


def test_there_is_no_ratio_to_nothing():
    found_ratios = ratios(churn(STOCK, {}), churn(OURS, {'large': 1}))

    assert Metric.REFUSED_PERCENT not in found_ratios
    assert found_ratios[Metric.PLACED] == Figure(0.4)


def test_without_pairs_there_are_no_ratios():
    assert ratios(fill(STOCK, 10, seed=1), fill(OURS, 10, seed=2)) == {}


def test_phases_are_reported_apart():
    result = summed(churn(OURS, {}), fill(OURS, 10))

    assert [phase.phase for phase in result] == [FILL, CHURN]
    assert result[1].bound is None


def test_no_runs_give_an_empty_summary():
    assert summed() == ()


def test_the_interval_lies_around_the_median_and_is_always_the_same():
    values = [395.0, 403.0, 398.0, 410.0, 401.0, 407.0, 404.0]

    figure = summary.figure(values)

    assert figure.median == 403
    assert min(values) <= figure.low < 403 < figure.high <= max(values)
    assert figure == summary.figure(values)


def test_equal_values_have_an_interval_of_no_width():
    assert summary.figure([5.0] * 7) == Figure(
        5, 5, 5, summary.Interval.CONFIDENCE
    )


def test_few_values_have_a_range_and_no_confidence():
    assert summary.figure([40.0, 70.0, 50.0]) == Figure(
        50, 40, 70, summary.Interval.RANGE
    )
    four, five = ([float(n) for n in range(count)] for count in (4, 5))
    assert summary.figure(four).interval is summary.Interval.RANGE
    assert summary.figure(five).interval is summary.Interval.CONFIDENCE


def test_a_flavor_that_never_arrives_has_no_refusals():
    assert FlavorRefusals('idle', 0, 0).percent == 0


@pytest.mark.parametrize(
    ('runs', 'sentence'),
    [
        (
            [fill(STOCK, 403, bound=795), fill(OURS, 778, bound=795)],
            'This package places 1.93 times as many instances before the '
            'first refusal as stock Nova (778 against 403); at most 795 were '
            'possible.',
        ),
        (
            [fill(STOCK, 400), fill(OURS, 401)],
            'This package places as many instances before the first refusal '
            'as stock Nova (401 against 400).',
        ),
        # The median of ratios is not the ratio of medians.
        (
            [
                fill(policy, placed, seed=seed, bound=100)
                for policy, by_seed in (
                    (STOCK, (40, 50, 60)),
                    (OURS, (80, 90, 70)),
                )
                for seed, placed in enumerate(by_seed)
            ],
            'In the median this package places 1.80 times as many instances '
            'before the first refusal as stock Nova, 80.0 % of what is '
            'possible.',
        ),
        (
            [
                fill(policy, 40, seed=seed)
                for policy in (STOCK, OURS)
                for seed in (1, 2)
            ],
            'In the median this package places as many instances before the '
            'first refusal as stock Nova.',
        ),
        (
            [fill(STOCK, 403, bound=795)],
            'Stock Nova places 403 instances before the first refusal; at '
            'most 795 were possible.',
        ),
        (
            [fill(STOCK, 403), fill(OURS, 2500, refused=None)],
            'This package places all 2500 instances, stock Nova 403 instances '
            'before the first refusal.',
        ),
        (
            [fill(STOCK, 50, refused=None), fill(OURS, 50, refused=None)],
            'Both place all 50 instances. With more arrivals the fleet would '
            'fill up.',
        ),
        (
            [fill(OURS, 50, refused=None)],
            'This package places all 50 instances. With more arrivals the '
            'fleet would fill up.',
        ),
        (
            [fill(STOCK, 0), fill(OURS, 3)],
            'This package places 3 instances before the first refusal, stock '
            'Nova 0.',
        ),
        (
            [churn(STOCK, {'large': 11}), churn(OURS, {'large': 1})],
            'Under churn this package refuses 0.5 % of the instances, stock '
            'Nova 5.5 %.',
        ),
        (
            [churn(STOCK, {'large': 11}), churn(OURS, {})],
            'Under churn this package refuses none of the instances, stock '
            'Nova 5.5 %.',
        ),
        (
            [churn(STOCK, {}), churn(OURS, {})],
            'Under churn neither policy refuses an instance.',
        ),
        (
            [churn(OURS, {}, phase=TRACE)],
            'Over the trace this package refuses no instance.',
        ),
        # The middle one of three runs refuses nothing, another one does.
        (
            [
                churn(policy, {'large': refused} if refused else {}, seed=seed)
                for policy, by_seed in ((STOCK, (0, 4, 0)), (OURS, (0, 2, 0)))
                for seed, refused in enumerate(by_seed)
            ],
            'Under churn this package refuses 0 % of the instances in the '
            'median (2 of 600 in all), stock Nova 0 % in the median (4 of 600 '
            'in all).',
        ),
        (
            [
                churn(policy, {'large': refused} if refused else {}, seed=seed)
                for policy, by_seed in ((STOCK, (0, 2, 0)), (OURS, (0, 0, 0)))
                for seed, refused in enumerate(by_seed)
            ],
            'Under churn this package refuses none of the instances, stock '
            'Nova 0 % in the median (2 of 600 in all).',
        ),
    ],
)
def test_the_closing_sentence(runs, sentence):
    (phase,) = summed(*runs)
    assert wording.headline(phase) == sentence


@pytest.mark.parametrize(
    ('number', 'written'),
    [
        (0, '0'),
        (0.004, '0.004'),
        (0.0667, '0.07'),
        (0.123, '0.12'),
        (1.25, '1.2'),
        (5.4, '5.4'),
        (45.83, '45.8'),
        (99.98, '100.0'),
        (100, '100'),
    ],
)
def test_percentages_as_text(number, written):
    assert wording.percent(number) == written


@pytest.mark.parametrize(
    ('ratio', 'written'),
    [(0, '0.00'), (0.0124, '0.012'), (0.23, '0.23'), (1.931, '1.93')],
)
def test_ratios_as_text(ratio, written):
    assert wording.times(ratio) == written


def test_a_median_between_two_guests():
    assert wording.count(402.5) == '402.5'
