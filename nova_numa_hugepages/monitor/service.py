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
from collections.abc import Sequence
import pathlib
import socket
import threading
import time
from typing import Any

from oslo_log import log as logging
import prometheus_client
from prometheus_client import registry as prometheus_registry

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.monitor import view
from nova_numa_hugepages.monitor.alarms import Alarm
from nova_numa_hugepages.monitor.alarms import AlarmBook
from nova_numa_hugepages.monitor.exposition import SampleMetrics
from nova_numa_hugepages.monitor.history import Series
from nova_numa_hugepages.monitor.insight import Analyst
from nova_numa_hugepages.monitor.insight import Seen
from nova_numa_hugepages.monitor.metric import PREFIX

LOG = logging.getLogger(__name__)

TEXTFILE = 'nova_numa_hugepages.prom'
"""The file that is written; node_exporter wants ``.prom`` at its end."""


# A sample that is older than so many intervals is no news.
_OLD_INTERVALS = 4
# How long the curves of the page are good, in seconds.
_CURVES_S = view.STEP_S


class Monitor:
    """Takes a sample each time that an interval has passed.

    :ivar registry: the metrics, with those of this process
    :param collect: takes a sample
    :param alarms: all kinds of alarms
    :param analyst: finds out what samples and history tell
    :param interval_s: the interval, in seconds
    :param textfile: the folder for `TEXTFILE`, if it is to be written
    :param name: of the host; that of this one if None
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        collect: Callable[[], HostSample],
        alarms: Sequence[Alarm],
        analyst: Analyst,
        interval_s: float,
        textfile: pathlib.Path | None = None,
        *,
        name: str | None = None,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name or socket.gethostname()
        self._collect = collect
        self._analyst = analyst
        self._interval_s = interval_s
        old_s = _OLD_INTERVALS * interval_s
        self._book = AlarmBook(alarms, old_s, ticks=ticks)
        self._old_s = old_s
        self._textfile = textfile
        self._ticks = ticks
        self._problems: set[str] = set()
        self._alarms: list[dict[str, Any]] = []
        self._sampled: float | None = None
        self._page_lock = threading.Lock()
        self._curves: tuple[float, dict[Series, view.Curve]] | None = None
        self._metrics = SampleMetrics(self.alarms)
        # node_exporter has metrics of its own process, of the same names.
        self._file_registry = prometheus_registry.CollectorRegistry()
        self.registry = prometheus_registry.CollectorRegistry()
        self._failures = prometheus_client.Counter(
            f'{PREFIX}monitor_failures',
            'Samples that could not be taken, or not be written.',
            registry=None,
        )
        self._duration = prometheus_client.Gauge(
            f'{PREFIX}monitor_sample_seconds',
            'How long the last sample took.',
            registry=None,
        )
        for registry in (self._file_registry, self.registry):
            registry.register(self._metrics)
            registry.register(self._failures)
            registry.register(self._duration)
        prometheus_client.ProcessCollector(registry=self.registry)

    def alarms(self) -> list[dict[str, Any]] | None:
        """List the alarms that are raised, the oldest first, for JSON.

        :returns: None if the host has not been looked at of late
        """
        if self._sampled is None or (
            self._ticks() - self._sampled > self._old_s
        ):
            return None
        return self._alarms

    def view(self) -> dict[str, Any] | None:
        """Return what the page shows.

        :returns: None if the host has not been looked at of late
        """
        seen, alarms = self._metrics.seen, self.alarms()
        if seen is None or alarms is None:
            return None
        with self._page_lock:
            now = self._ticks()
            if self._curves is None or now - self._curves[0] > _CURVES_S:
                # Many may look at the page, and this takes time.
                found = view.curves(self._analyst.history, seen.sample.time)
                self._curves = now, found
            problem = self._analyst.history.problem
            return view.view(
                self._name,
                seen,
                alarms,
                self._curves[1],
                [problem] if problem else [],
            )

    def run(self, stop: threading.Event) -> None:
        """Go on until it is stopped."""
        try:
            while not stop.is_set():
                began = self._ticks()
                self.step()
                # An interval that took longer is not made up for.
                took_s = self._ticks() - began
                stop.wait(max(0.0, self._interval_s - took_s))
        finally:
            self._analyst.history.close()
            if self._textfile is not None:
                self._remove(self._textfile / TEXTFILE)

    def _remove(self, path: pathlib.Path) -> None:
        """Remove what was written, which would be read for ever."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            LOG.error(
                '%(path)s cannot be removed, and goes on being read: '
                '%(error)s. Remove it.',
                {'path': path, 'error': error.strerror},
            )

    def step(self) -> bool:
        """Take a sample, and write it.

        :returns: whether that could be done; if not, it was logged
        """
        began = self._ticks()
        problems: set[str] = set()
        done = False
        try:
            sample = self._collect()
            insight = self._analyst.look(sample)
            self._book.update(sample, insight)
        except exception.NUMAHugepagesError as error:
            # What was read before is old, and must not look like news.
            self._metrics.seen = None
            problems.add(str(error))
        except Exception as error:
            # One odd guest must not end the watch over all others.
            self._metrics.seen = None
            problems.add(f'{type(error).__name__}: {error}')
            if not problems <= self._problems:
                LOG.exception('A sample could not be taken')
        else:
            self._alarms = [one.as_json() for one in self._book.raised]
            self._metrics.seen = Seen(sample, insight)
            self._sampled = self._ticks()
            problems.update(sample.problems)
            if self._analyst.history.problem:
                problems.add(self._analyst.history.problem)
            done = True
        self._duration.set(self._ticks() - began)
        if not done:
            self._failures.inc()
        if self._textfile is not None:
            done &= self._write(self._textfile / TEXTFILE, problems)
        self._log(problems)
        return done

    def _write(self, path: pathlib.Path, problems: set[str]) -> bool:
        """Write the metrics to a file; return whether that could be done."""
        try:
            prometheus_client.write_to_textfile(str(path), self._file_registry)
        except OSError as error:
            problems.add(
                f'{path}: cannot be written: {error.strerror}; the user of '
                'the monitor has to be able to write to this folder'
            )
            self._failures.inc()
            return False
        return True

    def _log(self, problems: set[str]) -> None:
        """Log each problem once, and once more when it is over."""
        for problem in sorted(problems - self._problems):
            LOG.warning('The monitor is hindered: %s', problem)
        for problem in sorted(self._problems - problems):
            LOG.info('The monitor is not hindered any more: %s', problem)
        self._problems = problems
