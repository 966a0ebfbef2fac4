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
learned anew. Several schedulers of one machine share it; each has learned from
its part of the same requests, and the last one to write is as right as any.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import json
import math
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

# Seconds between two writes. What is learned in between is lost by a crash.
_INTERVAL_S = 60.0

_MOST_BYTES = 4 << 20
_MOST_COUNT = 1e12

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
    """Tell which file a configuration names.

    :param conf: with the options of this package, and Nova's of its paths
    :returns: None if nothing is to be kept
    """
    name = conf.numa_hugepages.demand_file
    return pathlib.Path(conf.state_path) / name if name else None


def check(path: pathlib.Path) -> str | None:
    """Tell why the demand can't be kept in a file.

    :returns: None if it can
    """
    advice = 'Name another file, or none to keep nothing over a restart'
    # These tell what can't be looked at from what isn't there, without an
    # exception.
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

    :param clock: tells the seconds between two writes
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
        self._usable = True

    def load(self, now: float) -> tuple[Counts, float]:
        """Read what was kept.

        A file that can't be read is put aside, never overwritten.

        :param now: the time in seconds
        :returns: the counts, and the time at which they were right
        """
        try:
            with self._path.open('rb') as file:
                text = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return {}, now
        except OSError as error:
            self._put_aside(error)
            return {}, now
        try:
            counts, at = _parse(text)
        except ValueError as error:
            self._put_aside(error)
            return {}, now
        # One written by a clock that is ahead of ours must not stay for ever.
        return counts, min(at, now)

    def _put_aside(self, reason: Exception) -> None:
        aside = self._path.with_name(f'{self._path.name}.broken')
        known = {'path': self._path, 'reason': reason, 'aside': aside}
        try:
            os.replace(self._path, aside)
        except OSError as error:
            self._usable = False
            LOG.error(
                'The learned demand in %(path)s cannot be read: %(reason)s. '
                'It is learned anew, but not kept over a restart, since the '
                'file cannot be renamed: %(error)s. Move it away, or set '
                '[numa_hugepages] demand_file, and restart the scheduler.',
                {**known, 'error': error},
            )
            return
        LOG.warning(
            'The learned demand in %(path)s cannot be read: %(reason)s. It is '
            'learned anew; the file is kept as %(aside)s.',
            known,
        )

    def save(
        self, counts: Mapping[guest_kinds.GuestKind, float], at: float
    ) -> None:
        """Write what was learned, unless that was done a moment ago.

        A failure is told once, as an error, and tried again later: guests
        must not fail to start because of it.
        """
        now = self._clock()
        if not self._usable or now < self._next:
            return
        self._next = now + _INTERVAL_S
        try:
            self._write(_dump(counts, at))
        except OSError as error:
            if not self._failed:
                LOG.error(
                    'The learned demand cannot be written to %(path)s: '
                    '%(error)s. After a restart it will be learned anew. Make '
                    'room there, or set [numa_hugepages] demand_file.',
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
    """Write the counts down, as many kinds as will be read again.

    Those that are asked for most come first.
    """
    room_left = _MOST_BYTES - 1024
    texts = []
    for kind in sorted(counts, key=counts.__getitem__, reverse=True):
        text = json.dumps(_entry(kind, counts[kind]))
        room_left -= len(text) + 2
        if room_left < 0:
            break
        texts.append(text)
    return '{{"version": {}, "at": {}, "kinds": [{}]}}'.format(
        VERSION, json.dumps(at), ', '.join(texts)
    )


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
                'cpu_policy': need.cpu_policy.value,
                'thread_policy': need.thread_policy.value,
            }
            for need, number in kind.needs
        ],
    }


def _parse(text: bytes) -> tuple[Counts, float]:
    """Read the counts and their time.

    :raises ValueError: if the text is not what `_dump` writes
    """
    if len(text) > _MOST_BYTES:
        raise ValueError(f'it has more than {_MOST_BYTES} bytes')
    try:
        document = json.loads(text)
        version = document['version']
        if version != VERSION:
            raise ValueError(
                f'it is of version {version!r:.80}, this service knows '
                f'{VERSION}'
            )
        at = _number(document['at'])
        counts = {
            _kind(entry): _number(entry['count'], most=_MOST_COUNT)
            for entry in document['kinds']
        }
    except KeyError as error:
        raise ValueError(f'{error} is missing') from error
    except (AttributeError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return counts, at


def _kind(entry: Mapping[str, Any]) -> guest_kinds.GuestKind:
    farthest = entry['farthest']
    needs = []
    for cell in entry['cells']:
        size = cell['page_size']
        guest = model.GuestCell(
            shared_vcpus=_vcpus(cell['shared']),
            dedicated_vcpus=_vcpus(cell['vcpus']),
            memory_mib=_integer(cell['memory_kib'], least=1024) // 1024,
            page_size=None if size is None else _integer(size, least=-3),
            cpu_policy=model.CPUPolicy(cell['cpu_policy']),
            thread_policy=model.ThreadPolicy(cell['thread_policy']),
        )
        emulator = _integer(cell['cpus']) - len(guest.dedicated_vcpus)
        if emulator not in (0, 1) or size == 0:
            raise ValueError(f'{cell!s:.80} is no guest cell')
        need = cell_room.need(guest, emulator)
        needs.append((need, _integer(cell['number'], least=1)))
    kind = guest_kinds.GuestKind(
        tuple(needs), None if farthest is None else _integer(farthest)
    )
    if not guest_kinds.plausible(kind):
        raise ValueError(f'a guest of {needs!s:.80} cells')
    return kind


def _vcpus(count: Any) -> frozenset[int]:
    return frozenset(range(_integer(count, most=guest_kinds.MOST_VCPUS)))


def _integer(value: Any, *, least: int = 0, most: int = 1 << 40) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f'{value!r:.80} where an integer was expected')
    if not least <= value <= most:
        raise ValueError(f'{value!s:.80} is not from {least} to {most}')
    return value


def _number(value: Any, *, most: float = 1e15) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f'{value!r:.80} where a number was expected')
    if not 0 <= value <= most:
        raise ValueError(f'{value!s:.80} is not from 0 to {most}')
    return float(value)
