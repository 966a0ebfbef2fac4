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


"""The costs of hosts by our weigher, and the choice of stock Nova."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import fixtures
from nova.scheduler import weights as stock_weights

from nova_numa_hugepages.scheduler import score
from nova_numa_hugepages.scheduler import weights
from tests.fixtures import cloud as embedded


@dataclasses.dataclass
class Weighed:
    """The costs of a guest.

    :ivar scores: by host; empty if there was nothing to choose from
    :ivar floats: whether the guest asks for no cells, pages or CPUs, so that
        the scores are what hosts hold
    """

    scores: dict[str, score.Score] = dataclasses.field(default_factory=dict)
    floats: bool = False


class ScoresFixture(fixtures.Fixture):
    """Watch our weigher.

    :ivar latest: filled in as it weighs the hosts of a guest; replace it
        before the next one
    """

    def __init__(self) -> None:
        self.latest = Weighed()

    def _setUp(self) -> None:
        watch = self
        weigh = weights.NUMAHugepagesWeigher.weigh_objects
        original = score.Scorer.score

        def weigh_objects(self: Any, hosts: Any, spec: Any) -> list[float]:
            watch.latest.scores.clear()
            watch.latest.floats = not spec.numa_topology
            return weigh(self, hosts, spec)

        def score_host(
            self: score.Scorer, host: Any
        ) -> score.ScoredHost | None:
            scored = original(self, host)
            if scored is not None and scored.score is not None:
                watch.latest.scores[host.host] = scored.score
            return scored

        for target, value in (
            (
                f'{weights.__name__}.NUMAHugepagesWeigher.weigh_objects',
                weigh_objects,
            ),
            (f'{score.__name__}.Scorer.score', score_host),
        ):
            self.useFixture(fixtures.MonkeyPatch(target, value))


def stock_choice(hosts: Sequence[Any], spec: Any) -> str | None:
    """Return which of these hosts the weighers of stock Nova would take.

    :returns: its name, None if there is no host
    """
    handler = stock_weights.HostWeightHandler()
    weighers = [
        weigher()
        for weigher in handler.get_matching_classes([embedded.STOCK_WEIGHERS])
    ]
    weighed = handler.get_weighed_objects(weighers, list(hosts), spec)
    return weighed[0].obj.host if weighed else None
