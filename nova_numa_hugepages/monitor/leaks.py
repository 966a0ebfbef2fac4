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

"""Memory that is lost: what, since when, how much, how sure, what to do.

A verdict needs that it was so all the time of a window, or went one way all
the time; what comes and goes is no leak.
"""

from __future__ import annotations

import collections
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import enum
import statistics
from typing import NamedTuple

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.monitor import rising
from nova_numa_hugepages.monitor import room
from nova_numa_hugepages.monitor.history import History
from nova_numa_hugepages.monitor.history import HOUR_S
from nova_numa_hugepages.monitor.history import MINUTE_S
from nova_numa_hugepages.monitor.history import Point
from nova_numa_hugepages.monitor.history import Series
from nova_numa_hugepages.monitor.labels import of_pool
from nova_numa_hugepages.monitor.labels import page_size
from nova_numa_hugepages.monitor.labels import Subject

UNOWNED = 'leak_unowned_kib'
FILE = 'leak_file_kib'
AWAITED = 'leak_awaited_kib'
SURPLUS = 'leak_surplus_kib'
NO_DOMAIN = 'leak_no_domain_kib'
IDLE = 'leak_idle_kib'
SMALL = 'instance_small_kib'
USED = 'instance_used_kib'

# How long back it is looked.
_MINUTES_S = 3 * HOUR_S
_HOURS_S = 72 * HOUR_S

_LEAST_SMALL_KIB = 256 * 1024
_LEAST_SMALL_SHARE = 0.25
_LEAST_USED_SHARE = 0.1
# The peers of an instance have to gain less than this share of its gain.
_PEERS = 2
_PEER_SHARE = 0.25

# How many files are named.
_NAMES = 3


class Sure(enum.StrEnum):
    """How sure a verdict is."""

    CERTAIN = 'certain'
    LIKELY = 'likely'
    POSSIBLE = 'possible'


class Leak(NamedTuple):
    """A verdict: memory that is lost.

    :ivar kind: of which kind it is, for example ``file``
    :ivar since: since when, in seconds since the epoch, as far as is known
    :ivar kib: how much
    :ivar slots: by the name of a kind of instance: how many of them could have
        had it
    :ivar text: what it is, with numbers
    :ivar remedy: what to do
    """

    kind: str
    subject: Subject
    since: float
    kib: int
    slots: Mapping[str, float]
    sure: Sure
    text: str
    remedy: str


class _Rule(NamedTuple):
    """A rule for what stays.

    :ivar kind: of the leak
    :ivar after_s: for how long it has to be there
    :ivar what: what it is; takes the amount, and the subject in words
    """

    kind: str
    after_s: float
    sure: Sure
    what: str
    remedy: str


_STAYS = {
    UNOWNED: _Rule(
        'unowned',
        HOUR_S,
        Sure.LIKELY,
        '{amount} of huge pages are in use, and no process or file has them',
        'A System V segment (ipcs -m, ipcrm) may have them, or a process that '
        'keeps them without mapping them. What the kernel has lost only a '
        'reboot brings back.',
    ),
    FILE: _Rule(
        'file',
        10 * MINUTE_S,
        Sure.CERTAIN,
        'files that no process has hold {amount} of huge pages: {files}',
        'Remove those that their programs do not need any more.',
    ),
    AWAITED: _Rule(
        'reserved',
        24 * HOUR_S,
        Sure.POSSIBLE,
        '{amount} of {page_size} pages have been reserved by programs for a '
        'day without being touched',
        'Instances cannot have them. See which program maps huge pages and '
        'does not use them.',
    ),
    SURPLUS: _Rule(
        'surplus',
        24 * HOUR_S,
        Sure.POSSIBLE,
        '{amount} of {pool} have been surplus pages for a day',
        'A program needs more than its pool has. Enlarge the pool, and set '
        'nr_overcommit_hugepages to 0.',
    ),
    NO_DOMAIN: _Rule(
        'no_domain',
        HOUR_S,
        Sure.LIKELY,
        '{amount} of {pool} are held for an instance that libvirt does not '
        'know',
        'Run nova-numa-hugepages host reconcile --dry-run; if Nova does not '
        'know it here either, nova-numa-hugepages host release frees them.',
    ),
    IDLE: _Rule(
        'idle',
        24 * HOUR_S,
        Sure.LIKELY,
        '{amount} of {pool} were allocated for instances, and have been idle '
        'for a day',
        'nova-compute should have freed them: see its log, and whether it may '
        'write to the pool.',
    ),
}


def values(sample: HostSample) -> dict[Series, float]:
    """Return what of a sample leaks are found by.

    Each series has the name of a rule. That without a subject is there when
    it was looked for; what is missing then is 0.
    """
    found = {
        **_of_pools(sample),
        **_of_holds(sample),
        **_of_files(sample),
        **_of_nobody(sample),
    }
    for uuid, instance in sample.instances.items():
        if instance.small is not None and instance.in_place:
            found[Series(SMALL, uuid)] = sum(instance.small.kib.values())
        inside = instance.inside
        if inside is not None and inside.used_kib is not None:
            found[Series(USED, uuid)] = inside.used_kib
    return found


