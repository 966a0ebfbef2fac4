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

"""Arms as processes on this machine, each with its own pages and nodes.

It needs no cloud and no libvirt. A process is the boot of an arm: it gets
other memory each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time
from typing import NamedTuple

from nova_numa_hugepages.experiment import in_place
from nova_numa_hugepages.experiment import loads
from nova_numa_hugepages.experiment import local_needs
from nova_numa_hugepages.experiment import local_pages
from nova_numa_hugepages.experiment import probe
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import IDLE
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.plan import THP
from nova_numa_hugepages.experiment.trial import Trial
from nova_numa_hugepages.experiment.trial import TrialError
from nova_numa_hugepages.experiment.workload import Workload
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb

_LIMIT_S = 600.0
_LOOK_S = 0.1
_READY = 'ready\n'
_EVENTS = 'dTLB-load-misses,dTLB-store-misses'
_TICKS_PER_S = os.sysconf('SC_CLK_TCK')


class _Running(NamedTuple):
    """A process of an arm.

    :ivar node: on which its memory should be
    :ivar output: what it writes
    :ivar counting: counts for it, until it ends; None without counters
    """

    arm: Arm
    process: subprocess.Popen[str]
    cpus: frozenset[int]
    node: int
    output: pathlib.Path
    counting: subprocess.Popen[bytes] | None
    began: float
    stolen_s: float


class LocalHost:
    """This machine.

    :param folder: for what is needed while it runs
    :param allocate: whether huge pages that are missing are allocated, which
        takes root; they are given back by `close`
    """

    def __init__(
        self,
        plan: Plan,
        folder: pathlib.Path,
        fs: hostfs.HostFS,
        *,
        allocate: bool = False,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._fs = fs
        self._allocate = allocate
        self._hugetlb = hugetlb.Hugetlb(fs, hugetlb.write_number)
        self._pages = local_pages.AllocatedPages(self._hugetlb)
        self._probe = ''
        self._has_counters = False
        self._place = local_needs.choose(fs)

    @property
    def emulates(self) -> bool:
        """Processes never are."""
        return False

    def prepare(self, workloads: Sequence[Workload]) -> None:
        """Check that the plan can be carried out, and make all ready.

        :raises local_needs.NotHere: if something is missing; nothing was
            changed then
        :raises exception.NUMAHugepagesError: if a file of the kernel can't be
            used
        """
        wanted = local_needs.check(
            self._fs,
            self._plan,
            workloads,
            self._place,
            memory_mib=max(workload.memory_mib for workload in workloads),
            pools=self._hugetlb,
            allocate=self._allocate,
        )
        self._probe = probe.compile_to(self._folder)
        self._has_counters = self._counters_work()
        for key, pages in wanted.items():
            self._pages.allocate(key, pages)
        for workload in workloads:
            workload.prepare(self._folder)

    def run(
        self, workload: Workload, load: str, arms: Sequence[Arm], turn: int
    ) -> tuple[bool, list[Trial]]:
        """Run a workload once in each arm, as `trial.Place.run`."""
        beside = 0 if load == IDLE else 1
        together = len(self._place.cpus) >= len(arms) + beside
        order = self._place.order(turn)
        with self._loaded(load, order[-1]):
            if together:
                on = self._place.cpus_of(arms, turn)
                return True, self._run_together(
                    workload, [(arm, on[arm]) for arm in arms]
                )
            return False, [
                found
                for arm in arms
                for found in self._run_together(workload, [(arm, order[0])])
            ]

    def close(self) -> None:
        """Give back the huge pages that were allocated.

        :raises exception.NUMAHugepagesError: if that can't be done
        """
        self._pages.give_back()

    def _counters_work(self) -> bool:
        """Check whether the processor counts what `_EVENTS` names."""
        if shutil.which('perf') is None:
            return False
        tried = subprocess.run(
            ['perf', 'stat', '-x,', '-e', _EVENTS, 'true'],
            capture_output=True,
            text=True,
        )
        return tried.returncode == 0 and bool(_read_counters(tried.stderr))

    @contextlib.contextmanager
    def _loaded(self, load: str, cpu: int) -> Iterator[None]:
        if load == IDLE:
            yield
            return
        process = subprocess.Popen(
            [
                *(self._probe, 'on', str(cpu), str(self._place.near), 'small'),
                *loads.command(load, str(self._folder)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            # It begins with setting up its memory and files.
            time.sleep(0.5)
            if process.poll() is not None:
                raise TrialError(
                    f'The load {load} ended at once, with status '
                    f'{process.returncode}. Try it by hand: '
                    f'{" ".join(loads.command(load, "/tmp"))}'
                )
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()

    def _run_together(
        self, workload: Workload, on: Sequence[tuple[Arm, int]]
    ) -> list[Trial]:
        running: list[_Running] = []
        try:
            for arm, cpu in on:
                running.append(self._start(workload, arm, cpu))
            if workload.waits:
                for each in running:
                    self._wait_until_ready(workload, each)
                places = {each: self._look(each) for each in running}
                for each in running:
                    assert each.process.stdin is not None
                    # One that has ended is told of later.
                    with contextlib.suppress(BrokenPipeError):
                        each.process.stdin.write('go\n')
                        each.process.stdin.flush()
            else:
                places = {}
            return self._finish(workload, running, places)
        finally:
            for each in running:
                if each.process.returncode is None:
                    each.process.kill()
                    each.process.wait()
                if each.counting is not None:
                    each.counting.kill()
                    each.counting.wait()
                assert each.process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    each.process.stdin.close()

    def _start(self, workload: Workload, arm: Arm, cpu: int) -> _Running:
        # What it writes is its own.
        own = self._folder / arm.name
        own.mkdir(exist_ok=True)
        output = self._folder / f'{arm.name}.output'
        node = self._place.node(arm)
        environment = {**os.environ, 'LC_ALL': 'C'}
        environment.pop('GLIBC_TUNABLES', None)
        if arm.pages == THP:
            environment['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'
        elif arm.page_kib:
            environment['GLIBC_TUNABLES'] = (
                f'glibc.malloc.hugetlb={arm.page_kib * 1024}'
            )
        command = [
            *(self._probe, 'on', str(cpu), str(node), arm.pages),
            *workload.command(self._probe, arm.pages, self._folder),
        ]
        stolen_s = self._stolen_s(cpu)
        with output.open('w') as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=own,
                text=True,
            )
        counting = (
            self._count(arm, process.pid) if self._has_counters else None
        )
        return _Running(
            arm,
            process,
            frozenset({cpu}),
            node,
            output,
            counting,
            time.monotonic(),
            stolen_s,
        )

    def _counts(self, arm: Arm) -> pathlib.Path:
        return self._folder / f'{arm.name}.counters'

    def _count(self, arm: Arm, pid: int) -> subprocess.Popen[bytes]:
        """Have the processor count for a process, until it ends."""
        return subprocess.Popen(
            [
                *('perf', 'stat', '-x,', '-o', str(self._counts(arm))),
                *('-e', _EVENTS, '-p', str(pid)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _wait_until_ready(self, workload: Workload, each: _Running) -> None:
        while _READY not in each.output.read_text(errors='replace'):
            if each.process.poll() is not None:
                self._fail(workload, each)
            self._check_time(workload, each)
            time.sleep(0.005)

    def _look(self, each: _Running) -> in_place.InPlace | None:
        try:
            return in_place.read(self._fs, each.process.pid)
        except OSError:
            # It has just ended.
            return None

    def _finish(
        self,
        workload: Workload,
        running: Sequence[_Running],
        places: dict[_Running, in_place.InPlace | None],
    ) -> list[Trial]:
        """Wait until all have ended; what runs last is looked at meanwhile."""
        left = list(running)
        trials: dict[str, Trial] = {}
        # Each look stops a process with small pages for longer. Looks that
        # come ever later are few, and the last one is in the second half.
        pause_s = _LOOK_S
        look = time.monotonic() + pause_s
        while left:
            for each in list(left):
                pid, status, usage = os.wait4(each.process.pid, os.WNOHANG)
                if not pid:
                    self._check_time(workload, each)
                    continue
                wall_s = time.monotonic() - each.began
                each.process.returncode = os.waitstatus_to_exitcode(status)
                left.remove(each)
                if each.process.returncode:
                    self._fail(workload, each)
                trials[each.arm.name] = self._trial(
                    workload, each, places.get(each), usage, wall_s
                )
            if not workload.waits and time.monotonic() > look:
                for each in left:
                    seen, before = self._look(each), places.get(each)
                    if seen is not None and (
                        before is None or seen.total_kib >= before.total_kib
                    ):
                        places[each] = seen
                look = time.monotonic() + pause_s
                pause_s *= 2
            time.sleep(0.002)
        return [trials[each.arm.name] for each in running]

    def _trial(
        self,
        workload: Workload,
        each: _Running,
        place: in_place.InPlace | None,
        usage: object,
        wall_s: float,
    ) -> Trial:
        output = each.output.read_text(errors='replace')
        problems = ['it ended before it could be looked at']
        if place is not None:
            problems = in_place.problems(
                place, each.arm, workload.memory_mib, each.node, each.cpus
            )
        (cpu,) = each.cpus
        return Trial(
            each.arm.name,
            workload.values(output, wall_s),
            usage.ru_utime + usage.ru_stime,  # type: ignore[attr-defined]
            wall_s,
            (usage.ru_minflt, usage.ru_majflt),  # type: ignore[attr-defined]
            self._stolen_s(cpu) - each.stolen_s,
            self._counted(each),
            place.as_json() if place is not None else {},
            problems,
        )

    def _counted(self, each: _Running) -> dict[str, int]:
        if each.counting is None:
            return {}
        each.counting.wait(_LIMIT_S)
        path = self._counts(each.arm)
        return _read_counters(path.read_text()) if path.exists() else {}

    def _check_time(self, workload: Workload, each: _Running) -> None:
        if time.monotonic() > each.began + _LIMIT_S:
            raise TrialError(
                f'The workload {workload.name} did not end in '
                f'{_LIMIT_S:.0f} s in the arm {each.arm.name}. Give it less '
                'to do.'
            )

    def _fail(self, workload: Workload, each: _Running) -> None:
        end = each.output.read_text(errors='replace').strip()[-300:]
        raise TrialError(
            f'The workload {workload.name} failed in the arm {each.arm.name} '
            f'with status {each.process.returncode}: {end or "no output"}'
        )

    def _stolen_s(self, cpu: int) -> float:
        for line in self._fs.text(self._fs.proc / 'stat').splitlines():
            words = line.split()
            if words[:1] == [f'cpu{cpu}'] and len(words) > 8:
                return int(words[8]) / _TICKS_PER_S
        return 0.0


def _read_counters(text: str) -> dict[str, int]:
    """Read the comma-separated output of ``perf stat``."""
    found = {}
    for line in text.splitlines():
        words = line.split(',')
        if len(words) > 2 and words[0].isdigit():
            found[words[2]] = int(words[0])
    return found
