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

"""Errors about input files."""

from __future__ import annotations

from collections.abc import Sequence

from nova_numa_hugepages import exception

# The line from 1, None if it is about the whole file, and what is wrong.
Problem = tuple[int | None, str]


class FileError(exception.NUMAHugepagesError):
    """A file is invalid.

    Its text has a line ``file:line: problem`` for each problem.

    :ivar file: the file, as it was named
    :ivar problems: ordered by line
    """

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        super().__init__(
            '\n'.join(
                f'{file}: {text}' if line is None else f'{file}:{line}: {text}'
                for line, text in problems
            )
        )
        self.file = file
        self.problems = tuple(problems)


class UnreadableError(FileError):
    """A file cannot be read at all.

    :ivar reason: the error of the system
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, [(None, f'cannot read it: {reason}')])
        self.reason = reason
