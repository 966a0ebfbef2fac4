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

"""A metric, in the form of Prometheus.

Names and labels follow https://prometheus.io/docs/practices/naming/: pages and
bytes are separate names, ``node`` is the number of a NUMA node, ``page_size``
is for example ``2MiB``, and ``resource`` is the uuid of an instance, as
Watcher and Aetos have it. Which host it is comes from the scrape.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
from typing import Generic
from typing import TypeVar

from prometheus_client import core as prometheus

_T = TypeVar('_T')

PREFIX = 'numa_hugepages_'

# The values of the labels, and the value of the metric.
Row = tuple[tuple[str, ...], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Metric(Generic[_T]):
    """A metric.

    :ivar name: without `PREFIX`; that of a counter ends in ``_total``
    :ivar help: what it counts, for operators
    :ivar labels: the names of its labels
    :ivar read: reads its values out of what was seen
    """

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[_T], Iterable[Row]]

    @property
    def is_counter(self) -> bool:
        """Whether it only grows, until the host or the instance reboots."""
        return self.name.endswith('_total')

    def family(self, seen: _T) -> prometheus.Metric:
        """Write it down for what was seen."""
        kind = (
            prometheus.CounterMetricFamily
            if self.is_counter
            else prometheus.GaugeMetricFamily
        )
        family = kind(PREFIX + self.name, self.help, labels=self.labels)
        for labels, value in self.read(seen):
            family.add_metric(labels, value)
        return family
