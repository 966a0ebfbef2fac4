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

"""Helpers: holds of a ledger, and other processes that use it."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib
import subprocess
import sys

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state.ledger import Ledger

NODE_0 = model.PoolKey(0, 2048)
NODE_1 = model.PoolKey(1, 2048)
GIANT = model.PoolKey(1, 1048576)

GUEST = model.Purpose.GUEST
INCOMING = model.Purpose.INCOMING
RESIZE = model.Purpose.RESIZE

HELD = model.State.HELD
TAKEN = model.State.TAKEN

ALICE = '00000000-0000-4000-8000-00000000000a'
BOB = '00000000-0000-4000-8000-00000000000b'

_PREAMBLE = """
import os
import pathlib
import signal
import sqlite3
import sys
import time

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.state import ledger
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state import service_lock
from tests.unit.hugepages.state.ledgers import *

folder = pathlib.Path(sys.argv[1])
path = folder / 'ledger.sqlite'


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def report(text):
    print(text, flush=True)
"""

# Dies at a statement of the ledger, before it or after it.
FATAL = """
class Fatal(sqlite3.Connection):
    left = int(sys.argv[2])

    def execute(self, *args):
        if not Fatal.left and sys.argv[3] == 'before':
            die()
        found = super().execute(*args)
        if not Fatal.left and sys.argv[3] == 'after':
            die()
        Fatal.left -= 1
        return found


connect = sqlite3.connect
sqlite3.connect = lambda *args, **named: connect(*args, factory=Fatal, **named)
"""

# The process is killed, and leaves its log.
KILLED = """
ledger = ledger.Ledger.open(path)
ledger.replace_holds(ALICE, GUEST, [hold()])
die()
"""

ROOT = pathlib.Path(__file__).parents[4]


def hold(
    holder: str = ALICE,
    cell: int = 0,
    key: model.PoolKey = NODE_0,
    count: int = 512,
    *,
    purpose: model.Purpose = GUEST,
    grown: int = 0,
    state: model.State = HELD,
    since: float = 1000.0,
) -> model.Hold:
    """Make a hold of a gibibyte for the first cell of a guest."""
    return model.Hold(holder, purpose, cell, *key, count, grown, state, since)


def filled(path: pathlib.Path, count: int = 1) -> None:
    """Make a ledger with holds, and close it."""
    with Ledger.open(path) as ledger:
        for number in range(count):
            holder = f'guest {number}'
            ledger.replace_holds(holder, GUEST, [hold(holder)])


def files(folder: pathlib.Path) -> dict[str, tuple[str, bytes]]:
    """Return the names, modes and contents of files."""
    return {
        file.name: (oct(file.stat().st_mode), file.read_bytes())
        for file in folder.iterdir()
    }


@contextlib.contextmanager
def process(
    folder: pathlib.Path, script: str, *args: object
) -> Iterator[subprocess.Popen[str]]:
    """Run a script in another process, which ends with the context.

    :param folder: where the ledger is; ``folder`` and ``path`` to the script
    :param args: more for its ``sys.argv``
    """
    with subprocess.Popen(
        [sys.executable, '-c', _PREAMBLE + script, folder, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def run(folder: pathlib.Path, script: str, *args: object) -> tuple[int, str]:
    """Run a script in another process to its end.

    :returns: its exit status and what it reported
    """
    with process(folder, script, *args) as running:
        output, _ = running.communicate(timeout=60)
    return running.returncode, output


def next_line(running: subprocess.Popen[str]) -> str:
    """Wait for the next line that a process prints."""
    assert running.stdout is not None
    return running.stdout.readline().strip()
