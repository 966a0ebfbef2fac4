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

"""Errors of the ``host`` commands, and how they are printed."""

from __future__ import annotations

import sys

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.kernel import hostfs

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2


class BadInput(exception.NUMAHugepagesError):
    """Options, or the configuration, are not right."""


class Refused(exception.NUMAHugepagesError):
    """What was asked for is not done; the text says why."""


def fail(error: exception.NUMAHugepagesError) -> int:
    """Print an error.

    :returns: the exit code
    """
    print(advice(error), file=sys.stderr)
    return EXIT_BAD_INPUT if isinstance(error, BadInput) else EXIT_FAILED


def advice(error: exception.NUMAHugepagesError) -> str:
    """Return the text of an error, with a remedy where it has none."""
    text = sentence(error)
    if isinstance(error, exception.PoolsReadOnly):
        return f'{text}. Run it as root, where {hostfs.SYS} can be written.'
    if isinstance(error.__cause__, PermissionError):
        return f'{text.rstrip(".")}. Run it as root.'
    return text


def sentence(error: exception.NUMAHugepagesError) -> str:
    """Return the text of an error with a capital at its beginning."""
    text = str(error)
    # A name, for example of a file, stays as it is.
    if not text.partition(' ')[0].isalpha():
        return text
    return text[:1].upper() + text[1:]
