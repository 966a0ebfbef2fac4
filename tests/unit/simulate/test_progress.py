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


"""Tests of the progress of the runs."""

import io

from rich import console as rich

from nova_numa_hugepages.simulate import runner
from nova_numa_hugepages.simulate import workload
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import CHURN
from tests.unit.simulate.simulated import FILL
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import STOCK
from tests.unit.simulate.simulated import TRACE


def task(policy, phase):
    return workload.Task(play([], []), policy, phase, 1)


def test_runs_that_take_longer_weigh_more():
    def weight(policy, phase):
        return runner._weight(task(policy, phase))

    assert weight(STOCK, FILL) > weight(OURS, FILL)
    assert weight(STOCK, CHURN) > weight(OURS, CHURN) > weight(STOCK, FILL)
    assert weight(STOCK, TRACE) == weight(STOCK, CHURN)


def shown(*shares, terminal):
    """Show a run that makes this progress, and one that makes none."""
    file = io.StringIO()
    console = rich.Console(file=file, force_terminal=terminal, width=80)
    runs = [task(OURS, FILL), task(STOCK, FILL)]
    with runner.progress_bar(console, runs) as report:
        for share in shares:
            report(0, share)
    return file.getvalue()


def test_a_terminal_shows_a_bar():
    text = shown(0.0, 1.0, terminal=True)

    # A third, as stock Nova takes twice as long.
    assert '2 runs' in text
    assert '33%' in text


def test_where_there_is_no_terminal_nothing_is_shown():
    assert shown(0.0, 1.0, terminal=False) == ''
