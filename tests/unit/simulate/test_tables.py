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


"""Tests of the tables for the terminal."""

import io
import textwrap

from rich import console as rich

from nova_numa_hugepages.simulate import tables
from tests.unit.simulate.simulated import churn
from tests.unit.simulate.simulated import fill
from tests.unit.simulate.simulated import found
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import STOCK


def printed(results, *, planned=2, encoding='utf-8', **console):
    """Give what is printed, without the blanks at the ends of lines."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding) as file:
        tables.print_report(
            results,
            rich.Console(file=file, **({'width': 80} | console)),
            planned=planned,
        )
        file.flush()
        text = raw.getvalue().decode(encoding)
    return '\n'.join(line.rstrip() for line in text.splitlines())


BOTH = found(
    fill(STOCK, 40, bound=100),
    fill(OURS, 80, bound=100),
    churn(STOCK, {'large': 11}),
    churn(OURS, {'large': 1}),
)


def test_two_policies_and_two_phases():
    assert printed(BOTH).strip() == textwrap.dedent("""\
        Fill: instances arrive and stay, until one is refused

                                       stock Nova   this package   ratio
         ───────────────────────────────────────────────────────────────
         placed before first refusal           40             80    2.00
         share of the bound                40.0 %         80.0 %    2.00
         CPUs used                         50.0 %         50.0 %    1.00
         CPUs stranded                     50.0 %         50.0 %    1.00
         pages used                        25.0 %         25.0 %    1.00
         pages stranded                    25.0 %         25.0 %    1.00

        Of one run each.

        stock Nova: first refused was large
        this package: first refused was large

        Churn: instances arrive, and leave after a while

                                       stock Nova   this package   ratio
         ───────────────────────────────────────────────────────────────
         placed before first refusal          120            120    1.00
         arrivals refused                   5.5 %          0.5 %   0.091
         CPUs used                         70.0 %         70.0 %    1.00
         CPUs stranded                     15.0 %         15.0 %    1.00
         pages used                        35.0 %         35.0 %    1.00
         pages stranded                     7.5 %          7.5 %    1.00

        Of one run each.


         refused of arrivals           stock Nova       this package
         ───────────────────────────────────────────────────────────
         large                 11 of 100 (11.0 %)   1 of 100 (1.0 %)
         small                     0 of 100 (0 %)     0 of 100 (0 %)

         all                    11 of 200 (5.5 %)   1 of 200 (0.5 %)


        Stranded: free, but in the wrong place for an average instance of the mix.

        This package places 2.00 times as many instances before the first refusal as
        stock Nova (80 against 40); at most 100 were possible. Under churn this package
        refuses 0.5 % of the instances, stock Nova 5.5 %.""")  # noqa: E501


def test_several_seeds_have_intervals():
    # given
    runs = [
        fill(policy, placed + seed, seed=seed)
        for policy, placed in ((STOCK, 400), (OURS, 780))
        for seed in range(7)
    ]

    # when
    lines = printed(found(*runs)).splitlines()

    # then
    assert ' '.join(lines[4].split()) == (
        'placed before first refusal 403 (401-405) 783 (781-785) 1.94'
    )
    assert (
        'Medians of 7 runs, with 95 % confidence intervals; ratios of the '
        'same seeds.'
    ) in lines
    assert 'stock Nova: first refused was large (7 of 7 runs)' in lines


def test_few_seeds_have_ranges():
    runs = [fill(STOCK, placed, seed=placed) for placed in (40, 50, 45)]

    lines = printed(found(*runs)).splitlines()

    assert ' '.join(lines[4].split()) == (
        'placed before first refusal 45 (40-50)'
    )
    assert (
        'Medians of 3 runs, with ranges from the least to the most.' in lines
    )


def test_an_interrupted_simulation_says_how_far_it_came():
    # given: two runs of stock Nova, and one of ours
    runs = [fill(STOCK, 40), fill(STOCK, 41, seed=2), fill(OURS, 80)]

    # when
    text = printed(found(*runs, complete=False), planned=14)

    # then
    assert 'Medians of 2 and 1 runs' in text
    assert (
        'Interrupted after 3 of 14 runs; the figures are of these only.'
        in text
    )


def test_interrupted_before_the_first_run_was_done():
    text = printed(found(complete=False), planned=14)

    assert text == 'Interrupted before the first run was done.'


def test_one_policy_has_no_ratios():
    text = printed(found(fill(OURS, 80)))

    assert 'ratio' not in text
    assert 'stock Nova' not in text
    assert 'This package places 80 instances before the first refusal.' in text


def test_a_fleet_that_takes_all_guests():
    text = printed(
        found(fill(STOCK, 50, refused=None), churn(OURS, {}, samples=()))
    )

    assert 'placed before first refusal       all 50' in text
    assert 'stock Nova: no instance was refused' in text
    assert 'No instance was refused.' in text


def test_a_policy_that_refuses_nobody_has_no_ratio_of_guests_placed():
    # given: nobody knows how many more ours could have placed
    runs = [churn(STOCK, {'large': 11}), churn(OURS, {})]

    # when
    lines = printed(found(*runs)).splitlines()

    # then
    assert ' '.join(lines[4].split()) == (
        'placed before first refusal 120 all 300 -'
    )


def test_a_policy_without_a_figure_or_a_flavor_has_a_dash():
    # given: ours was interrupted in the warm-up of its only run
    ours = churn(OURS, {}, arrivals=10, placed=10, counted={}, samples=())

    # when
    lines = printed(found(churn(STOCK, {'large': 11}), ours)).splitlines()

    # then
    rows = [line.split() for line in lines]
    assert ['CPUs', 'used', '70.0', '%', '-', '-'] in rows
    assert ['small', '0', 'of', '100', '(0', '%)', '-'] in rows


def test_names_of_flavors_are_taken_literally():
    text = printed(
        found(
            churn(
                STOCK,
                {'[red]big': 1},
                counted={'[red]big': 100},
                first_refused='[red]big',
            )
        )
    )

    assert '[red]big' in text


def test_a_pipe_gets_no_colours_and_a_terminal_does():
    assert '\x1b' not in printed(BOTH)
    assert '\x1b' in printed(BOTH, force_terminal=True, color_system='256')


def test_without_unicode_it_is_ascii():
    assert 'placed before first refusal' in printed(BOTH, encoding='ascii')


def test_no_line_is_wider_than_the_terminal():
    runs = [
        churn(policy, {'l' * 60: 7}, seed=seed, counted={'l' * 60: 9999})
        for policy in (STOCK, OURS)
        for seed in range(3)
    ]

    text = printed(found(*runs))

    assert max(map(len, text.splitlines())) <= 80
