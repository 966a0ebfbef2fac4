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

"""The processes of the stack: started in order, stopped in reverse.

Each ends with the process that started it, however that ends; their own
children notice, and end then too.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import os
import pathlib
import signal
import socket
import subprocess
import time

from tests.host.rig import children
from tests.host.rig import folders
from tests.stack import locations


class Failed(Exception):
    """Something did not start; the text says where to look."""


def interrupt(number: int, _: object) -> None:
    """Handle a signal as Ctrl-C, so that what is up is ended in good order.

    That happens once: the end is not to be interrupted.

    :raises KeyboardInterrupt: always
    """
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


class Processes:
    """The processes of a stack, by name."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        command: list[str],
        *,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start a process, whose output goes to the log of its name.

        :param env: what its environment has beside that of `environment`
        """
        self._running[name] = children.start(
            command,
            log(name),
            env={**environment(), **(env or {})},
            cwd=locations.folder(),
        )

    def stop(self, name: str) -> None:
        """End a process, and wait for that. Idempotent."""
        process = self._running.pop(name, None)
        if process is not None:
            children.stop(process)

    def stop_all(self) -> None:
        """End all, the last one first. Idempotent."""
        while self._running:
            self.stop(next(reversed(self._running)))

    def wait_until(
        self, ready: Callable[[], object], *names: str, seconds: float = 120
    ) -> None:
        """Wait until something is ready.

        :param names: the processes that it takes
        :raises Failed: if one of them ends, or if the time is over
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check(*names)
            if time.monotonic() > deadline:
                raise Failed(
                    f'{" and ".join(names)} did not get ready in '
                    f'{seconds:.0f} s; see {_logs(names)}'
                )
            time.sleep(0.2)

    def check(self, *names: str) -> None:
        """Make sure that processes run.

        :raises Failed: if one doesn't
        """
        for name in names or tuple(self._running):
            status = self._running[name].poll()
            if status is not None:
                raise Failed(
                    f'{name} ended with {status}; see {_logs([name])}'
                )


def run(
    name: str, command: list[str], *, env: Mapping[str, str] | None = None
) -> None:
    """Run a command to its end, with its output in the log of its name.

    :raises Failed: if it fails
    """
    with log(name).open('ab') as output:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=locations.folder(),
            env={**environment(), **(env or {})},
        )
    if ended.returncode:
        raise Failed(
            f'{" ".join(command[:3])} ended with {ended.returncode}; '
            f'see {_logs([name])}'
        )


def environment() -> dict[str, str]:
    """Return the environment of services: nothing of the project."""
    kept = {
        name: os.environ[name]
        for name in ('PATH', 'HOME', 'LANG', 'LC_ALL')
        if name in os.environ
    }
    return {
        **kept,
        'PYTHONPATH': str(folders.libvirt_python()),
        'PYTHONWARNINGS': 'ignore',
        'PYTHONUNBUFFERED': '1',
    }


def log(name: str) -> pathlib.Path:
    """Return the path of the log of a process."""
    return locations.logs() / f'{name}.log'


def listens(port: int) -> bool:
    """Return whether something listens at a port of the loopback."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((locations.LOOPBACK, port)) == 0


def _logs(names: tuple[str, ...] | list[str]) -> str:
    return ', '.join(str(log(name)) for name in names)
