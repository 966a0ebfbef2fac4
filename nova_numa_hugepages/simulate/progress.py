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


"""How far the runs are, and how much time is left."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import time

from rich import console as rich
from rich import progress as rich_progress

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import runner
from nova_numa_hugepages.simulate import tasks

# How long runs take, in relation to each other: stock Nova takes longer for a
# guest, and a fleet is full long before guests have come and gone.
_STOCK = 2.0
_COME_AND_GO = 6.0

# Before that it would only be guessed how much time is left.
_GUESS_AFTER_S = 2.0


class Estimate:
    """Tells how much is done, and how much time is left.

    :param planned: the runs
    :param clock: in seconds
    :ivar total: what there is to do
    """

    def __init__(
        self,
        planned: Sequence[tasks.Task],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._weights = [_weight(task) for task in planned]
        self._shares = [0.0] * len(planned)
        self._clock = clock
        # When the first run told something, and what was done then: until
        # then processes are started, and Nova is loaded.
        self._begin: tuple[float, float] | None = None
        self.total = sum(self._weights)

    def update(self, number: int, share: float) -> tuple[float, float | None]:
        """Take note of how far a run is.

        :param number: of the run, as planned
        :param share: from 0 to 1
        :returns: how much of the total is done, and the seconds left; None
            if that can't be told yet
        """
        self._shares[number] = max(self._shares[number], share)
        done = sum(
            share * weight
            for share, weight in zip(self._shares, self._weights, strict=True)
        )
        now = self._clock()
        if self._begin is None:
            self._begin = now, done
        begin, before = self._begin
        if now - begin < _GUESS_AFTER_S or done <= before:
            return done, None
        return done, (now - begin) * (self.total - done) / (done - before)


def _weight(task: tasks.Task) -> float:
    weight = _STOCK if task.policy is results.PlacementPolicy.STOCK else 1.0
    if task.phase is not results.Phase.FILL:
        weight *= _COME_AND_GO
    return weight


@contextlib.contextmanager
def shown(
    console: rich.Console, planned: Sequence[tasks.Task]
) -> Iterator[runner.Progress]:
    """Show a bar, if that is a terminal.

    :returns: to be told how far the runs are
    """
    estimate = Estimate(planned)
    count = len(planned)
    with rich_progress.Progress(
        rich_progress.TextColumn('{task.description}'),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn('{task.fields[left]}'),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        whole = bar.add_task(
            '1 run' if count == 1 else f'{count} runs',
            total=estimate.total,
            left='starting',
        )

        def tell(number: int, share: float) -> None:
            done, seconds = estimate.update(number, share)
            left = '' if done else 'starting'
            if seconds is not None and done < estimate.total:
                left = f'about {duration(seconds)} left'
            bar.update(whole, completed=done, left=left)

        yield tell


def duration(seconds: float) -> str:
    """Write how long something takes, as exact as one wants to know it."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes} min'
    if minutes >= 10:
        return f'{minutes} min'
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'
