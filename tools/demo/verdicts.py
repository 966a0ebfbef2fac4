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


"""The decisions of the scheduler, watched at its filter and weigher."""

from __future__ import annotations

from collections.abc import Iterator
import copy
import dataclasses
import logging
from typing import Any

import fixtures
from nova.scheduler.filters import numa_topology_filter

from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.scheduler import filters
from tests.fixtures.cloud import fits
from tools.demo import weighing

ACCEPTS = 'accepts'
REJECTS = 'rejects'


@dataclasses.dataclass
class Verdicts:
    """The verdicts on one request.

    :ivar offered: hosts that Placement and the other filters left
    :ivar accepted: those that our filter accepted
    :ivar stock: what stock Nova's filter says of the same request and the
        same hosts, by host; None if it was not asked
    :ivar stock_choice: the host that stock Nova's weighers would take of those
        that its filter accepts; None if there is none, or it was not asked
    :ivar reasons: the lines that our filter logged, each with the number of
        the guest, from 0
    :ivar weighed: what each guest costs on the hosts that our filter accepted,
        as our weigher counts it
    """

    offered: list[str] = dataclasses.field(default_factory=list)
    accepted: list[str] = dataclasses.field(default_factory=list)
    stock: dict[str, str] | None = None
    stock_choice: str | None = None
    reasons: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    weighed: list[weighing.Weighed] = dataclasses.field(default_factory=list)


class VerdictsFixture(fixtures.Fixture):
    """Watch our filter and weigher, and ask those of stock Nova on demand."""

    def __init__(self) -> None:
        self._compare = False
        self._guests = 0
        self._passes = 0
        self._latest = Verdicts()
        self._stock_plan: Any = None

    def _setUp(self) -> None:
        watch = self
        self._scores = self.useFixture(weighing.ScoresFixture())

        class Reasons(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if watch._passes <= watch._guests:
                    watch._latest.reasons.append(
                        (watch._passes - 1, record.getMessage())
                    )

        logger = logging.getLogger(filters.__name__)
        handler = Reasons(logging.INFO)
        self.addCleanup(logger.setLevel, logger.level)
        logger.setLevel(logging.INFO)
        self.addCleanup(logger.removeHandler, handler)
        logger.addHandler(handler)

        original = filters.NUMAHugepagesFilter.filter_all

        def filter_all(
            self: Any,
            host_states: Any,
            spec: Any,
        ) -> Iterator[Any]:
            return watch._watch(
                list(host_states),
                spec,
                lambda hosts: original(self, hosts, spec),
            )

        self.useFixture(
            fixtures.MonkeyPatch(
                f'{filters.__name__}.NUMAHugepagesFilter.filter_all',
                filter_all,
            )
        )
        # In this module alone the fit stays the one of stock Nova.
        self.useFixture(
            fixtures.MonkeyPatch(
                f'{numa_topology_filter.__name__}.hardware',
                fits.HardwareWith(self._stock_fit),
            )
        )

    def _stock_fit(self, *args: Any, **kwargs: Any) -> Any:
        self._stock_plan = numa_fit.stock_fit()(*args, **kwargs)
        return self._stock_plan

    def start(self, *, guests: int, compare: bool) -> Verdicts:
        """Watch the next request.

        :param guests: how many guests it asks for; the scheduler filters the
            hosts once for each, and then maybe for alternative hosts, which
            is of no interest
        :param compare: whether to ask stock Nova's filter too
        :returns: what is filled in as the request is filtered
        """
        self._compare = compare
        self._guests = guests
        self._passes = 0
        self._latest = Verdicts()
        return self._latest

    def _watch(self, hosts: list[Any], spec: Any, check: Any) -> Iterator[Any]:
        verdicts = self._latest
        self._passes += 1
        first = self._passes == 1
        if self._compare and first:
            verdicts.stock = {
                host.host: self._stock_verdict(host, spec)
                for host in sorted(hosts, key=lambda host: host.host)
            }
            verdicts.stock_choice = weighing.stock_choice(
                [
                    host
                    for host in hosts
                    if verdicts.stock[host.host].startswith(ACCEPTS)
                ],
                spec,
            )
        self._scores.latest = weighing.Weighed()
        if self._passes <= self._guests:
            verdicts.weighed.append(self._scores.latest)
        accepted = list(check(hosts))
        if first:
            verdicts.offered = [host.host for host in hosts]
            verdicts.accepted = [host.host for host in accepted]
        return iter(accepted)

    def _stock_verdict(self, host_state: Any, spec: Any) -> str:
        """Ask stock Nova's filter, without a trace on its arguments."""
        state = copy.copy(host_state)
        state.limits = dict(host_state.limits)
        state.allocation_candidates = list(host_state.allocation_candidates)
        self._stock_plan = None
        try:
            passes = numa_topology_filter.NUMATopologyFilter().host_passes(
                state, spec.obj_clone()
            )
        except Exception as error:
            return f'fails with {type(error).__name__}'
        if not passes:
            return REJECTS
        return ', but '.join(
            [ACCEPTS, *flaws(self._stock_plan, state.numa_topology)]
        )


def flaws(plan: Any, host: Any) -> list[str]:
    """Return what is wrong with a plan that a fit made.

    :param plan: an ``InstanceNUMATopology`` as a fit returns it, or None
    :param host: the ``NUMATopology`` that it was made for
    :returns: a text for each flaw
    """
    if plan is None or host is None:
        return []
    found = []
    host_cells = {cell.id: cell for cell in host.cells}
    for index, cell in enumerate(plan.cells):
        pins = set((cell.cpu_pinning or {}).values())
        if len(pins) < len(cell.pcpuset):
            found.append(
                f'guest cell {index} gets {len(pins)} of its '
                f'{len(cell.pcpuset)} dedicated CPUs'
            )
        elif cell.id not in host_cells:
            found.append(f'guest cell {index} gets no node')
        elif not pins <= host_cells[cell.id].pcpuset:
            found.append(
                f'guest cell {index} is said to be on node {cell.id} and has '
                'CPUs of another one'
            )
    sizes = {cell.pagesize for cell in plan.cells if cell.pagesize}
    if len(sizes) > 1:
        found.append('its cells get pages of different sizes')
    return found
