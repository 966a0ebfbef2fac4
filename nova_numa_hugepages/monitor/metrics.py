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

"""The metrics of a sample."""

from __future__ import annotations

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses

from nova_numa_hugepages.core.printable import printable
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.hugepages.sample import InstanceSample
from nova_numa_hugepages.hugepages.sample import MemoryInside
from nova_numa_hugepages.hugepages.snapshot import PoolSnapshot
from nova_numa_hugepages.monitor.labels import page_size
from nova_numa_hugepages.monitor.metric import Metric
from nova_numa_hugepages.monitor.metric import Row


def _pool_labels(key: model.PoolKey) -> tuple[str, str]:
    return str(key.node), page_size(key.size_kib)


def _node(
    name: str, help_text: str, value: Callable[[HostSample, int], float]
) -> Metric[HostSample]:
    def read(sample: HostSample) -> Iterator[Row]:
        for node in sample.snapshot.nodes:
            yield (str(node),), value(sample, node)

    return Metric(name, help_text, ('node',), read)


def _pool(
    name: str, help_text: str, value: Callable[[PoolSnapshot], float]
) -> Metric[HostSample]:
    def read(sample: HostSample) -> Iterator[Row]:
        for key, pool in sample.snapshot.pools.items():
            yield _pool_labels(key), value(pool)

    return Metric(name, help_text, ('node', 'page_size'), read)


def _ledger_pool(
    name: str, help_text: str, value: Callable[[PoolSnapshot], float]
) -> Metric[HostSample]:
    """Make a metric that there is only where a ledger was read."""
    metric = _pool(name, help_text, value)
    return dataclasses.replace(
        metric,
        read=lambda sample: metric.read(sample) if sample.has_ledger else (),
    )


def _instance_pages(
    name: str,
    help_text: str,
    counts: Callable[[InstanceSample], Mapping[model.PoolKey, int] | None],
) -> Metric[HostSample]:
    def read(sample: HostSample) -> Iterator[Row]:
        for uuid, instance in sample.instances.items():
            for key, count in (counts(instance) or {}).items():
                yield (uuid, *_pool_labels(key)), count

    return Metric(
        f'instance_{name}', help_text, ('resource', 'node', 'page_size'), read
    )


def _elastic(instance: InstanceSample, size: str) -> dict[model.PoolKey, int]:
    """Add up a size of the elastic cells of an instance, by pool."""
    return model.added_up(
        (hold.key, getattr(hold, size)) for hold in instance.elastic
    )


def _inside(
    name: str,
    help_text: str,
    value: Callable[[MemoryInside], float | None],
    factor: int = 1,
) -> Metric[HostSample]:
    def read(sample: HostSample) -> Iterator[Row]:
        for uuid, instance in sample.instances.items():
            if instance.inside is not None:
                number = value(instance.inside)
                if number is not None:
                    yield (uuid,), number * factor

    return Metric(f'instance_{name}', help_text, ('resource',), read)


def _counted(
    name: str,
    help_text: str,
    label: str,
    values: Callable[[HostSample], Mapping[str, float]],
) -> Metric[HostSample]:
    def read(sample: HostSample) -> Iterator[Row]:
        for value, count in values(sample).items():
            yield (value,), count

    return Metric(name, help_text, (label,), read)


def _info(sample: HostSample) -> Iterator[Row]:
    for uuid, instance in sample.instances.items():
        # A series with other labels meanwhile would be another one.
        if instance.domain is not None:
            plan = instance.domain.plan
            domain = printable(instance.process.name)
            labels = uuid, plan.project, plan.flavor, plan.name, domain
            yield labels, 1


def _small(sample: HostSample) -> Iterator[Row]:
    for uuid, instance in sample.instances.items():
        if instance.small is not None:
            for node, kib in instance.small.kib.items():
                yield (uuid, str(node)), kib * 1024


def _small_age(sample: HostSample) -> Iterator[Row]:
    for uuid, instance in sample.instances.items():
        if instance.small is not None:
            yield (uuid,), instance.small.age_s


def _off_plan(sample: HostSample) -> Iterator[Row]:
    for uuid, instance in sample.instances.items():
        yield (uuid,), len(instance.off_plan)


