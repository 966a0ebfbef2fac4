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

"""What the monitor hands out to Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from prometheus_client import core as prometheus
from prometheus_client import registry

from nova_numa_hugepages.monitor.insight import Seen
from nova_numa_hugepages.monitor.insight_metrics import INSIGHT_METRICS
from nova_numa_hugepages.monitor.metric import PREFIX
from nova_numa_hugepages.monitor.metrics import METRICS


class SampleMetrics(registry.Collector):
    """The metrics of the last sample.

    :ivar seen: None if there is none, or the last one could not be taken
    :param alarms: lists the alarms that are raised, as
        `nova_numa_hugepages.monitor.alarms.Raised.as_json` has them; None if
        the host has not been looked at of late
    """

    def __init__(
        self, alarms: Callable[[], Sequence[Mapping[str, Any]] | None]
    ) -> None:
        self.seen: Seen | None = None
        self._alarms = alarms

    def collect(self) -> Iterator[prometheus.Metric]:
        """Write all of them."""
        seen, alarms = self.seen, self._alarms()
        if seen is not None:
            for metric in METRICS:
                yield metric.family(seen.sample)
            for one in INSIGHT_METRICS:
                yield one.family(seen.insight)
        # They are not over because a sample could not be taken.
        if alarms is None:
            return
        labels = ('alarm', 'severity', 'resource', 'node', 'page_size')
        family = prometheus.GaugeMetricFamily(
            f'{PREFIX}alarm', 'An alarm that is raised.', labels=labels
        )
        for alarm in alarms:
            family.add_metric([alarm[label] for label in labels], 1)
        yield family
