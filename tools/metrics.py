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

"""``python -m tools.metrics`` prints the metrics as a table for the guide."""

from __future__ import annotations

from collections.abc import Iterator

from nova_numa_hugepages.monitor.insight_metrics import INSIGHT_METRICS
from nova_numa_hugepages.monitor.metric import PREFIX
from nova_numa_hugepages.monitor.metrics import METRICS


def table() -> Iterator[str]:
    """Write the lines of the table."""
    yield '.. Made by make genconfig, from what the monitor measures.'
    yield ''
    yield '.. list-table::'
    yield '   :header-rows: 1'
    yield '   :widths: 40 20 40'
    yield ''
    yield '   * - Metric'
    yield '     - Labels'
    yield '     - Meaning'
    for metric in (*METRICS, *INSIGHT_METRICS):
        yield f'   * - ``{PREFIX}{metric.name}``'
        yield '     - ' + ', '.join(f'``{name}``' for name in metric.labels)
        yield f'     - {metric.help}'


if __name__ == '__main__':
    print('\n'.join(line.rstrip() for line in table()))
