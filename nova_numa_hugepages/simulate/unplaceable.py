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

import dataclasses

from nova_numa_hugepages.scheduler import host_check
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import scenario


def unplaceable(play: scenario.Scenario) -> dict[str, str]:
    """Find the flavors that our filter rejects on each empty host.

    :returns: the reasons by the name of the flavor
    """
    reader = host_check.StatsReader()
    empty = list(
        fleet.hosts(
            tuple(dataclasses.replace(kind, count=1) for kind in play.hosts)
        )
    )
    found = {}
    for flavor in play.flavors:
        spec = fleet.request(fleet.nova_flavor(flavor))
        check = host_check.HostCheck(spec, reader)
        rejections = []
        for host in empty:
            host.allocation_candidates = [{'mappings': {}}]
            rejections.append(check.check(host))
        if all(rejection is not None for rejection in rejections):
            found[flavor.name] = '; '.join(
                f'{kind.name}: {rejection}'
                for kind, rejection in zip(play.hosts, rejections, strict=True)
            )
    return found