def _others(sample: HostSample) -> Iterator[Row]:
    for key, users in sample.others.items():
        for cgroup, count in users.items():
            yield (*_pool_labels(key), cgroup), count


def _of_others(sample: HostSample) -> Iterator[Row]:
    for key in sample.snapshot.pools:
        yield _pool_labels(key), sample.of_others(key)


def _pods(sample: HostSample) -> Iterator[Row]:
    for pod, promises in sample.pods.items():
        counts: dict[tuple[str, ...], int] = collections.Counter()
        for promise in promises:
            nodes = ','.join(map(str, sorted(promise.nodes)))
            counts[pod, nodes, page_size(promise.size_kib)] += promise.pages
        yield from counts.items()


def _blocks(sample: HostSample) -> Iterator[Row]:
    for node, blocks in sample.page_blocks.items():
        for name, count in blocks._asdict().items():
            yield (str(node), name), count


def _reserved(sample: HostSample) -> Iterator[Row]:
    for size_kib, count in sample.reserved.items():
        yield (page_size(size_kib),), count


def _reserved_by(sample: HostSample) -> Iterator[Row]:
    for size_kib, users in sample.reserved_by.items():
        for cgroup, count in users.items():
            yield (page_size(size_kib), cgroup), count


def _files(sample: HostSample) -> Iterator[Row]:
    if sample.files is None:
        return
    counts: dict[int, int] = dict.fromkeys(sample.reserved, 0)
    for file in sample.files:
        counts[file.size_kib] = counts.get(file.size_kib, 0) + file.pages
    for size_kib, count in counts.items():
        yield (page_size(size_kib),), count


def _distances(sample: HostSample) -> Iterator[Row]:
    for node in sample.snapshot.nodes.values():
        for other, distance in node.distances.items():
            yield (str(node.id), str(other)), distance


def _available(sample: HostSample) -> Iterator[Row]:
    for node in sample.snapshot.nodes:
        free_kib = sample.available_kib(node)
        if free_kib is not None:
            yield (str(node),), free_kib * 1024


def _allocations(sample: HostSample) -> Iterator[Row]:
    for node, counts in sample.node_counters.items():
        for name, count in counts._asdict().items():
            yield (str(node), name), count


def _compactions(sample: HostSample) -> dict[str, float]:
    found = sample.host_counters
    return (
        {'success': found.compact_success, 'fail': found.compact_fail}
        if found
        else {}
    )


def _made(sample: HostSample) -> dict[str, float]:
    found = sample.host_counters
    return (
        {'success': found.hugepage_success, 'fail': found.hugepage_fail}
        if found
        else {}
    )


def _stalls(sample: HostSample) -> Iterator[Row]:
    if sample.host_counters:
        yield (), sample.host_counters.stalls


def _waiting(sample: HostSample) -> dict[str, float]:
    found = sample.pressure
    return (
        {'some': found.some_us / 1e6, 'full': found.full_us / 1e6}
        if found
        else {}
    )


