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

"""What a scenario file of a simulation may hold."""

from __future__ import annotations

from typing import Any

from nova_numa_hugepages.yamlfile import flavor_format
from nova_numa_hugepages.yamlfile import host_format
from nova_numa_hugepages.yamlfile import shape

MAX_HOSTS = 20_000
MAX_ARRIVALS = 1_000_000
MAX_SEEDS = 1000

# Clouds that are read, and not made up, may have large hosts.
_MAX_NODES = 64
_MAX_CORES = 1024

_NAME_PATTERN = r'^[^\x00-\x1f\x7f-\x9f]{1,300}\Z'
_NAME = {'type': 'string', 'pattern': _NAME_PATTERN}

# The patterns of the schema, in words.
PATTERNS = {
    _NAME_PATTERN: 'up to 300 characters that can be printed',
    **host_format.PATTERNS,
}


def _of_nodes(schema: dict[str, Any]) -> dict[str, Any]:
    return shape.one_or_list(schema, schema, _MAX_NODES)


_HOST = {
    'type': 'object',
    # Its memory is in one of two units.
    'required': [key for key in host_format.REQUIRED if key != 'memory_gib'],
    'additionalProperties': False,
    'properties': {
        'count': shape.integer(1, MAX_HOSTS),
        **host_format.properties(nodes=_MAX_NODES, cores=_MAX_CORES),
        'threads': _of_nodes(shape.integer(1, 8)),
        'memory_mib': _of_nodes(shape.integer(1, 1 << 24)),
        'cpu_allocation_ratio': shape.positive(1000),
        'ram_allocation_ratio': shape.positive(1000),
    },
}

_FLAVOR = {
    'type': 'object',
    'required': list(flavor_format.REQUIRED),
    'additionalProperties': False,
    'properties': {
        **flavor_format.properties(),
        'share': shape.positive(1_000_000_000),
    },
}

_ARRIVALS = {
    'type': 'object',
    'required': ['count'],
    'additionalProperties': False,
    'properties': {
        'count': shape.integer(1, MAX_ARRIVALS),
        'per_hour': shape.positive(1_000_000_000),
        'build_time': shape.integer(0, 1_000_000_000),
        'mean_lifetime': shape.positive(1_000_000_000),
        'warm_up': shape.integer(0, MAX_ARRIVALS),
        'seeds': shape.one_or_list(
            shape.integer(1, MAX_SEEDS),
            shape.integer(0, (1 << 32) - 1),
            MAX_SEEDS,
        ),
    },
}

SCENARIO: dict[str, Any] = {
    'type': 'object',
    'required': ['hosts', 'flavors'],
    'additionalProperties': False,
    'properties': {
        'hosts': {
            'type': 'object',
            'minProperties': 1,
            'propertyNames': _NAME,
            'additionalProperties': _HOST,
        },
        'flavors': {
            'type': 'object',
            'minProperties': 1,
            'propertyNames': _NAME,
            'additionalProperties': _FLAVOR,
        },
        'arrivals': _ARRIVALS,
        'trace': _NAME,
    },
}
