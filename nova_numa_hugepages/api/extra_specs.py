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


"""Validators for ``numa_hugepages`` namespaced extra specs.

Nova's API finds this module through the ``nova.api.extra_spec_validators``
entry point.
"""

from nova.api.validation.extra_specs import base

from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.core import host_stats

distance_validators = [
    base.ExtraSpecValidator(
        name=extra_specs.MAX_DISTANCE,
        description=(
            'The largest distance between any two of the host NUMA nodes that '
            'a guest is placed on. '
            'Hosts on which even the best placement has two nodes farther '
            'apart are rejected. '
            'Distances are those that the firmware of the host reports, where '
            '10 is a node to itself. '
            'Only supported by the NUMAHugepagesFilter.'
        ),
        value={
            'type': int,
            'description': 'The largest distance allowed.',
            'min': host_stats.MIN_DISTANCE,
            'max': host_stats.MAX_DISTANCE,
        },
    ),
    base.ExtraSpecValidator(
        name=extra_specs.GUEST_DISTANCES,
        description=(
            'Whether the guest is told how far its NUMA nodes are from each '
            'other. '
            'The distances are those of the host NUMA nodes that the guest '
            'starts on, and stay until it is powered off or rebooted hard, '
            'even if it is live migrated. '
            'Only supported by the NUMAHugepagesDriver.'
        ),
        value={
            'type': bool,
            'description': 'Whether to tell the guest the distances.',
        },
    ),
]


def register() -> list[base.ExtraSpecValidator]:
    """List the validators, for Nova's API.

    :returns: one validator for each extra spec of the namespace
    """
    return list(distance_validators)
