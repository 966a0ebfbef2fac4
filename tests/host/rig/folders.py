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

"""The folders that the rig keeps its files in, and the locks on them."""

from __future__ import annotations

import fcntl
import os
import pathlib
from typing import IO

PROJECT = pathlib.Path(__file__).parents[3]


def folder() -> pathlib.Path:
    """Return the folder of the rig; ``HOST_RIG_STATE`` names another."""
    return cache_folder('host-rig', 'HOST_RIG_STATE')


def cache_folder(name: str, variable: str) -> pathlib.Path:
    """Find a folder for what can be made again.

    :param name: its name among those of this project
    :param variable: the environment variable that may name another one
    """
    named = os.environ.get(variable)
    if named:
        return pathlib.Path(named).absolute()
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return pathlib.Path(cache) / 'nova-numa-hugepages' / name


def libvirt_python() -> pathlib.Path:
    """Return where Python's binding of libvirt is, once it was built."""
    return folder() / 'libvirt-python'


def python_path() -> str:
    """Return where Python finds the project, and libvirt."""
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
