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

"""Programs whose speed is measured.

Each is a class behind an entry point of `NAMESPACE`, so that operators can add
their own.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from collections.abc import Sequence
from importlib import metadata
import pathlib
from typing import Any
from typing import ClassVar
from typing import NamedTuple

from nova_numa_hugepages import exception

NAMESPACE = 'nova_numa_hugepages.workloads'


class Measure(NamedTuple):
    """A number that a workload gives.

    :ivar name: in the report, for example ``latency, 64 MiB``
    :ivar unit: for example ``ns``
    :ivar more_is_better: whether a higher number is better
    """

    name: str
    unit: str
    more_is_better: bool = False


class OutputError(exception.NUMAHugepagesError):
    """A program did not write what it should."""

    def __init__(self, name: str, output: str) -> None:
        end = output.strip()[-200:] or 'nothing'
        super().__init__(
            f'The workload {name} wrote something else than was expected: '
            f'{end!r}'
        )


class Workload(abc.ABC):
    """A program.

    :cvar name: in plans
    :cvar programs: what it runs, and the Debian package that has each
    :cvar properties: the JSON schema of each of its settings
    :cvar defaults: the value of each
    :cvar quick: those that differ where time is short
    :cvar waits: whether it writes ``ready`` once it has its memory, and goes
        on after a line on its standard input
    :cvar fixed: whether it always does the same work, so that the time of CPUs
        can be compared as well
    :ivar settings: the value of each setting
    """

    name: ClassVar[str]
    programs: ClassVar[Mapping[str, str]] = {}
    properties: ClassVar[Mapping[str, Any]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {}
    quick: ClassVar[Mapping[str, Any]] = {}
    waits: ClassVar[bool] = False
    fixed: ClassVar[bool] = False

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.settings = {**self.defaults, **(settings or {})}

    @property
    @abc.abstractmethod
    def measures(self) -> Sequence[Measure]:
        """What it measures."""

    @property
    @abc.abstractmethod
    def memory_mib(self) -> int:
        """How much memory it has at most, about.

        0 if its memory is not what it is about: where that is isn't checked.
        """

    def prepare(self, folder: pathlib.Path) -> None:  # noqa: B027
        """Write the files that it reads, once for all trials."""

    @abc.abstractmethod
    def command(
        self, probe: str, pages: str, folder: pathlib.Path
    ) -> Sequence[str]:
        """Return the program and its arguments.

        :param probe: the compiled ``probe.c``
        :param pages: as `nova_numa_hugepages.experiment.plan.Arm.pages`; what
            allocates by malloc needs not heed it
        :param folder: where `prepare` wrote
        """

    @abc.abstractmethod
    def read(self, output: str) -> Mapping[str, Sequence[float]]:
        """Read what it measured.

        :returns: for each measure a value a round, in order
        :raises OutputError: if there is no number
        """

    def values(
        self, output: str, took_s: float
    ) -> Mapping[str, Sequence[float]]:
        """Return what it measured; how long it took if it writes nothing.

        :raises OutputError: if there is no number
        """
        found = self.read(output)
        if found:
            return found
        (measure,) = self.measures
        return {measure.name: [took_s]}

    def checked(
        self, found: Mapping[str, Sequence[float]], output: str
    ) -> Mapping[str, Sequence[float]]:
        """Return values, if there are some for each measure.

        :raises OutputError: if there are none, or some that can't be
        """
        for measure in self.measures:
            values = found.get(measure.name, ())
            if not values or min(values) <= 0:
                raise OutputError(self.name, output)
        return found


class UnknownWorkload(exception.NUMAHugepagesError):
    """There is no such workload, or it can't be loaded."""


def classes() -> dict[str, type[Workload]]:
    """Load all workloads that are installed.

    :returns: by name, in alphabetical order
    :raises UnknownWorkload: if one of them can't be loaded
    """
    found: dict[str, type[Workload]] = {}
    entries = metadata.entry_points(group=NAMESPACE)
    for entry in sorted(entries, key=lambda entry: entry.name):
        try:
            found[entry.name] = entry.load()
        except Exception as error:
            raise UnknownWorkload(
                f'The workload {entry.name} ({entry.value}) cannot be loaded: '
                f'{error}. Mend or uninstall what brings it.'
            ) from error
    return found
