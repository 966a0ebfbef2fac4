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
            'The maximum distance between any two of the host NUMA nodes that '
            'an instance is placed on. '
            'Hosts on which even the best placement exceeds it are rejected. '
            'Distances are those that the firmware of the host reports, where '
            '10 is the distance of a NUMA node to itself. '
            'Only supported by the NUMAHugepagesFilter.'
        ),
        value={
            'type': int,
            'description': 'The maximum distance.',
            'min': host_stats.MIN_DISTANCE,
            'max': host_stats.MAX_DISTANCE,
        },
    ),
    base.ExtraSpecValidator(
        name=extra_specs.GUEST_DISTANCES,
        description=(
            'Whether to expose the distances between its NUMA nodes to an '
            'instance. '
            'The distances are those of the host NUMA nodes that the instance '
            'starts on. They stay until it is powered off or hard rebooted, '
            'even if it is live migrated. '
            'Only supported by the NUMAHugepagesDriver.'
        ),
        value={
            'type': bool,
            'description': 'Whether to expose the distances.',
        },
    ),
]

alarm_validators = [
    base.ExtraSpecValidator(
        name=extra_specs.ALARM_USED_PERCENT,
        description=(
            'The share of its memory, in percent, above which an instance '
            'raises an alarm, in place of that of the compute host. '
            'Only supported by nova-numa-hugepages monitor.'
        ),
        value={
            'type': int,
            'description': 'The share in percent.',
            'min': 1,
            'max': 100,
        },
    ),
]


elastic_validators = [
    base.ExtraSpecValidator(
        name=extra_specs.ELASTIC_BASE_PERCENT,
        description=(
            'The share of the memory of each of its NUMA nodes, in percent, '
            'that an instance boots with and always has. '
            'The rest, up to the memory of the flavor, is given to it and '
            'taken back by its use, with virtio-mem. '
            'Requires huge pages. '
            'Only supported by the NUMAHugepagesDriver.'
        ),
        value={
            'type': int,
            'description': 'The share in percent.',
            'min': extra_specs.LEAST_BASE_PERCENT,
            'max': 100,
        },
    ),
    base.ExtraSpecValidator(
        name=extra_specs.ELASTIC_BASE_MIB,
        description=(
            'The memory in MiB of each of its NUMA nodes that an instance '
            'boots with and always has, in place of '
            f'``{extra_specs.ELASTIC_BASE_PERCENT}``. '
            'Only supported by the NUMAHugepagesDriver.'
        ),
        value={
            'type': int,
            'description': 'The memory in MiB.',
            'min': 1,
            'max': extra_specs.MOST_MIB,
        },
    ),
]


def register() -> list[base.ExtraSpecValidator]:
    """Return the validators, for Nova's API.

    :returns: one validator for each extra spec of the namespace
    """
    return [*distance_validators, *elastic_validators, *alarm_validators]
