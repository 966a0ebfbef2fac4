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


"""A bar that shows the progress of the runs and the time left."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib

from rich import console as rich
from rich import progress as rich_progress

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import runner
from nova_numa_hugepages.simulate import tasks

# The time that runs take, in relation to each other: stock Nova takes longer
# for a guest, and a fleet is full long before guests have come and gone.
_STOCK = 2.0
_COME_AND_GO = 6.0


def weight(task: tasks.Task) -> float:
    """Return the share of a run in the total, in relation to other runs."""
    factor = _STOCK if task.policy is results.PlacementPolicy.STOCK else 1.0
    return factor * (1.0 if task.phase is results.Phase.FILL else _COME_AND_GO)


@contextlib.contextmanager
def shown(
    console: rich.Console, planned: Sequence[tasks.Task]
) -> Iterator[runner.Progress]:
    """Show a bar if the console is a terminal.

    :returns: a function to call with the progress of a run
    """
    weights = [weight(task) for task in planned]
    shares = [0.0] * len(planned)
    with rich_progress.Progress(
        rich_progress.TextColumn('{task.description}'),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        whole = bar.add_task(
            '1 run' if len(planned) == 1 else f'{len(planned)} runs',
            total=sum(weights),
        )

        def report(number: int, share: float) -> None:
            shares[number] = share
            done = sum(
                share * weight
                for share, weight in zip(shares, weights, strict=True)
            )
            bar.update(whole, completed=done)

        yield report
