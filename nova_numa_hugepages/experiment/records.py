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

"""The raw data of an experiment: a folder from which each figure can be made.

``plan.json`` is written before the trials that count, ``pairs.jsonl`` has a
line for each pair, in the order in which they were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Any

from nova_numa_hugepages import exception
from nova_numa_hugepages.experiment import plan
from nova_numa_hugepages.experiment import trial
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.procedure import Decision
from nova_numa_hugepages.experiment.trial import Pair

# Raised when a key changes its meaning or goes away.
VERSION = 1

_PLAN = 'plan.json'
_PAIRS = 'pairs.jsonl'


class RecordsError(exception.NUMAHugepagesError):
    """The folder can't be used."""


@dataclasses.dataclass(frozen=True)
class Records:
    """An experiment.

    :ivar surroundings: as `nova_numa_hugepages.experiment.surroundings.read`
        returns them
    :ivar decision: None if the first pairs were not all made
    :ivar pairs: those that were made
    """

    plan: Plan
    surroundings: Mapping[str, Any]
    decision: Decision | None
    pairs: Sequence[Pair]

    @property
    def is_complete(self) -> bool:
        """Whether all pairs were made."""
        if self.decision is None:
            return False
        each = len(self.plan.treatments) * len(self.plan.loads)
        made = sum(not pair.first for pair in self.pairs)
        return made == (self.decision.pairs * each * len(self.plan.workloads))


class Folder:
    """Where the raw data of an experiment are.

    :param path: a new folder, or an empty one
    :raises RecordsError: if it is none
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RecordsError(
                    f'{path} is not empty. Name a new folder for the results, '
                    'so that those that are there stay.'
                )
        except OSError as error:
            raise RecordsError(
                f'{path} cannot be used for the results: {error.strerror}. '
                'Name another folder.'
            ) from error

    def begin(
        self,
        planned: Plan,
        surroundings: Mapping[str, Any],
        decision: Decision | None = None,
    ) -> None:
        """Write what is planned.

        :raises RecordsError: if it can't be written
        """
        write(
            self.path / _PLAN,
            json.dumps(
                {
                    'version': VERSION,
                    'plan': planned.as_json(),
                    'surroundings': dict(surroundings),
                    'decision': decision and decision._asdict(),
                },
                indent=1,
            )
            + '\n',
        )

    def add(self, pair: Pair) -> None:
        """Write a pair.

        :raises RecordsError: if it can't be written
        """
        path = self.path / _PAIRS
        try:
            with path.open('a') as file:
                file.write(json.dumps(pair.as_json()) + '\n')
        except OSError as error:
            raise _failed(path, error) from error


def write(path: pathlib.Path, content: str) -> None:
    """Write a file of an experiment.

    :raises RecordsError: if it can't be written
    """
    try:
        path.write_text(content, encoding='utf-8')
    except OSError as error:
        raise _failed(path, error) from error


def _failed(path: pathlib.Path, error: OSError) -> RecordsError:
    return RecordsError(
        f'{path} cannot be written: {error.strerror}. What was measured '
        'before is kept.'
    )


def read(path: pathlib.Path) -> Records:
    """Read the raw data of an experiment.

    :raises RecordsError: if there are none, or they are damaged, or written by
        a later version
    """
    try:
        found = json.loads((path / _PLAN).read_text(encoding='utf-8'))
        if found['version'] != VERSION:
            raise RecordsError(
                f'{path / _PLAN} has version {found["version"]}, and this '
                f'program reads {VERSION}. Use the version that wrote it.'
            )
        lines: list[str] = []
        if (path / _PAIRS).exists():
            text = (path / _PAIRS).read_text(encoding='utf-8')
            # What was being written when the machine went down is left out.
            lines = (
                text.splitlines()
                if text.endswith('\n')
                else (text.splitlines()[:-1])
            )
        decision = found['decision']
        return Records(
            plan.from_json(found['plan']),
            found['surroundings'],
            decision and Decision(**decision),
            [trial.from_json(json.loads(line)) for line in lines],
        )
    except OSError as error:
        raise RecordsError(
            f'{error.filename}: {error.strerror}. Name a folder that '
            '"experiment run" wrote.'
        ) from error
    except (LookupError, TypeError, ValueError) as error:
        raise RecordsError(
            f'{path} has no raw data of an experiment, or they are damaged: '
            f'{error!r}'
        ) from error
