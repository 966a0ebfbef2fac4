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

"""Where the rig keeps its things, and processes that end with it."""

from __future__ import annotations

from collections.abc import Mapping
import ctypes
import fcntl
import os
import pathlib
import signal
import subprocess
from typing import IO

PROJECT = pathlib.Path(__file__).parents[3]

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def folder() -> pathlib.Path:
    """The one folder that is written to; ``HOST_RIG_STATE`` names another."""
    return cache_folder('host-rig', 'HOST_RIG_STATE')


def cache_folder(name: str, variable: str) -> pathlib.Path:
    """Find a folder for what can be made anew.

    :param name: its name among those of this project
    :param variable: the environment variable that may name another one
    """
    named = os.environ.get(variable)
    if named:
        return pathlib.Path(named).absolute()
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return pathlib.Path(cache) / 'nova-numa-hugepages' / name


def libvirt_python() -> pathlib.Path:
    """Where Python's binding of libvirt is, once it was built."""
    return folder() / 'libvirt-python'


def python_path() -> str:
    """Where Python finds the project, and libvirt."""
    return f'{PROJECT}:{libvirt_python()}'


def alone(path: pathlib.Path) -> IO[str] | None:
    """Take a lock that lasts as long as the returned file, or this process.

    :returns: None if another process has it
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open('a')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def start(
    command: list[str],
    log: pathlib.Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: pathlib.Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that ends when this one does, however it ends.

    :param env: its environment; by default that of this process
    :param cwd: the folder in which it starts; by default that of this process
    """
    with log.open('ab') as output:
        return subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A Ctrl-C is for us, who then stop it in good order.
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force if it takes its time. Idempotent."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
