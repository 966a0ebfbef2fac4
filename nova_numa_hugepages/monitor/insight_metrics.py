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

"""The metrics of what samples and the history tell together."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from nova_numa_hugepages.monitor.insight import Insight
from nova_numa_hugepages.monitor.metric import Metric
from nova_numa_hugepages.monitor.metric import Row


def _slots(insight: Insight) -> Iterator[Row]:
    for name, slots in insight.slots.items():
        yield (name,), slots.now


def _lost(insight: Insight) -> Iterator[Row]:
    for name, slots in insight.slots.items():
        yield (name,), slots.lost


def _leaked(insight: Insight) -> Iterator[Row]:
    bytes_of: dict[tuple[str, ...], int] = collections.Counter()
    for leak in insight.leaks:
        labels = leak.kind, leak.sure.value, *leak.subject
        bytes_of[labels] += leak.kib * 1024
    yield from bytes_of.items()


def _time_left(insight: Insight) -> Iterator[Row]:
    for node, left_s in insight.time_left_s.items():
        yield (str(node),), left_s


INSIGHT_METRICS: tuple[Metric[Insight], ...] = (
    Metric(
        'slots',
        'How many more instances of a kind there is room for, by huge pages '
        'and dedicated CPUs.',
        ('flavor',),
        _slots,
    ),
    Metric(
        'slots_lost',
        'How many instances of a kind there is no room for because memory is '
        'fragmented.',
        ('flavor',),
        _lost,
    ),
    Metric(
        'leaked_bytes',
        'Memory that is lost.',
        ('kind', 'sure', 'resource', 'node', 'page_size'),
        _leaked,
    ),
    Metric(
        'node_exhausted_seconds',
        'Time until instances can have no more memory of a NUMA node, at the '
        'rate of the last hours; missing where it does not get less.',
        ('node',),
        _time_left,
    ),
)