def _of_pools(sample: HostSample) -> dict[Series, float]:
    found: dict[Series, float] = dict.fromkeys(
        map(Series, (AWAITED, SURPLUS, IDLE)), 0
    )
    for key, pool in sample.snapshot.pools.items():
        usage = pool.usage
        idle = min(usage.account.grown, max(0, usage.unclaimed)) - pool.ready
        subject = of_pool(key)
        found[Series(SURPLUS, *subject)] = usage.pool.surplus * key.size_kib
        found[Series(IDLE, *subject)] = max(0, idle) * key.size_kib
        # They are kept on each node, as they may be touched on any.
        series = Series(AWAITED, page_size=page_size(key.size_kib))
        found[series] = max(found.get(series, 0), usage.awaited * key.size_kib)
    return found


def _of_holds(sample: HostSample) -> dict[Series, float]:
    holds = [
        hold
        for pool in sample.snapshot.pools.values()
        for hold in pool.holds
        if hold.purpose is not model.Purpose.RESIZE
    ]
    defined = sample.defined
    if defined is None:
        # libvirt wasn't asked if all of them run.
        defined = frozenset(sample.snapshot.guests)
        if not all(hold.holder in defined for hold in holds):
            return {}
    found: dict[Series, float] = {Series(NO_DOMAIN): 0}
    for hold in holds:
        if hold.holder not in defined:
            series = Series(NO_DOMAIN, *of_pool(hold.key, hold.holder))
            kib = hold.pages * hold.size_kib
            found[series] = found.get(series, 0) + kib
    return found


def _of_files(sample: HostSample) -> dict[Series, float]:
    if sample.files is None:
        return {}
    found: dict[Series, float] = {Series(FILE): 0}
    for key in sample.snapshot.pools:
        found[Series(FILE, page_size=page_size(key.size_kib))] = 0
    for file in sample.files:
        series = Series(FILE, page_size=page_size(file.size_kib))
        found[series] = found.get(series, 0) + file.pages * file.size_kib
    return found


def _of_nobody(sample: HostSample) -> dict[Series, float]:
    if (
        sample.mapped_kib is None
        or sample.files is None
        # A guest whose pages can't be read has them all the same.
        or any(one.in_place is None for one in sample.instances.values())
    ):
        return {}
    others_kib = model.total_kib(
        (key, sample.of_others(key)) for key in sample.others
    )
    file_kib = sum(file.pages * file.size_kib for file in sample.files)
    return {Series(UNOWNED): max(0, others_kib - sample.mapped_kib - file_kib)}


def left(sample: HostSample, kinds: Collection[room.Kind] = ()) -> list[Leak]:
    """Find pages that instances have left which have ended, by the ledger.

    :param kinds: the kinds of instances that slots are counted of
    """
    return _with_slots(_left(sample), kinds)


def find(
    sample: HostSample, history: History, kinds: Collection[room.Kind] = ()
) -> list[Leak]:
    """Find what else is lost.

    :param history: has `values`
    :param kinds: as for `left`
    """
    past = _Past(history, sample.time)
    found = [
        *_stays(sample, past),
        *_own_memory(sample, past),
        *_guest_use(sample, past),
    ]
    found.sort(key=lambda leak: -leak.kib)
    return _with_slots(found, kinds)


def _with_slots(
    found: Iterable[Leak], kinds: Collection[room.Kind]
) -> list[Leak]:
    return [leak._replace(slots=_slots(leak, kinds)) for leak in found]


class _Past:
    """What was seen."""

    def __init__(self, history: History, now: float) -> None:
        self.now = now
        self._spans = {
            MINUTE_S: history.minutes(
                lambda series: series.name in _STAYS, now - _MINUTES_S
            ),
            HOUR_S: history.hours(
                lambda series: series.name in (SMALL, USED, *_STAYS),
                now - _HOURS_S,
            ),
        }

    def series(self, name: str) -> set[Series]:
        """List the series of a name."""
        return {
            series
            for span in self._spans.values()
            for series in span
            if series.name == name
        }

    def hours(self, series: Series) -> list[Point]:
        """Get the hours of a series."""
        return self._spans[HOUR_S].get(series, [])

    def stays(self, series: Series, after_s: float) -> tuple[float, float]:
        """Get the least that was there all the time, and since when.

        :returns: 0 and now if it was not there all the time, or that isn't
            known
        """
        length_s = MINUTE_S if after_s <= HOUR_S else HOUR_S
        span = self._spans[length_s]
        begin = self.now - after_s - length_s
        times = [
            point.time
            for point in span.get(Series(series.name), [])
            if point.time >= begin
        ]
        lows = {point.time: point.low for point in span.get(series, [])}
        least = min((lows.get(when, 0.0) for when in times), default=0.0)
        if not times or (len(times) * length_s < after_s * rising.LEAST_KNOWN):
            least = 0.0
        if least <= 0:
            return 0.0, self.now
        since = times[0]
        for point in reversed(self._spans[HOUR_S].get(series, [])):
            if point.low <= 0 or point.time < since - 2 * HOUR_S:
                break
            since = min(since, point.time)
        return least, since


