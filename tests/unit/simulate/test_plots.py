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


"""Tests of the plots."""

import io
import os
import pathlib
import struct
import subprocess
import sys
import textwrap
from xml.etree import ElementTree

from matplotlib import text
import pytest
from rich import console as rich

from nova_numa_hugepages.simulate import plots
from nova_numa_hugepages.simulate import tables
from tests.unit.simulate.simulated import churn
from tests.unit.simulate.simulated import fill
from tests.unit.simulate.simulated import found
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import sample
from tests.unit.simulate.simulated import STOCK
from tests.unit.simulate.simulated import TRACE

SEVERAL = found(
    *(
        run
        for seed in range(3)
        for run in (
            fill(STOCK, 40 + seed, seed=seed, bound=100),
            fill(OURS, 80 + seed, seed=seed, bound=100),
            churn(STOCK, {'large': 11}, seed=seed),
            churn(OURS, {'large': 1}, seed=seed),
        )
    )
)


def both(*names):
    return [f'{name}.{suffix}' for name in names for suffix in ('png', 'svg')]


def size(data: bytes) -> tuple[int, int]:
    """Read the size of a PNG file in pixels."""
    assert data.startswith(b'\x89PNG\r\n\x1a\n')
    return struct.unpack('>II', data[16:24])


@pytest.mark.parametrize(
    ('results', 'names'),
    [
        (SEVERAL, ['fleet-churn', 'fleet-fill', 'placed', 'refusals-churn']),
        # One seed, one policy.
        (found(fill(OURS, 80)), ['fleet-fill', 'placed']),
        # Each seed has another bound; of one run it isn't known.
        (
            found(
                fill(OURS, 80, bound=90),
                fill(OURS, 82, seed=2, bound=95),
                fill(OURS, 84, seed=3),
            ),
            ['fleet-fill', 'placed'],
        ),
        # No refusals, and a bound that was not asked for.
        (
            found(churn(STOCK, {}, phase=TRACE), churn(OURS, {}, phase=TRACE)),
            ['fleet-trace', 'placed', 'refusals-trace'],
        ),
        # Not a guest was placed.
        (found(fill(STOCK, 0, bound=0)), ['fleet-fill', 'placed']),
        # Ours was interrupted in the warm-up.
        (
            found(
                churn(STOCK, {'large': 1}),
                churn(
                    OURS,
                    {},
                    arrivals=0,
                    placed=0,
                    counted={},
                    samples=(sample(0, 0.0),),
                ),
            ),
            ['fleet-churn', 'placed', 'refusals-churn'],
        ),
        (found(complete=False), []),
    ],
)
def test_which_plots_there_are(results, names):
    contents = plots.render(results)

    assert list(contents) == both(*names)
    for name, content in contents.items():
        if name.endswith('.png'):
            width, height = size(content)
            assert width == 1600
            assert 200 < height < 1600
        else:
            root = ElementTree.fromstring(content)
            assert root.tag == '{http://www.w3.org/2000/svg}svg'


def test_the_same_results_give_the_same_files(tmp_path):
    # given: a moment that is not the same, and a style of the user's
    script = textwrap.dedent("""\
        import pathlib, sys
        from nova_numa_hugepages.simulate import plots
        from tests.unit.simulate import test_plots
        for name, content in plots.render(test_plots.SEVERAL).items():
            pathlib.Path(sys.argv[1], name).write_bytes(content)
        """)
    (tmp_path / 'matplotlibrc').write_text('axes.facecolor: red\n')

    # when
    here = plots.render(SEVERAL)
    there = tmp_path / 'there'
    there.mkdir()
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script, str(there)],
        check=True,
        cwd=pathlib.Path(__file__).parents[3],
        env=os.environ
        | {
            'MATPLOTLIBRC': str(tmp_path / 'matplotlibrc'),
            'PYTHONHASHSEED': '7',
            'SOURCE_DATE_EPOCH': '1',
        },
    )

    # then
    assert {path.name: path.read_bytes() for path in there.iterdir()} == here


def texts(drawn) -> list[str]:
    """Return what is written in a plot."""
    return [one.get_text() for one in drawn.findobj(text.Text)]


def test_figures_are_those_of_the_tables():
    """A run without a refusal, and a median of 0 beside refusals."""
    # given
    results = found(
        *(
            churn(policy, {'large': 3} if refuses else {}, seed=seed)
            for policy in (STOCK, OURS)
            for seed, refuses in enumerate((True, False, False))
        )
    )
    written = io.StringIO()

    # when
    tables.print_report(
        results, rich.Console(file=written, width=200), planned=6
    )
    drawn = plots._plots(results)

    # then: the table says how many were placed, and who was refused
    table = [' '.join(line.split()) for line in written.getvalue().split('\n')]
    assert 'placed before first refusal 300 (120-300) 300 (120-300) -' in table
    assert 'large 3 of 300 (1.0 %) 3 of 300 (1.0 %)' in table
    assert 'first refusal: instance 301' in texts(drawn['fleet-churn'])
    assert texts(drawn['placed']).count('300') >= 2
    refusals = texts(drawn['refusals-churn'])
    assert refusals.count('1.0 %') == 2
    sentence = drawn['refusals-churn'].get_suptitle()
    sentence = sentence.replace('\n', ' ').replace('\xa0', ' ')
    assert f'{sentence}.' in table


def test_dollar_signs_are_no_formula():
    run = churn(STOCK, {'$\\bad$': 1}, counted={'$\\bad$': 100})

    assert plots.render(found(run))


def test_curves_go_through_the_samples_and_stay():
    run = fill(
        STOCK, 4, samples=(sample(0, 0.0), sample(2, 0.5), sample(4, 0.25))
    )

    curve = plots._curve([run], 'cpus_used', [0, 1, 2, 3, 4, 9])

    assert curve.tolist() == [0, 0.25, 0.5, 0.375, 0.25, 0.25]


def test_curves_are_medians_of_the_runs():
    runs = [
        fill(STOCK, 4, seed=seed, samples=(sample(0, 0.0), sample(4, used)))
        for seed, used in enumerate((0.8, 0.2, 0.6))
    ]

    assert plots._curve(runs, 'cpus_used', [2, 4]).tolist() == [0.3, 0.6]


def test_curves_end_at_the_median_of_the_ends():
    runs = [
        fill(STOCK, 4, seed=end, samples=(sample(end, 0.5),))
        for end in (10, 90, 40)
    ]

    assert plots._end(runs) == 40
