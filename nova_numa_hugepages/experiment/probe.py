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

"""The programs of ``probe.c``, compiled on the host where they run."""

from __future__ import annotations

import pathlib
import subprocess

from nova_numa_hugepages import exception

PROGRAMS = {'cc': 'gcc libc6-dev'}

_SOURCE = pathlib.Path(__file__).with_name('probe.c')


class CompileError(exception.NUMAHugepagesError):
    """It can't be compiled here."""


def compile_to(folder: pathlib.Path, *, static: bool = False) -> str:
    """Compile it.

    :param folder: where to
    :param static: whether it is to run where no libraries are
    :returns: the program
    :raises CompileError: if the compiler fails
    """
    program = str(folder / 'probe')
    compiled = subprocess.run(
        [
            *('cc', '-O2', *(['-static'] if static else [])),
            *('-o', program, str(_SOURCE)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if compiled.returncode:
        raise CompileError(
            f'{_SOURCE} could not be compiled: '
            f'{compiled.stderr.strip()[-400:]}'
        )
    return program