def _left(sample: HostSample) -> Iterator[Leak]:
    for key, pool in sample.snapshot.pools.items():
        count = pool.usage.leaked
        if count:
            yield Leak(
                'left',
                of_pool(key),
                sample.time,
                count * key.size_kib,
                {},
                Sure.CERTAIN,
                f'{count} pages of {key} were left in use by instances that '
                'have ended.',
                'Look for files in mounts of hugetlbfs, and for processes '
                'that hold them: nova-numa-hugepages host show names control '
                'groups.',
            )


def _stays(sample: HostSample, past: _Past) -> Iterator[Leak]:
    """Find what does not go away."""
    now = values(sample)
    for name, rule in _STAYS.items():
        for series in sorted(past.series(name)):
            kib, since = past.stays(series, rule.after_s)
            kib = min(kib, now.get(series, 0.0))
            if kib > 0:
                text = rule.what.format(
                    amount=_mib(kib),
                    files=_names(sample, series.page_size),
                    page_size=series.page_size,
                    pool=f'{series.page_size} pages on NUMA node '
                    f'{series.node}',
                )
                yield Leak(
                    rule.kind,
                    series.subject,
                    since,
                    int(kib),
                    {},
                    rule.sure,
                    f'{text}.',
                    rule.remedy,
                )


def _own_memory(sample: HostSample, past: _Past) -> Iterator[Leak]:
    """Find a QEMU whose own memory only grows."""
    for uuid in sample.instances:
        rise = rising.rise(past.hours(Series(SMALL, uuid)), sample.time)
        if (
            rise is not None
            and rise.gain >= _LEAST_SMALL_KIB
            and rise.gain >= rise.first * _LEAST_SMALL_SHARE
        ):
            yield Leak(
                'own_memory',
                Subject(uuid),
                rise.since,
                int(rise.gain),
                {},
                Sure.LIKELY,
                f'the memory of its QEMU beside that of the guest has grown '
                f'by {_mib(rise.gain)} in '
                f'{rising.HOURS} hours, and has not fallen.',
                'Restart it (hard reboot) or migrate it, which begins with a '
                'new QEMU; look for a newer version of QEMU.',
            )


def _guest_use(sample: HostSample, past: _Past) -> Iterator[Leak]:
    """Find an instance whose use only rises, unlike that of its peers."""
    by_flavor: dict[str, list[str]] = collections.defaultdict(list)
    for uuid, instance in sample.instances.items():
        if instance.domain is not None and instance.domain.plan.flavor:
            by_flavor[instance.domain.plan.flavor].append(uuid)
    for uuids in by_flavor.values():
        if len(uuids) <= _PEERS:
            continue
        points = {uuid: past.hours(Series(USED, uuid)) for uuid in uuids}
        for uuid in uuids:
            inside = sample.instances[uuid].inside
            rise = rising.rise(points[uuid], sample.time)
            if rise is None or inside is None or not inside.available_kib:
                continue
            peers = [
                change
                for other in uuids
                if other != uuid
                for change in rising.change(points[other], sample.time)
            ]
            if (
                rise.gain >= inside.available_kib * _LEAST_USED_SHARE
                and len(peers) >= _PEERS
                and statistics.median(peers) < rise.gain * _PEER_SHARE
            ):
                yield Leak(
                    'guest_use',
                    Subject(uuid),
                    rise.since,
                    int(rise.gain),
                    {},
                    Sure.POSSIBLE,
                    f'what it uses has only risen for {rising.HOURS} hours, '
                    f'by {_mib(rise.gain)}, and that of '
                    f'{len(peers)} other instances of its flavor has not.',
                    'A program in it may leak memory; tell its user.',
                )


def _slots(leak: Leak, kinds: Iterable[room.Kind]) -> dict[str, float]:
    """Return how many instances could have had what is lost.

    :returns: empty if it is no huge pages, or of which size they are is not
        known
    """
    found = {
        kind.name: round(leak.kib / sum(c.memory_kib for c in kind.cells), 2)
        for kind in kinds
        if {page_size(cell.size_kib) for cell in kind.cells}
        == {leak.subject.page_size}
    }
    return {name: count for name, count in found.items() if count}


def _mib(kib: float) -> str:
    return f'{kib / 1024:.0f} MiB'


def _names(sample: HostSample, size: str) -> str:
    paths = [
        file.path
        for file in sample.files or ()
        if page_size(file.size_kib) == size
    ]
    more = f' and {len(paths) - _NAMES} more' if len(paths) > _NAMES else ''
    return ', '.join(paths[:_NAMES]) + more
