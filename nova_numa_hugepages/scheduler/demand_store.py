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


"""The learned demand in a file, so that a restart doesn't forget it.

The file is small JSON and can be deleted at any time: the demand is then
learned from the start. Several schedulers of one machine share it; each has
learned from its part of the same requests, so it doesn't matter which one was
the last to write.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import json
import math
import operator
import os
import pathlib
import time
from typing import Any

from nova import conf as nova_conf
from oslo_config import cfg
from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.capacity import cell_room
from nova_numa_hugepages.core.capacity import guest_kinds

CONF = nova_conf.CONF
LOG = logging.getLogger(__name__)

VERSION = 1

# Seconds between two writes. A crash loses what was learned in between.
_INTERVAL_S = 60.0

# Some kinds of guests are a few hundred bytes each.
_MOST_BYTES = 4 << 20

# For counts, and for the seconds since 1970.
_TOO_MUCH = 1e15

# The errors of reading a file that was edited or damaged.
_MALFORMED = (
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)

Counts = dict[guest_kinds.GuestKind, float]


def open_configured() -> DemandFile | None:
    """Open the file that the configuration names.

    :returns: None if nothing is to be kept
    :raises exception.InvalidOption: if it can't be written there
    """
    path = path_in(CONF)
    if path is None:
        return None
    problem = check(path)
    if problem:
        raise exception.InvalidOption('numa_hugepages', 'demand_file', problem)
    return DemandFile(path)


def path_in(conf: cfg.ConfigOpts) -> pathlib.Path | None:
    """Get the file that a configuration names.

    :param conf: with the options of this package, and Nova's of its paths
    :returns: None if nothing is to be kept
    """
    name = conf.numa_hugepages.demand_file
    return pathlib.Path(conf.state_path) / name if name else None


def check(path: pathlib.Path) -> str | None:
    """Check whether the demand can be kept in a file.

    :returns: None if it can, else why not
    """
    advice = 'Name another file, or none to keep nothing over a restart'
    if os.path.isdir(path):
        return f'{path} is a folder. {advice}'
    folder = path.parent
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        return (
            f'{folder} is not a folder that this service can write to. '
            f'{advice}'
        )
    return None


class DemandFile:
    """The file. Not for several threads at a time.

    :param clock: returns the seconds between two writes
    """

    def __init__(
        self,
        path: pathlib.Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._clock = clock
        self._next = -math.inf
        self._failed = False

    def load(self, now: float) -> tuple[Counts, float]:
        """Read what was saved, nothing if that can't be read.

        :param now: the time in seconds
        :returns: the counts, and the time at which they were right
        """
        try:
            with self._path.open('rb') as file:
                text = file.read(_MOST_BYTES + 1)
            if len(text) > _MOST_BYTES:
                raise ValueError(f'it has more than {_MOST_BYTES} bytes')
            counts, at = _parse(json.loads(text))
        except FileNotFoundError:
            return {}, now
        except (OSError, *_MALFORMED) as error:
            self._put_aside(error)
            return {}, now
        # One written by a clock that is ahead of ours must not stay for ever.
        return counts, min(at, now)

    def _put_aside(self, reason: Exception) -> None:
        aside = self._path.with_name(f'{self._path.name}.broken')
        known = {'path': self._path, 'reason': reason, 'aside': aside}
        if isinstance(reason, KeyError):
            known['reason'] = f'{reason} is missing'
        try:
            os.replace(self._path, aside)
        except OSError as error:
            # It may be a file of another program: it is left as it is.
            self._next = math.inf
            LOG.error(
                'Could not read the learned demand from %(path)s: %(reason)s, '
                'nor rename that file: %(error)s. The demand is not kept over '
                'a restart. Move the file away, or set [numa_hugepages] '
                'demand_file, and restart the scheduler.',
                {**known, 'error': error},
            )
            return
        LOG.warning(
            'Could not read the learned demand from %(path)s: %(reason)s. '
            'Starting without it; the file is kept as %(aside)s.',
            known,
        )

    def save(
        self, counts: Mapping[guest_kinds.GuestKind, float], at: float
    ) -> None:
        """Write what was learned, unless that was done a moment ago.

        A failure is logged once, as an error, and tried again later:
        instances must not fail to start because of it.
        """
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _INTERVAL_S
        try:
            self._write(_dump(counts, at))
        except OSError as error:
            if not self._failed:
                LOG.error(
                    'Could not write the learned demand to %(path)s: '
                    '%(error)s. It will be lost in a restart. Make room '
                    'there, or set [numa_hugepages] demand_file.',
                    {'path': self._path, 'error': error},
                )
            self._failed = True
        else:
            self._failed = False

    def _write(self, text: str) -> None:
        # One name for each process, so that one that is killed here leaves at
        # most one file.
        temporary = self._path.with_name(f'.{self._path.name}.{os.getpid()}')
        try:
            with temporary.open('w', encoding='utf-8') as file:
                temporary.chmod(0o600)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _dump(counts: Mapping[guest_kinds.GuestKind, float], at: float) -> str:
    """Write the counts down, the kinds that are most asked for first.

    :returns: no more kinds than will be read again
    """
    kinds = []
    left = _MOST_BYTES - 1024
    for kind in sorted(counts, key=counts.__getitem__, reverse=True):
        entry = _entry(kind, counts[kind])
        left -= len(json.dumps(entry)) + 2
        if left < 0:
            break
        kinds.append(entry)
    return json.dumps({'version': VERSION, 'at': at, 'kinds': kinds})


def _entry(kind: guest_kinds.GuestKind, count: float) -> dict[str, Any]:
    return {
        'count': round(count, 6),
        'farthest': kind.farthest,
        'cells': [
            {
                'number': number,
                'vcpus': need.vcpus,
                'cpus': need.cpus,
                'shared': need.shared,
                'memory_kib': need.memory,
                'page_size': need.page_size,
                'cpu_policy': need.cpu_policy,
                'thread_policy': need.thread_policy,
            }
            for need, number in kind.needs
        ],
    }


def _parse(document: Any) -> tuple[Counts, float]:
    """Read the counts and their time.

    :raises: one of `_MALFORMED` if the document is not what `_dump` writes
    """
    if document['version'] != VERSION:
        raise ValueError(f'its version is not {VERSION}')
    counts = {
        _kind(entry): _number(entry['count']) for entry in document['kinds']
    }
    return counts, _number(document['at'])


def _kind(entry: Mapping[str, Any]) -> guest_kinds.GuestKind:
    needs = tuple(_need(cell) for cell in entry['cells'])
    farthest = entry['farthest']
    if farthest is not None:
        farthest = operator.index(farthest)
    kind = guest_kinds.GuestKind(needs, farthest)
    if not guest_kinds.plausible(kind):
        raise ValueError(f'not a plausible guest: {entry!s:.80}')
    return kind


def _need(cell: Mapping[str, Any]) -> tuple[cell_room.CellNeed, int]:
    # Numbers that only look like integers would fail later, in each request.
    number, vcpus, cpus, shared, memory_kib = (
        operator.index(cell[name])
        for name in ('number', 'vcpus', 'cpus', 'shared', 'memory_kib')
    )
    size = cell['page_size']
    if size is not None and operator.index(size) <= 0:
        size = model.PageRequest(size)
    if number < 1 or min(vcpus, shared) < 0 or cpus - vcpus not in (0, 1):
        raise ValueError(f'not a guest cell: {cell!s:.80}')
    need = cell_room.new_need(
        vcpus=vcpus,
        emulator=cpus - vcpus,
        shared=shared,
        memory_kib=memory_kib,
        page_size=size,
        cpu_policy=model.CPUPolicy(cell['cpu_policy']),
        thread_policy=model.ThreadPolicy(cell['thread_policy']),
    )
    return need, number


def _number(value: float) -> float:
    if not 0 <= value < _TOO_MUCH:
        raise ValueError(f'{value!s:.80} is not from 0 to {_TOO_MUCH}')
    return float(value)
