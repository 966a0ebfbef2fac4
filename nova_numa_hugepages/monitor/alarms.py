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

"""Alarms: what they watch, when they are raised, and when they are over.

Each kind of alarm is a class behind an entry point of `NAMESPACE`, so that an
operator can add one.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import time
from typing import Any
from typing import NamedTuple

from oslo_log import log as logging
from stevedore import extension

from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.monitor.thresholds import Thresholds

LOG = logging.getLogger(__name__)

NAMESPACE = 'nova_numa_hugepages.alarms'

WARNING = 'warning'
CRITICAL = 'critical'
INFO = 'info'


class Subject(NamedTuple):
    """What an alarm is about; empty where it doesn't matter.

    :ivar resource: the uuid of an instance
    :ivar node: the number of a NUMA node
    :ivar page_size: for example ``2MiB``
    """

    resource: str = ''
    node: str = ''
    page_size: str = ''


class Finding(NamedTuple):
    """What an alarm found about a subject.

    :ivar level: 1 or more if it is to be raised, less if not; None if that
        can't be told now, and it is left as it is
    :ivar text: what is wrong, with numbers
    :ivar remedy: what to do
    """

    subject: Subject
    level: float | None
    text: str = ''
    remedy: str = ''


class Alarm(abc.ABC):
    """A kind of alarm.

    :cvar name: in metrics and on the command line, for example
        ``memory_misplaced``
    :cvar severity: `CRITICAL`, `WARNING` or `INFO`
    :cvar ends_below: the level below which it is over; between this and 1 it
        is neither raised nor over
    :ivar thresholds: the operator's
    """

    name: str
    severity = WARNING
    ends_below = 1.0

    def __init__(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds

    @property
    def after_s(self) -> float:
        """How long it has to be so before it is raised, in seconds."""
        return self.thresholds.after_s

    @abc.abstractmethod
    def check(
        self, sample: HostSample, before: HostSample | None
    ) -> Iterable[Finding]:
        """Look for it.

        A subject that isn't among what is found is all right.

        :param before: the sample before, None at first
        """


@dataclasses.dataclass(slots=True)
class Raised:
    """An alarm that is raised, or will be if it goes on.

    :ivar since: when it began, in seconds since the epoch
    :ivar raised: whether it is raised
    """

    alarm: Alarm
    finding: Finding
    since: float
    began: float
    raised: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return what is shown of it."""
        return {
            'alarm': self.alarm.name,
            'severity': self.alarm.severity,
            'since': self.since,
            **self.finding.subject._asdict(),
            'text': self.finding.text,
            'remedy': self.finding.remedy,
        }


def load(thresholds: Thresholds) -> list[Alarm]:
    """Load all alarms, those of operators included.

    One that can't be loaded is logged, and left out.
    """

    def failed(_: object, entry_point: object, error: BaseException) -> None:
        LOG.error('Cannot load the alarm %s: %s', entry_point, error)

    manager: extension.ExtensionManager[Alarm] = extension.ExtensionManager(
        NAMESPACE,
        invoke_on_load=True,
        invoke_args=(thresholds,),
        on_load_failure_callback=failed,
    )
    found = [one.obj for one in manager if one.obj is not None]
    return sorted(found, key=lambda one: one.name)


class AlarmBook:
    """The alarms of a host.

    :param alarms: all kinds
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        alarms: Sequence[Alarm],
        *,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._alarms = alarms
        self._ticks = ticks
        self._book: dict[tuple[str, Subject], Raised] = {}
        self._before: HostSample | None = None
        self._broken: set[str] = set()

    @property
    def raised(self) -> list[Raised]:
        """Those that are raised, the oldest first."""
        found = [one for one in self._book.values() if one.raised]
        return sorted(found, key=lambda one: one.since)

    def update(self, sample: HostSample) -> None:
        """Raise and end alarms by a new sample, and log that."""
        for alarm in self._alarms:
            try:
                found = {
                    one.subject: one
                    for one in alarm.check(sample, self._before)
                }
            except Exception:
                # It may be anybody's. The others go on, and what it raised
                # stays.
                if alarm.name not in self._broken:
                    LOG.exception('The alarm %s cannot be checked', alarm.name)
                    self._broken.add(alarm.name)
                continue
            self._broken.discard(alarm.name)
            self._update(alarm, found, sample.time)
        self._before = sample

    def _update(
        self, alarm: Alarm, found: dict[Subject, Finding], now: float
    ) -> None:
        known = [subject for name, subject in self._book if name == alarm.name]
        for subject in dict.fromkeys((*known, *found)):
            finding = found.get(subject, Finding(subject, 0.0))
            key = alarm.name, subject
            one = self._book.get(key)
            if finding.level is None:
                continue
            if finding.level >= 1:
                if one is None:
                    one = Raised(alarm, finding, now, self._ticks())
                    self._book[key] = one
                one.finding = finding
                if (
                    not one.raised
                    and self._ticks() - one.began >= alarm.after_s
                ):
                    one.raised = True
                    self._log(one)
            elif one is not None and not (
                one.raised and finding.level >= alarm.ends_below
            ):
                del self._book[key]
                if one.raised:
                    LOG.info(
                        'Alarm %(alarm)s is over: %(text)s',
                        {'alarm': alarm.name, 'text': one.finding.text},
                        **_about(subject),
                    )

    def _log(self, one: Raised) -> None:
        log = LOG.info if one.alarm.severity == INFO else LOG.warning
        log(
            'Alarm %(alarm)s (%(severity)s): %(text)s %(remedy)s',
            {
                'alarm': one.alarm.name,
                'severity': one.alarm.severity,
                'text': one.finding.text,
                'remedy': one.finding.remedy,
            },
            **_about(one.finding.subject),
        )


def _about(subject: Subject) -> dict[str, str]:
    """Return the arguments of a log call that name the instance."""
    return {'instance_uuid': subject.resource} if subject.resource else {}
