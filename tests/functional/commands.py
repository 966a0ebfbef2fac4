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


"""The command in a process of its own, as a user runs it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import time

SCENARIO = """\
hosts:
  duo:
    count: 2
    nodes: 2
    cores: 4
    memory_gib: 8
    pages: {1GiB: 6}
flavors:
  one:
    vcpus: 2
    memory_mib: 1024
    extra_specs: {hw:cpu_policy: dedicated, hw:mem_page_size: 1GB}
  twin:
    vcpus: 4
    memory_mib: 2048
    extra_specs:
      hw:cpu_policy: dedicated
      hw:mem_page_size: 1GB
      hw:numa_nodes: 2
arrivals:
  count: 20
  mean_lifetime: 5
"""

# It is over when the fleet is full.
SHORT = SCENARIO.replace('  mean_lifetime: 5\n', '')

# An experiment of some seconds.
EXPERIMENT = """\
arms:
  small: {pages: small}
  huge: {pages: 2MiB}
workloads:
  chase: {mib: [1, 16], seconds: 0.05, rounds: 4}
pairs: 12
"""

# Its last runs take minutes.
LONG = SCENARIO.replace('count: 20', 'count: 1000000')

_COMMAND = [sys.executable, '-m', 'nova_numa_hugepages.cmd.main']

# What a user's terminal might set.
_UNSET = ('COLUMNS', 'LINES', 'FORCE_COLOR', 'PYTHONWARNINGS', 'PYTHONPATH')


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in _UNSET}
    return {**kept, **extra}


def command(
    folder: pathlib.Path,
    *arguments: str,
    limit_s: float = 120.0,
    **extra: str,
) -> tuple[int, str, str]:
    """Run the command in a folder, with its output in pipes.

    :param limit_s: how long it may take
    :param extra: environment variables
    :returns: the exit code, standard output and standard error
    """
    done = subprocess.run(
        [*_COMMAND, *arguments],
        cwd=folder,
        env=environment(extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s,
    )
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def started(
    folder: pathlib.Path, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a folder, with its output in pipes."""
    process = subprocess.Popen(
        [*_COMMAND, *arguments],
        cwd=folder,
        env=environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Session:
    """A process with processes of its own, on a terminal."""

    def __init__(
        self, folder: pathlib.Path, arguments: tuple[str, ...]
    ) -> None:
        terminal, slave = pty.openpty()
        self._terminal = terminal
        self._process = subprocess.Popen(
            [*_COMMAND, *arguments],
            cwd=folder,
            env=environment({'TERM': 'xterm', 'COLUMNS': '80'}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ''

    def _read(self) -> bool:
        """Read what the terminal shows; False at the end."""
        try:
            some = os.read(self._terminal, 65536)
        except OSError:
            return False
        self.shown += some.decode(errors='replace')
        return bool(some)

    def wait_for(self, percent: int) -> None:
        """Wait until a part of the work is done."""
        end = time.monotonic() + 90
        while time.monotonic() < end and self._read():
            if any(
                int(done) >= percent
                for done in re.findall(r'(\d+)%', self.shown)
            ):
                return
        raise AssertionError(f'never came to {percent} %: {self.shown!r}')

    def signal(self, number: signal.Signals, *, to_all: bool) -> None:
        """Send a signal, as a terminal does to all processes, or to one."""
        if to_all:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the end.

        :returns: the exit code and standard output
        """
        while self._read():
            pass
        output, _ = self._process.communicate(timeout=30)
        return self._process.returncode, output.decode()

    def others(self) -> list[str]:
        """List the processes of this session that still run."""
        end = time.monotonic() + 5
        while (found := self._others()) and time.monotonic() < end:
            time.sleep(0.1)
        return found

    def _others(self) -> list[str]:
        found = []
        for folder in pathlib.Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):
                stat = (folder / 'stat').read_text()
                # After the name, which may have blanks.
                state, _, _, session = stat.rpartition(')')[2].split()[:4]
                if int(session) == self._process.pid and state not in 'ZX':
                    found.append(stat)
        return found

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
        os.close(self._terminal)


@contextlib.contextmanager
def session(folder: pathlib.Path, *arguments: str) -> Iterator[Session]:
    """Run the command, with its notes on a terminal."""
    started = Session(folder, arguments)
    try:
        yield started
    finally:
        started.close()
