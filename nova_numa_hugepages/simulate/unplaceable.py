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

"""Flavors that fit on no host of a fleet, not even on an empty one."""

from __future__ import annotations

from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.core import host_stats
from nova_numa_hugepages.core import model
from nova_numa_hugepages.core.fit import fitter
from nova_numa_hugepages.core.rejection import Reason
from nova_numa_hugepages.core.rejection import Rejection
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.nova_fit import translate
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import scenario


def unplaceable(play: scenario.Scenario) -> dict[str, str]:
    """Find the flavors that fit on no empty host.

    :returns: the reasons by the name of the flavor
    """
    found = {}
    for flavor in play.flavors:
        rejections = [_rejection(flavor, kind) for kind in play.hosts]
        known = [each for each in rejections if each is not None]
        if len(known) == len(rejections):
            found[flavor.name] = '; '.join(
                dict.fromkeys(
                    f'{kind.name}: {rejection}'
                    for kind, rejection in zip(play.hosts, known, strict=True)
                )
            )
    return found


def _rejection(
    flavor: scenario.Flavor, kind: scenario.HostType
) -> Rejection | None:
    topology = fleet.request(fleet.nova_flavor(flavor)).numa_topology
    if topology is None:
        # It asks for no cell, and is placed by the memory of the whole host.
        return None
    stats = host_stats.HostStats(
        distances=dict(enumerate((kind.runs_us and kind.distances) or ()))
    )
    plan = fitter.fit(
        translate.request(topology),
        translate.host_topology(fleet.host_topology(kind), stats),
        limits=model.Limits(kind.cpu_ratio, kind.ram_ratio),
        strategy=numa_fit.strategy(),
    )
    if isinstance(plan, Rejection):
        return plan
    limit = extra_specs.max_distance(flavor.extra_specs)
    if limit is not None and plan.farthest > limit:
        return Rejection(Reason.DISTANCE, needed=limit, best=plan.farthest)
    return None
