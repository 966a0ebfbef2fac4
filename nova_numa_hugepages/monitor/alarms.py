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
import math
import time
from typing import Any
from typing import NamedTuple

from oslo_log import log as logging
from stevedore import extension

from nova_numa_hugepages.hugepages.sample import HostSample
from nova_numa_hugepages.monitor.insight import Insight
from nova_numa_hugepages.monitor.labels import Subject
from nova_numa_hugepages.monitor.thresholds import Thresholds

LOG = logging.getLogger(__name__)

NAMESPACE = 'nova_numa_hugepages.alarms'

CRITICAL = 'critical'
WARNING = 'warning'
INFO = 'info'

SEVERITIES = (INFO, WARNING, CRITICAL)
"""The least severe first."""


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

    def can_tell(self, sample: HostSample) -> bool:
        """Check whether a sample has what it looks for.

        If not, it stays as it is.
        """
        return True

    @abc.abstractmethod
    def check(self, sample: HostSample, insight: Insight) -> Iterable[Finding]:
        """Look for it.

        :param insight: what the sample and the history tell together

        A subject that isn't among what is found is all right. The same object
        is asked each time, and may keep what it has seen.
        """


@dataclasses.dataclass(slots=True)
class Raised:
    """An alarm that is raised, or will be if it goes on.

    :ivar since: when it began, in seconds since the epoch
    :ivar began: the same, by a clock that only goes forward
    :ivar lasted_s: for how long it has been so, without the time in which that
        could not be told
    :ivar seen: when it was seen last by that clock, None if the last look
        could not tell
    :ivar raised: whether it is raised
    """

    alarm: Alarm
    finding: Finding
    since: float
    began: float
    lasted_s: float = 0.0
    seen: float | None = None
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
    found: dict[str, Alarm] = {}
    for one in manager:
        alarm = one.obj
        name = getattr(alarm, 'name', None)
        wrong = (
            'it is no Alarm with a name and one of the severities '
            f'{", ".join(SEVERITIES)}'
        )
        if (
            isinstance(alarm, Alarm)
            and isinstance(name, str)
            and alarm.severity in SEVERITIES
        ):
            if name not in found:
                found[name] = alarm
                continue
            wrong = f'there is another one with the name {name}'
        failed(manager, one.entry_point, TypeError(wrong))
    return [found[name] for name in sorted(found)]


class AlarmBook:
    """The alarms of a host.

    :param alarms: all kinds
    :param gap_s: a longer time between two looks doesn't count, as it is not
        known what was then
    :param ticks: seconds of a clock that only goes forward
    """

    def __init__(
        self,
        alarms: Sequence[Alarm],
        gap_s: float = math.inf,
        *,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._alarms = alarms
        self._gap_s = gap_s
        self._ticks = ticks
        self._book: dict[tuple[str, Subject], Raised] = {}
        self._broken: set[str] = set()

    @property
    def raised(self) -> list[Raised]:
        """Those that are raised, the oldest first."""
        found = [one for one in self._book.values() if one.raised]
        return sorted(found, key=lambda one: one.began)

    def update(self, sample: HostSample, insight: Insight) -> None:
        """Raise and end alarms by a new sample, and log that."""
        for alarm in self._alarms:
            found: dict[Subject, Finding] = {}
            try:
                if alarm.can_tell(sample):
                    for one in alarm.check(sample, insight):
                        subject = Subject(*map(str, one.subject))
                        found[subject] = one._replace(subject=subject)
                else:
                    found = {
                        subject: Finding(subject, None)
                        for name, subject in self._book
                        if name == alarm.name
                    }
                self._update(alarm, found, sample.time)
            except Exception:
                # It may be of another package. The others go on, and what it
                # raised stays.
                if alarm.name not in self._broken:
                    LOG.exception('The alarm %s cannot be checked', alarm.name)
                    self._broken.add(alarm.name)
                continue
            self._broken.discard(alarm.name)

    def _update(
        self, alarm: Alarm, found: dict[Subject, Finding], now: float
    ) -> None:
        known = [subject for name, subject in self._book if name == alarm.name]
        ticks = self._ticks()
        for subject in dict.fromkeys((*known, *found)):
            finding = found.get(subject, Finding(subject, 0.0))
            key = alarm.name, subject
            one = self._book.get(key)
            if finding.level is None:
                if one is not None:
                    one.seen = None
            elif finding.level >= 1:
                if one is None:
                    one = Raised(alarm, finding, now, ticks)
                    self._book[key] = one
                if one.seen is not None and ticks - one.seen <= self._gap_s:
                    one.lasted_s += ticks - one.seen
                one.seen = ticks
                one.finding = finding
                if not one.raised and one.lasted_s >= alarm.after_s:
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
