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

"""The alarms that come with this package."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import datetime
import math

from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.hugepages.sample import InstanceSample
from nova_numa_hugepages.hugepages.sample import MemoryInside
from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import leaks
from nova_numa_hugepages.monitor.alarms import Finding
from nova_numa_hugepages.monitor.insight import Insight
from nova_numa_hugepages.monitor.labels import of_pool
from nova_numa_hugepages.monitor.labels import Subject
from nova_numa_hugepages.monitor.thresholds import Thresholds

_DAY_S = 86400.0
# A node that has less time left until it is exhausted, in seconds.
_SOON_LEFT_S = 3600.0
# A second look, so that what changes while it is looked at is not raised.
_SOON_S = 30.0
# What a guest said longer ago may not be so any more. Seconds.
_OLD_S = 300.0
# In this time, in seconds, a guest that lacks memory reads back that much.
_SWAP_S = 120
_SWAP_KIB = 16384
# How many others are named.
_USERS = 5


def _of_instance(uuid: str) -> Subject:
    return Subject(resource=uuid)


class MemoryMisplaced(alarms.Alarm):
    """An instance has its memory on another node than was promised."""

    name = 'memory_misplaced'
    severity = alarms.CRITICAL
    after_s = _SOON_S

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        for uuid, instance in sample.instances.items():
            if not instance.is_known:
                yield Finding(_of_instance(uuid), None)
            elif instance.astray and instance.absent:
                yield Finding(
                    _of_instance(uuid),
                    1,
                    f'it has {model.in_words(instance.astray)}, and is '
                    f'missing {model.in_words(instance.absent)}.',
                    'Its CPUs reach that memory slowly. Restart it (hard '
                    'reboot), or migrate it.',
                )


class MemoryBeyond(alarms.Alarm):
    """An instance has more huge pages than are held for it."""

    name = 'memory_beyond'
    after_s = _SOON_S

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        for uuid, instance in sample.instances.items():
            if not instance.is_known:
                yield Finding(_of_instance(uuid), None)
            elif instance.astray and not instance.absent:
                yield Finding(
                    _of_instance(uuid),
                    1,
                    f'it has {model.in_words(instance.astray)} beyond what is '
                    'held for it.',
                    'If it is an instance of Nova, run nova-numa-hugepages '
                    'host reconcile --dry-run.',
                )


class MemoryAbsent(alarms.Alarm):
    """An instance has fewer huge pages than were promised to it."""

    name = 'memory_absent'
    severity = alarms.INFO
    # Longer than it takes to start one.
    after_s = 900.0

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        for uuid, instance in sample.instances.items():
            if not instance.is_known:
                yield Finding(_of_instance(uuid), None)
            elif (
                instance.absent
                and not instance.astray
                and not instance.starting
            ):
                yield Finding(
                    _of_instance(uuid),
                    1,
                    f'{model.in_words(instance.absent)} of what was promised '
                    'to it are not in place.',
                    'It has returned them through its balloon; they are kept '
                    'for it.',
                )


class MemoryUsed(alarms.Alarm):
    """An instance uses nearly all of its memory, or swaps."""

    name = 'memory_used'
    ends_below = 0.95

    def __init__(self, thresholds: Thresholds) -> None:
        super().__init__(thresholds)
        # What it had read back from its swap, by when it said so.
        self._swapped: dict[str, dict[int, int]] = {}

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        self._swapped = {
            uuid: self._swapped.get(uuid, {}) for uuid in sample.instances
        }
        for uuid, instance in sample.instances.items():
            subject = _of_instance(uuid)
            percent = _used_percent(instance)
            if percent is None or instance.inside is None:
                yield Finding(subject, None)
                continue
            swapped_kib = _swapped_kib(instance.inside, self._swapped[uuid])
            most = self._most(instance)
            text = f'it uses {percent:.0f} % of its memory'
            if swapped_kib:
                text += (
                    f' and has read {swapped_kib // 1024} MiB back from its '
                    f'swap in {_SWAP_S} s'
                )
            yield Finding(
                subject,
                max(percent / most, swapped_kib / _SWAP_KIB),
                f'{text} (the threshold is {most} %).',
                'Resize it to a flavor with more memory, or find out which '
                'program takes it.',
            )

    def _most(self, instance: InstanceSample) -> int:
        """Return the threshold of an instance; its flavor may have one."""
        specs = instance.domain.plan.extra_specs if instance.domain else {}
        # The API refuses what is none, from microversion 2.86 on.
        with contextlib.suppress(exception.InvalidExtraSpec):
            percent = extra_specs.alarm_used_percent(specs)
            if percent is not None:
                return percent
        return self.thresholds.used_percent


class MemoryUnused(alarms.Alarm):
    """An instance leaves most of its memory unused for a day."""

    name = 'memory_unused'
    severity = alarms.INFO
    ends_below = 0.9
    after_s = _DAY_S

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        for uuid, instance in sample.instances.items():
            percent = _used_percent(instance)
            if percent is None:
                yield Finding(_of_instance(uuid), None)
                continue
            least = self.thresholds.unused_percent
            yield Finding(
                _of_instance(uuid),
                (100 - percent) / least if least < 100 else 0.0,
                f'it has left {100 - percent:.0f} % of its memory unused for '
                'a day.',
                'A smaller flavor would do.',
            )


class NodeExhausted(alarms.Alarm):
    """Instances can have hardly any more memory of a NUMA node, or of a pool.

    Of a node as huge pages of the size of which they can have most.
    """

    name = 'node_exhausted'
    # It is over when there is half as much again.
    ends_below = 1 / 1.5

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        least = self.thresholds.free_percent
        if not least:
            return
        for node, memory in sample.snapshot.memory.items():
            free_kib = sample.available_kib(node)
            if free_kib is None or not memory.total_kib:
                continue
            percent = 100 * free_kib / memory.total_kib
            left_s = insight.time_left_s.get(node, math.inf)
            soon = (
                f'; at this rate it is exhausted in {left_s / 3600:.1f} hours'
                if left_s < _DAY_S
                else ''
            )
            yield Finding(
                Subject(node=str(node)),
                max(
                    least / percent if percent else math.inf,
                    _SOON_LEFT_S / max(1.0, left_s),
                ),
                f'instances can have {free_kib // 1024} MiB more of NUMA '
                f'node {node}, {percent:.1f} % of its memory (the threshold '
                f'is {least} %){soon}.',
                'New instances go elsewhere. Migrate some away, or add hosts.',
            )
        for key, pool in sample.snapshot.pools.items():
            total = pool.usage.pool.total
            free = max(0, pool.usage.available) + pool.allocatable
            of_node_kib = sample.available_kib(key.node)
            # Where no other size has more, it is the node that is exhausted.
            if not total or free * key.size_kib == of_node_kib:
                continue
            percent = 100 * free / total
            yield Finding(
                of_pool(key),
                least / percent if percent else math.inf,
                f'instances can have {free} more pages of {key}, '
                f'{percent:.1f} % of its pool (the threshold is {least} %).',
                'New instances with this page size go elsewhere. Migrate some '
                'away, or give the pool more pages.',
            )


class _LedgerAlarm(alarms.Alarm):
    """A kind of alarm on what only the ledger tells."""

    def can_tell(self, sample: HostSample) -> bool:
        """Check whether a sample has what it looks for."""
        return not sample.ledger_problem


class MemoryWanted(_LedgerAlarm):
    """An elastic instance needs more memory, and there is none for it."""

    name = 'memory_wanted'

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        waits: dict[str, list[model.Wait]] = {}
        for wait in sample.snapshot.waits:
            waits.setdefault(wait.holder, []).append(wait)
        for uuid, instance in sample.instances.items():
            cells = {wait.cell for wait in waits.get(uuid, ())}
            nodes = sorted(
                {
                    str(hold.node)
                    for hold in instance.elastic
                    if hold.cell in cells
                }
            )
            kib = sum(wait.kib for wait in waits.get(uuid, ()))
            yield Finding(
                _of_instance(uuid),
                1 if nodes else 0,
                f'it needs {kib // 1024} MiB more, and there are no pages for '
                f'it on NUMA node {", ".join(nodes)}.',
                'Migrate one of the instances of that node away. The log of '
                'nova-compute says what the pages are in use for.',
            )


class PagesTaken(_LedgerAlarm):
    """Others have pages that were promised to instances."""

    name = 'pages_taken'
    severity = alarms.CRITICAL
    after_s = _SOON_S

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        for key, pool in sample.snapshot.pools.items():
            if pool.usage.overdue:
                users = _largest(sample.others.get(key, {}))
                yield Finding(
                    of_pool(key),
                    1,
                    f'{pool.usage.overdue} pages of {key} that are promised '
                    f'to instances are missing; others have pages: {users}.',
                    'Instances that are off may not start. Make room, or set '
                    'reserved_huge_pages for those programs.',
                )


class MemoryLeaked(alarms.Alarm):
    """Memory is lost: see `nova_numa_hugepages.monitor.leaks`."""

    name = 'memory_leaked'
    # A verdict has seen it for long enough.
    after_s = 0.0

    def can_tell(self, sample: HostSample) -> bool:
        """Check whether a sample has what it looks for."""
        return not (sample.ledger_problem or sample.libvirt_problem)

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        by_subject: dict[Subject, list[leaks.Leak]] = {}
        for leak in insight.leaks:
            by_subject.setdefault(leak.subject, []).append(leak)
        for subject, found in by_subject.items():
            yield Finding(
                subject,
                1,
                ' '.join(_leak_in_words(leak) for leak in found),
                ' '.join(leak.remedy for leak in found),
            )


class MemoryFragmented(alarms.Alarm):
    """Fragmentation costs instances of a kind, and not only a few of many."""

    name = 'memory_fragmented'
    ends_below = 0.7

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        most = self.thresholds.fragmented_percent
        shares = {
            name: 100 * slots.lost / slots.whole
            for name, slots in insight.slots.items()
            if slots.lost
        }
        lost = [
            f'{insight.slots[name].lost} like {name} (there is room for '
            f'{insight.slots[name].now})'
            for name in shares
        ]
        if lost:
            worst = max(shares.values())
            yield Finding(
                Subject(),
                worst / most if most else 1.0,
                'there would be room for more instances if free memory were '
                f'in one piece: {", ".join(lost)}. '
                f'{_fragments_in_words(insight)}.',
                insight.remedy,
            )


class CPUsOffPlan(alarms.Alarm):
    """vCPUs of an instance may run where they are not pinned."""

    name = 'cpus_off_plan'
    after_s = _SOON_S

    def check(self, sample: HostSample, insight: Insight) -> Iterator[Finding]:
        """Look for it."""
        for uuid, instance in sample.instances.items():
            if instance.domain is None or instance.vcpus is None:
                yield Finding(_of_instance(uuid), None)
            elif instance.off_plan:
                extra = frozenset().union(*instance.off_plan.values())
                yield Finding(
                    _of_instance(uuid),
                    1,
                    f'{len(instance.off_plan)} of its vCPUs may run on CPUs '
                    f'that they are not pinned to, such as {min(extra)}.',
                    'Something has changed the affinity of its threads since '
                    'it started. Restart it (hard reboot).',
                )


class LibvirtSilent(alarms.Alarm):
    """Libvirt doesn't answer."""

    name = 'libvirt_silent'
    severity = alarms.CRITICAL
    after_s = _SOON_S

    def check(self, sample: HostSample, insight: Insight) -> Iterable[Finding]:
        """Look for it."""
        if sample.libvirt_problem:
            yield Finding(
                Subject(),
                1,
                f'{sample.libvirt_problem}.',
                'If it is down, Nova can neither start nor stop instances '
                'here.',
            )


