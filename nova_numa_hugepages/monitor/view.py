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

"""What the page shows, as values that JSON can write."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from nova_numa_hugepages.core.printable import printable
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.hugepages.sample import InstanceSample
from nova_numa_hugepages.monitor import insight
from nova_numa_hugepages.monitor import leaks
from nova_numa_hugepages.monitor.history import History
from nova_numa_hugepages.monitor.history import Point
from nova_numa_hugepages.monitor.history import Series
from nova_numa_hugepages.monitor.labels import page_size

VERSION = 1
"""Of the JSON. A reader ignores keys that it doesn't know."""

_DAY_S = 86400.0
STEP_S = 900
"""How far the points of a curve are apart, in seconds."""

_CURVES = {
    insight.AVAILABLE,
    insight.IN_PLACE,
    insight.POOL_FREE,
    insight.SLOTS,
    leaks.USED,
}

Curve = list[tuple[float, float]]
"""Times in seconds since the epoch, with the average around each."""


def curves(history: History, now: float) -> dict[Series, Curve]:
    """Read the last day of what is shown as a curve."""
    found = history.minutes(
        lambda series: series.name in _CURVES, now - _DAY_S
    )
    return {series: _thinned(points) for series, points in found.items()}


def view(
    host: str,
    seen: insight.Seen,
    alarms: Sequence[Mapping[str, Any]],
    past: Mapping[Series, Curve],
    problems: Iterable[str] = (),
) -> dict[str, Any]:
    """Return what is shown of a host.

    :param host: its name
    :param alarms: those that are raised
    :param past: as `curves` reads it
    :param problems: what can't be kept, beside what can't be read
    """
    sample, found = seen
    waits = {
        (wait.holder, wait.cell): wait.kib for wait in sample.snapshot.waits
    }
    return {
        'version': VERSION,
        'host': printable(host),
        'time': sample.time,
        'has_ledger': sample.has_ledger,
        'problems': [*sample.problems, *problems],
        'alarms': [dict(alarm) for alarm in alarms],
        'nodes': [_node(node, seen, past) for node in sample.snapshot.nodes],
        'pools': [_pool(key, sample, past) for key in sample.snapshot.pools],
        'instances': [
            _instance(uuid, instance, alarms, past, waits)
            for uuid, instance in sorted(
                sample.instances.items(), key=lambda item: item[1].process.name
            )
        ],
        'others': [
            {'cgroup': cgroup, **_of_pool(key), 'pages': pages}
            for key, users in sample.others.items()
            for cgroup, pages in users.items()
        ],
        'pods': [
            {
                'pod': pod,
                'nodes': sorted(promise.nodes),
                'page_size': page_size(promise.size_kib),
                'pages': promise.pages,
            }
            for pod, promises in sample.pods.items()
            for promise in promises
        ],
        'slots': [
            {
                'flavor': name,
                'now': slots.now,
                'lost': slots.lost,
                'past': past.get(Series(insight.SLOTS, name), []),
            }
            for name, slots in found.slots.items()
        ],
        'fragments': [
            {
                **_of_pool(one.key),
                'pages': one.pages,
                'because': one.because.value,
            }
            for one in found.fragments
        ],
        'remedy': found.remedy,
        'leaks': [
            {
                'kind': leak.kind,
                'sure': leak.sure.value,
                'since': leak.since,
                'kib': leak.kib,
                'slots': dict(leak.slots),
                **leak.subject._asdict(),
                'text': leak.text,
                'remedy': leak.remedy,
            }
            for leak in found.leaks
        ],
    }


def _of_pool(key: model.PoolKey) -> dict[str, Any]:
    return {'node': key.node, 'page_size': page_size(key.size_kib)}


def _node(
    node: int, seen: insight.Seen, past: Mapping[Series, Curve]
) -> dict[str, Any]:
    sample = seen.sample
    memory = sample.snapshot.memory[node]
    place = sample.snapshot.nodes[node]
    pools = [
        (key, pool)
        for key, pool in sample.snapshot.pools.items()
        if key.node == node
    ]
    of_instances = model.total_kib(
        (key, pages)
        for one in sample.instances.values()
        for key, pages in (one.in_place or {}).items()
        if key.node == node
    )
    promised = model.total_kib(
        (key, pool.usage.promised) for key, pool in pools
    )
    in_pools = model.total_kib(
        (key, pool.usage.pool.total) for key, pool in pools
    )
    free = model.total_kib((key, pool.usage.pool.free) for key, pool in pools)
    owners: dict[int, list[str]] = {}
    for uuid, instance in sample.instances.items():
        plan = instance.domain.plan if instance.domain else None
        if plan is not None:
            for cpu in plan.own_cpus.values():
                owners.setdefault(cpu, []).append(uuid)
    return {
        'node': node,
        'memory_kib': {
            'total': memory.total_kib,
            'instances': of_instances,
            'others': max(0, in_pools - free - of_instances),
            'promised': min(promised, free),
            'idle': max(0, free - promised),
            'small': max(0, memory.total_kib - in_pools - memory.free_kib),
            'free': memory.free_kib,
            'reclaimable': memory.reclaimable_kib,
            'available': sample.available_kib(node),
        },
        'distances': {str(to): far for to, far in place.distances.items()},
        'cpus': [
            {'cpu': cpu, 'instances': owners.get(cpu, [])}
            for cpu in sorted(place.cpus)
        ],
        'exhausted_s': seen.insight.time_left_s.get(node),
        'past': past.get(Series(insight.AVAILABLE, node=str(node)), []),
    }


