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

"""The workloads that come with this package."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
import pathlib
import random
import re
from typing import Any
from typing import ClassVar

from nova_numa_hugepages.experiment import workload
from nova_numa_hugepages.experiment.workload import Measure
from nova_numa_hugepages.yamlfile import validation

_SECONDS = {'type': 'number', 'minimum': 0.05, 'maximum': 600}
_ROUNDS = validation.integer(1, 1000)
_MIB = validation.integer(1, 1 << 20)
_COUNT = validation.integer(1000, 1_000_000_000)
_KEYS = re.compile(r'^(\d+) ([\d.]+)$', re.MULTILINE)
_NUMBERS = re.compile(r'^([\d.]+)$', re.MULTILINE)
_RUN_TIME = re.compile(r'^Run Time: real ([\d.]+)', re.MULTILINE)
_OPERATIONS = re.compile(r'Total operations: \d+ \( *([\d.]+) per second\)')


class Chase(workload.Workload):
    """Follows pointers through memory of growing sizes: latency."""

    name = 'chase'
    properties: ClassVar[Mapping[str, Any]] = {
        'mib': validation.one_or_list(_MIB, 16),
        'seconds': _SECONDS,
        'rounds': _ROUNDS,
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        'mib': [1, 16, 64, 256, 1024],
        'seconds': 0.3,
        'rounds': 10,
    }
    quick: ClassVar[Mapping[str, Any]] = {
        'mib': [1, 16, 128],
        'seconds': 0.1,
        'rounds': 5,
    }
    waits = True

    @property
    def _sizes(self) -> list[int]:
        found = self.settings['mib']
        return list(found) if isinstance(found, list) else [found]

    @property
    def measures(self) -> Sequence[Measure]:
        return [
            Measure(f'latency, {mib} MiB', 'ns', more_is_better=False)
            for mib in self._sizes
        ]

    @property
    def memory_mib(self) -> int:
        return sum(self._sizes)

    def command(
        self, probe: str, pages: str, folder: pathlib.Path
    ) -> Sequence[str]:
        return [
            *(probe, 'chase', pages, str(self.settings['seconds'])),
            *(str(self.settings['rounds']), *map(str, self._sizes)),
        ]

    def read(self, output: str) -> Mapping[str, Sequence[float]]:
        found: dict[str, list[float]] = {}
        for mib, value in _KEYS.findall(output):
            found.setdefault(f'latency, {mib} MiB', []).append(float(value))
        return self.checked(found, output)


class Stream(workload.Workload):
    """Reads two arrays and writes a third one: bandwidth."""

    name = 'stream'
    properties: ClassVar[Mapping[str, Any]] = {
        'mib': _MIB,
        'seconds': _SECONDS,
        'rounds': _ROUNDS,
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        'mib': 768,
        'seconds': 0.3,
        'rounds': 10,
    }
    quick: ClassVar[Mapping[str, Any]] = {
        'mib': 192,
        'seconds': 0.1,
        'rounds': 5,
    }
    waits = True

    @property
    def measures(self) -> Sequence[Measure]:
        return [Measure('bandwidth', 'GB/s', more_is_better=True)]

    @property
    def memory_mib(self) -> int:
        mib: int = self.settings['mib']
        return mib

    def command(
        self, probe: str, pages: str, folder: pathlib.Path
    ) -> Sequence[str]:
        settings = self.settings
        return [
            *(probe, 'stream', pages, str(settings['seconds'])),
            *(str(settings['rounds']), str(settings['mib'])),
        ]

    def read(self, output: str) -> Mapping[str, Sequence[float]]:
        values = [float(value) for value in _NUMBERS.findall(output)]
        return self.checked({'bandwidth': values}, output)


class Sort(workload.Workload):
    """Sorts lines of text in memory, with ``sort`` of GNU coreutils."""

    name = 'sort'
    programs: ClassVar[Mapping[str, str]] = {'sort': 'coreutils'}
    properties: ClassVar[Mapping[str, Any]] = {'lines': _COUNT}
    defaults: ClassVar[Mapping[str, Any]] = {'lines': 3_000_000}
    quick: ClassVar[Mapping[str, Any]] = {'lines': 500_000}
    fixed = True

    @property
    def measures(self) -> Sequence[Measure]:
        return [Measure('time', 's', more_is_better=False)]

    @property
    def memory_mib(self) -> int:
        # A line has 17 bytes, and takes 32 more while it is sorted.
        lines: int = self.settings['lines']
        return lines * 49 // (1 << 20) + 1

    def prepare(self, folder: pathlib.Path) -> None:
        drawn = random.Random(1)
        with (folder / 'lines').open('w') as file:
            for _ in range(self.settings['lines']):
                file.write(f'{drawn.getrandbits(64):016x}\n')

    def command(
        self, probe: str, pages: str, folder: pathlib.Path
    ) -> Sequence[str]:
        return [
            *('sort', '--parallel=1', f'--buffer-size={self.memory_mib * 2}M'),
            *('--output=/dev/null', str(folder / 'lines')),
        ]

    def read(self, output: str) -> Mapping[str, Sequence[float]]:
        # How long it ran is all.
        return {}


class Lookups(workload.Workload):
    """Looks up rows of a table in the memory of SQLite."""

    name = 'lookups'
    programs: ClassVar[Mapping[str, str]] = {'sqlite3': 'sqlite3'}
    properties: ClassVar[Mapping[str, Any]] = {
        'rows': _COUNT,
        'lookups': _COUNT,
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        'rows': 4_000_000,
        'lookups': 4_000_000,
    }
    quick: ClassVar[Mapping[str, Any]] = {
        'rows': 500_000,
        'lookups': 500_000,
    }
    fixed = True

    @property
    def measures(self) -> Sequence[Measure]:
        return [Measure('rows', '/s', more_is_better=True)]

    @property
    def memory_mib(self) -> int:
        rows: int = self.settings['rows']
        return rows * 115 // (1 << 20) + 1

    def prepare(self, folder: pathlib.Path) -> None:
        rows, lookups = self.settings['rows'], self.settings['lookups']
        # A large prime has each row come once before any comes again.
        (folder / 'lookups.sql').write_text(
            'CREATE TABLE t(k INTEGER PRIMARY KEY, v);\n'
            f'{_numbers(rows)} INSERT INTO t SELECT i, zeroblob(100) FROM n;\n'
            '.timer on\n'
            f'{_numbers(lookups)} SELECT sum(length(v)) FROM n JOIN t '
            f'ON k = i * 2147483647 % {rows};\n'
        )

    def command(
        self, probe: str, pages: str, folder: pathlib.Path
    ) -> Sequence[str]:
        # Only in a file that is read so is time taken.
        return ['sqlite3', ':memory:', f'.read "{folder / "lookups.sql"}"']

    def read(self, output: str) -> Mapping[str, Sequence[float]]:
        values = [
            self.settings['lookups'] / float(value)
            for value in _RUN_TIME.findall(output)
            if float(value)
        ]
        return self.checked({'rows': values}, output)


def _numbers(count: int) -> str:
    """Return the numbers from 0, below a count, as a part of SQL."""
    return (
        'WITH RECURSIVE n(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM n '
        f'WHERE i < {count - 1})'
    )


class Sysbench(workload.Workload):
    """Writes to memory at random, with ``sysbench memory``."""

    name = 'sysbench'
    programs: ClassVar[Mapping[str, str]] = {'sysbench': 'sysbench'}
    properties: ClassVar[Mapping[str, Any]] = {
        'mib': _MIB,
        'seconds': validation.integer(1, 600),
    }
    defaults: ClassVar[Mapping[str, Any]] = {'mib': 256, 'seconds': 5}
    quick: ClassVar[Mapping[str, Any]] = {'mib': 64, 'seconds': 1}

    @property
    def measures(self) -> Sequence[Measure]:
        return [Measure('passes', '/s', more_is_better=True)]

    @property
    def memory_mib(self) -> int:
        mib: int = self.settings['mib']
        return mib

    def command(
        self, probe: str, pages: str, folder: pathlib.Path
    ) -> Sequence[str]:
        return [
            *('sysbench', 'memory', '--memory-access-mode=rnd'),
            f'--memory-block-size={self.memory_mib}M',
            *('--memory-total-size=1048576G', '--threads=1'),
            *(f'--time={self.settings["seconds"]}', 'run'),
        ]

    def read(self, output: str) -> Mapping[str, Sequence[float]]:
        values = [float(value) for value in _OPERATIONS.findall(output)]
        return self.checked({'passes': values}, output)


class Fio(workload.Workload):
    """Reads blocks of a file at random, with ``fio``."""

    name = 'fio'
    programs: ClassVar[Mapping[str, str]] = {'fio': 'fio'}
    properties: ClassVar[Mapping[str, Any]] = {
        'mib': _MIB,
        'seconds': validation.integer(1, 600),
    }
    defaults: ClassVar[Mapping[str, Any]] = {'mib': 1024, 'seconds': 5}
    quick: ClassVar[Mapping[str, Any]] = {'mib': 128, 'seconds': 1}

    @property
    def measures(self) -> Sequence[Measure]:
        return [Measure('reads', '/s', more_is_better=True)]

    @property
    def memory_mib(self) -> int:
        return 0

    def command(
        self, probe: str, pages: str, folder: pathlib.Path
    ) -> Sequence[str]:
        return [
            *('fio', '--name=reads', '--rw=randread', '--bs=4k'),
            *('--ioengine=psync', '--invalidate=1', '--time_based'),
            f'--runtime={self.settings["seconds"]}',
            *('--size', f'{self.settings["mib"]}m'),
            '--output-format=json',
        ]

    def read(self, output: str) -> Mapping[str, Sequence[float]]:
        try:
            found = json.loads(output[output.index('{') :])
            values = [float(job['read']['iops']) for job in found['jobs']]
        except (LookupError, TypeError, ValueError) as error:
            raise workload.OutputError(self.name, output) from error
        return self.checked({'reads': values}, output)