METRICS: tuple[Metric[HostSample], ...] = (
    _node(
        'node_memory_bytes',
        'Memory of a NUMA node.',
        lambda sample, node: sample.snapshot.memory[node].total_kib * 1024,
    ),
    _node(
        'node_memory_free_bytes',
        'Memory of a NUMA node that is not in use, in blocks of any size.',
        lambda sample, node: sample.snapshot.memory[node].free_kib * 1024,
    ),
    _node(
        'node_memory_reclaimable_bytes',
        'Cached files on a NUMA node that the kernel can drop at once.',
        lambda sample, node: (
            sample.snapshot.memory[node].reclaimable_kib * 1024
        ),
    ),
    Metric(
        'node_available_bytes',
        'Memory of a NUMA node that new instances can have, as huge pages of '
        'the size of which they can have most.',
        ('node',),
        _available,
    ),
    _node(
        'node_cpus',
        'CPUs of a NUMA node that are online.',
        lambda sample, node: len(sample.snapshot.nodes[node].cpus),
    ),
    Metric(
        'node_distance',
        'Distance from a NUMA node to another, 10 to itself.',
        ('node', 'to'),
        _distances,
    ),
    Metric(
        'node_allocations_total',
        'Allocations of small pages: on the node that was wanted (hit), on '
        'this one though another was wanted (miss), and elsewhere though this '
        'one was wanted (foreign). What is foreign to one node is a miss of '
        'another.',
        ('node', 'result'),
        _allocations,
    ),
    _pool(
        'pool_pages',
        'Huge pages of a pool, surplus pages included.',
        lambda pool: pool.usage.pool.total,
    ),
    _pool(
        'pool_free_pages',
        'Huge pages of a pool that no process has; some may be promised.',
        lambda pool: pool.usage.pool.free,
    ),
    _pool(
        'pool_surplus_pages',
        'Huge pages above those that were set; they vanish when freed.',
        lambda pool: pool.usage.pool.surplus,
    ),
    Metric(
        'pool_others_pages',
        'Huge pages that processes other than instances use.',
        ('node', 'page_size'),
        _of_others,
    ),
    _pool(
        'pool_allocatable_pages',
        'Huge pages that could be allocated on top of those that exist.',
        lambda pool: pool.allocatable,
    ),
    _pool(
        'pool_unusable_ratio',
        'Share of the free memory of the node that is in blocks too small for '
        'a page of this size.',
        lambda pool: pool.unusable_permille / 1000,
    ),
    _pool(
        'pool_fragmented_pages',
        'Huge pages that could be allocated as well if free memory of the '
        'node were in one piece.',
        lambda pool: pool.fragmented,
    ),
    Metric(
        'page_blocks',
        'Blocks of the memory of a NUMA node, by what they were given out '
        'for: movable, unmovable or reclaimable memory. Only while pages are '
        'lost to fragmentation, and up to five minutes old.',
        ('node', 'type'),
        _blocks,
    ),
    Metric(
        'kernel_reserved_pages',
        'Huge pages that the kernel keeps for mappings that have not touched '
        'them yet.',
        ('page_size',),
        _reserved,
    ),
    Metric(
        'file_pages',
        'Huge pages in files that no process has.',
        ('page_size',),
        _files,
    ),
    _ledger_pool(
        'pool_held_pages',
        'Huge pages that are held for instances.',
        lambda pool: sum(hold.pages for hold in pool.holds),
    ),
    _ledger_pool(
        'pool_promised_pages',
        'Free huge pages that instances have a right to.',
        lambda pool: pool.usage.promised,
    ),
    _ledger_pool(
        'pool_available_pages',
        'Free huge pages that a new instance can have without any being '
        'allocated; below 0 if too many are promised.',
        lambda pool: pool.usage.available,
    ),
    _ledger_pool(
        'pool_missing_pages',
        'Huge pages that are promised and that others have.',
        lambda pool: pool.usage.overdue,
    ),
    _ledger_pool(
        'pool_lendable_pages',
        'Huge pages that elastic instances do not have now, and that may be '
        'lent to others.',
        lambda pool: pool.usage.lendable,
    ),
    _ledger_pool(
        'pool_lent_pages',
        'Huge pages that elastic instances may want back, and others have.',
        lambda pool: pool.usage.lent,
    ),
    _ledger_pool(
        'pool_leaked_pages',
        'Huge pages in use that were left by instances which have ended.',
        lambda pool: pool.usage.leaked,
    ),
    _ledger_pool(
        'pool_floor_pages',
        'Huge pages that an operator set up, and that are never freed.',
        lambda pool: pool.account.floor,
    ),
    _ledger_pool(
        'pool_grown_pages',
        'Huge pages that were allocated for instances.',
        lambda pool: pool.account.grown,
    ),
    Metric(
        'others_pages',
        'Huge pages in use by a control group that is not an instance, for as '
        'long as it has some; '
        '"unknown" are those of no control group.',
        ('node', 'page_size', 'cgroup'),
        _others,
    ),
    Metric(
        'others_reserved_pages',
        'Huge pages that a control group which is not an instance has '
        'reserved, used or not.',
        ('page_size', 'cgroup'),
        _reserved_by,
    ),
    Metric(
        'pod_promised_pages',
        'Huge pages that the kubelet of this host promised to a pod, on one '
        'of these nodes or the other.',
        ('pod', 'nodes', 'page_size'),
        _pods,
    ),
    Metric(
        'instance_info',
        'An instance that runs, with the name of its domain.',
        ('resource', 'project', 'flavor', 'name', 'domain'),
        _info,
    ),
    _instance_pages(
        'promised_pages',
        'Huge pages that are promised to an instance.',
        lambda instance: instance.promised,
    ),
    _instance_pages(
        'in_place_pages',
        'Huge pages that an instance has.',
        lambda instance: instance.in_place,
    ),
    _instance_pages(
        'astray_pages',
        'Huge pages that an instance has where none are promised to it.',
        lambda instance: instance.astray,
    ),
    _instance_pages(
        'absent_pages',
        'Huge pages that are promised to an instance and that it does not '
        'have.',
        lambda instance: instance.absent,
    ),
    _instance_pages(
        'base_pages',
        'Huge pages that an elastic instance boots with, and always has.',
        lambda instance: _elastic(instance, 'base'),
    ),
    _instance_pages(
        'ceiling_pages',
        'Huge pages that an elastic instance may come to have.',
        lambda instance: _elastic(instance, 'ceiling'),
    ),
    Metric(
        'instance_small_memory_bytes',
        'Memory of an instance and of its QEMU that is not in huge pages.',
        ('resource', 'node'),
        _small,
    ),
    Metric(
        'instance_small_memory_age_seconds',
        'How old the figures on memory that is not in huge pages are.',
        ('resource',),
        _small_age,
    ),
    Metric(
        'instance_vcpus_off_plan',
        'vCPUs that may run on CPUs that they are not pinned to.',
        ('resource',),
        _off_plan,
    ),
    _inside(
        'guest_available_bytes',
        'Memory that the kernel of an instance can see.',
        lambda inside: inside.available_kib,
        1024,
    ),
    _inside(
        'guest_usable_bytes',
        'Memory that programs of an instance can have without swapping.',
        lambda inside: inside.usable_kib,
        1024,
    ),
    _inside(
        'guest_unused_bytes',
        'Memory of an instance that is not in use, not even for caches.',
        lambda inside: inside.unused_kib,
        1024,
    ),
    _inside(
        'guest_caches_bytes',
        'Cached files in an instance.',
        lambda inside: inside.caches_kib,
        1024,
    ),
    _inside(
        'guest_swap_in_bytes_total',
        'Memory that an instance has read back from its swap.',
        lambda inside: inside.swap_in_kib,
        1024,
    ),
    _inside(
        'guest_swap_out_bytes_total',
        'Memory that an instance has swapped out.',
        lambda inside: inside.swap_out_kib,
        1024,
    ),
    _inside(
        'guest_major_faults_total',
        'Accesses to memory in an instance that waited for a disk.',
        lambda inside: inside.major_faults,
    ),
    _inside(
        'guest_age_seconds',
        'How old the figures are that an instance reports of its memory.',
        lambda inside: inside.age_s,
    ),
    _counted(
        'compactions_total',
        'Compactions of memory that made a free block (success) or not.',
        'result',
        _compactions,
    ),
    _counted(
        'page_allocations_total',
        'Huge pages that the kernel could allocate (success) or not.',
        'result',
        _made,
    ),
    Metric(
        'allocation_stalls_total',
        'Allocations of memory that waited for some to be reclaimed.',
        (),
        _stalls,
    ),
    _counted(
        'memory_waiting_seconds_total',
        'Time in which some tasks waited for memory; that in which all did '
        '(full) is part of it.',
        'tasks',
        _waiting,
    ),
    Metric(
        'monitor_sample_timestamp_seconds',
        'When these figures were read, in seconds since the epoch.',
        (),
        lambda sample: [((), sample.time)],
    ),
    Metric(
        'monitor_problems',
        'What could not be read; the log of the monitor has the reasons.',
        (),
        lambda sample: [((), len(sample.problems))],
    ),
    Metric(
        'monitor_ledger',
        'Whether a ledger was read (1); 0 if there is none, or it cannot be.',
        (),
        lambda sample: [((), sample.has_ledger)],
    ),
)
"""All metrics, in the order in which they are written."""