class LedgerApart(_LedgerAlarm):
    """The ledger and the kernel are apart for more than two rounds.

    ``nova-compute`` brings them in step once a minute.
    """

    name = 'ledger_apart'
    after_s = 150.0

    def check(self, sample: HostSample, insight: Insight) -> Iterable[Finding]:
        """Look for it."""
        if sample.drift:
            yield Finding(
                Subject(),
                1,
                f'the ledger is not in step with the kernel: '
                f'{"; ".join(sample.drift)}.',
                'See whether nova-compute runs, and its log; or run '
                'nova-numa-hugepages host reconcile --dry-run.',
            )


def _leak_in_words(leak: leaks.Leak) -> str:
    since = datetime.datetime.fromtimestamp(leak.since, datetime.UTC)
    slots = ', '.join(
        f'{count:g} of {name}' for name, count in leak.slots.items()
    )
    return (
        f'{leak.text} (leak: {leak.sure.value}, since '
        f'{since.isoformat(timespec="minutes")}'
        + (f'; enough for {slots}' if slots else '')
        + ')'
    )


def _fragments_in_words(insight: Insight) -> str:
    return '; '.join(
        f'{one.pages} pages of {one.key} cannot be allocated, mostly because '
        f'of {one.because.value}'
        for one in insight.fragments
    )


def _used_percent(instance: InstanceSample) -> float | None:
    """Return which share of its memory an instance uses, if it is known."""
    inside = instance.inside
    if inside is None or inside.used_kib is None or not inside.available_kib:
        return None
    if inside.age_s > _OLD_S:
        return None
    return 100 * inside.used_kib / inside.available_kib


def _swapped_kib(inside: MemoryInside, seen: dict[int, int]) -> int:
    """Return how much a guest has read back from its swap of late.

    :param seen: what it said before; what it says now is added
    """
    if inside.swap_in_kib is None:
        return 0
    seen[inside.updated] = inside.swap_in_kib
    for when in [when for when in seen if inside.updated - when > _SWAP_S]:
        del seen[when]
    # It rebooted if it is less.
    return max(0, inside.swap_in_kib - seen[min(seen)])


def _largest(users: Mapping[str, int]) -> str:
    """Name who has most pages."""
    names = sorted(users, key=lambda name: users[name], reverse=True)
    more = f' and {len(names) - _USERS} more' if len(names) > _USERS else ''
    return (', '.join(names[:_USERS]) or 'unknown') + more