def _pool(
    key: model.PoolKey, sample: HostSample, past: Mapping[Series, Curve]
) -> dict[str, Any]:
    pool = sample.snapshot.pools[key]
    usage = pool.usage
    labels = _of_pool(key)
    of_ledger = {
        'held': sum(hold.pages for hold in pool.holds),
        'promised': usage.promised,
        'available': max(0, usage.available),
        'missing': usage.overdue,
        'leaked': usage.leaked,
        'floor': usage.account.floor,
        'grown': usage.account.grown,
    }
    series = Series(
        insight.POOL_FREE, '', str(key.node), page_size(key.size_kib)
    )
    return {
        **labels,
        'size_kib': key.size_kib,
        'total': usage.pool.total,
        'free': usage.pool.free,
        'surplus': usage.pool.surplus,
        **(of_ledger if sample.has_ledger else dict.fromkeys(of_ledger)),
        'others': sample.of_others(key),
        'allocatable': pool.allocatable,
        'fragmented': pool.fragmented,
        'past': past.get(series, []),
    }


def _instance(
    uuid: str,
    instance: InstanceSample,
    alarms: Iterable[Mapping[str, Any]],
    past: Mapping[Series, Curve],
    waits: Mapping[tuple[str, int], int],
) -> dict[str, Any]:
    plan = instance.domain.plan if instance.domain else None
    inside = instance.inside
    promised, in_place = instance.promised, instance.in_place
    return {
        'uuid': uuid,
        'name': plan.name if plan else '',
        'flavor': plan.flavor if plan else '',
        'project': plan.project if plan else '',
        'domain': printable(instance.process.name),
        'starting': instance.starting,
        'promised_kib': None
        if promised is None
        else model.total_kib(promised.items()),
        'in_place_kib': None
        if in_place is None
        else model.total_kib(in_place.items()),
        'astray_kib': model.total_kib(instance.astray.items()),
        'cells': [
            {
                **_of_pool(key),
                'promised': _pages(promised, key),
                'in_place': _pages(in_place, key),
            }
            for key in sorted({*(promised or ()), *(in_place or ())})
        ],
        'elastic': [
            {
                **_of_pool(hold.key),
                'cell': hold.cell,
                **{
                    name: pages * hold.size_kib
                    for name, pages in (
                        ('base_kib', hold.base),
                        ('held_kib', hold.pages),
                        ('ceiling_kib', hold.ceiling),
                    )
                },
                'waits_kib': waits.get((uuid, hold.cell), 0),
            }
            for hold in instance.elastic
        ],
        'inside': None
        if inside is None
        else {**inside._asdict(), 'used_kib': inside.used_kib},
        'small_kib': {
            str(node): kib
            for node, kib in (
                instance.small.kib if instance.small else {}
            ).items()
        },
        'vcpus': [
            {
                'vcpu': number,
                'pinned': sorted(plan.vcpus.get(number, ())) if plan else [],
                'may_run': hostfs.format_ids(cpus),
                'off_plan': number in instance.off_plan,
            }
            for number, cpus in sorted((instance.vcpus or {}).items())
        ],
        'alarms': [
            alarm['alarm'] for alarm in alarms if alarm['resource'] == uuid
        ],
        'past': {
            'in_place_kib': past.get(Series(insight.IN_PLACE, uuid), []),
            'used_kib': past.get(Series(leaks.USED, uuid), []),
        },
    }


def _pages(
    counts: Mapping[model.PoolKey, int] | None, key: model.PoolKey
) -> int | None:
    return None if counts is None else counts.get(key, 0)


def _thinned(points: Sequence[Point]) -> Curve:
    groups: dict[int, list[float]] = {}
    for point in points:
        groups.setdefault(int(point.time) // STEP_S, []).append(point.mean)
    return [
        (step * STEP_S, round(sum(values) / len(values), 1))
        for step, values in sorted(groups.items())
    ]
