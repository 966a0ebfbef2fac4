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

"""What runs beside a workload, in each arm alike: loads of stress-ng."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

PROGRAM = 'stress-ng'
PACKAGE = 'stress-ng'

# By the name in a plan. ``noise`` comes and goes, as neighbours do.
ARGUMENTS: Mapping[str, Sequence[str]] = {
    'cpu': ('--cpu', '1', '--cpu-method', 'matrixprod'),
    'memory': ('--stream', '1'),
    'io': ('--hdd', '1', '--hdd-bytes', '128m'),
    'noise': (
        '--cpu',
        '1',
        '--cpu-load',
        '50',
        '--vm',
        '1',
        '--vm-bytes',
        '64m',
    ),
}


def command(load: str, folder: str) -> list[str]:
    """Return the program and its arguments.

    :param load: one of `ARGUMENTS`
    :param folder: where it may write
    """
    return [PROGRAM, '--quiet', '--temp-path', folder, *ARGUMENTS[load]]
