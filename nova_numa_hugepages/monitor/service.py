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

"""The service that looks at a host again and again, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import pathlib
import threading
import time
from typing import Any

from oslo_log import log as logging
import prometheus_client
from prometheus_client import registry as prometheus_registry

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.monitor.alarms import AlarmBook
from nova_numa_hugepages.monitor.metrics import AlarmMetrics
from nova_numa_hugepages.monitor.metrics import PREFIX
from nova_numa_hugepages.monitor.metrics import SampleMetrics

LOG = logging.getLogger(__name__)

TEXTFILE = 'nova_numa_hugepages.prom'
"""The file that is written; node_exporter wants ``.prom`` at its end."""


class Monitor:
    """Takes a sample each time that an interval has passed.

    :ivar registry: the metrics
    :param collect: takes a sample
    :param book: the alarms
    :param interval_s: the interval, in seconds
    :param textfile: the folder for `TEXTFILE`, if it is to be written
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        collect: Callable[[], HostSample],
        book: AlarmBook,
        interval_s: float,
        textfile: pathlib.Path | None = None,
        *,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collect = collect
        self._book = book
        self._alarms: list[dict[str, Any]] = []
        self._interval_s = interval_s
        self._textfile = textfile
        self._ticks = ticks
        self._problems: set[str] = set()
        self._metrics = SampleMetrics()
        self.registry = prometheus_registry.CollectorRegistry()
        self.registry.register(self._metrics)
        self.registry.register(AlarmMetrics(self.alarms))
        prometheus_client.ProcessCollector(registry=self.registry)
        self._failures = prometheus_client.Counter(
            f'{PREFIX}monitor_failures',
            'Samples that could not be taken, or not be written.',
            registry=self.registry,
        )
        self._duration = prometheus_client.Gauge(
            f'{PREFIX}monitor_sample_seconds',
            'How long the last sample took.',
            registry=self.registry,
        )

    def alarms(self) -> list[dict[str, Any]]:
        """List the alarms that are raised, the oldest first, for JSON."""
        return self._alarms

    def run(self, stop: threading.Event) -> None:
        """Go on until it is stopped."""
        while not stop.is_set():
            began = self._ticks()
            self.step()
            # An interval that took longer is not made up for.
            stop.wait(max(0.0, self._interval_s - (self._ticks() - began)))

    def step(self) -> bool:
        """Take a sample, and write it.

        :returns: whether that could be done; if not, it was logged
        """
        began = self._ticks()
        problems: set[str] = set()
        try:
            sample = self._collect()
        except exception.NUMAHugepagesError as error:
            # What was read before is old, and must not look like news.
            self._metrics.sample = None
            problems.add(str(error))
        else:
            self._metrics.sample = sample
            problems.update(sample.problems)
            self._book.update(sample)
            self._alarms = [one.as_json() for one in self._book.raised]
        done = self._metrics.sample is not None
        self._duration.set(self._ticks() - began)
        if self._textfile is not None:
            try:
                prometheus_client.write_to_textfile(
                    str(self._textfile / TEXTFILE), self.registry
                )
            except OSError as error:
                problems.add(f'{self._textfile / TEXTFILE}: {error.strerror}')
                done = False
        if not done:
            self._failures.inc()
        self._log(problems)
        return done

    def _log(self, problems: Iterable[str]) -> None:
        """Log each problem once, and once more when it is over."""
        now = set(problems)
        for problem in sorted(now - self._problems):
            LOG.warning('Cannot read all of this host: %s', problem)
        for problem in sorted(self._problems - now):
            LOG.info('Can be read again: %s', problem)
        self._problems = now
