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


"""What a scenario file may hold."""

from __future__ import annotations

from typing import Any

MAX_NODES = 16
# As many as there are letters to draw them with.
MAX_GUESTS = 52
PAGE_SIZE = r'^[1-9][0-9]{0,6} ?(KiB|MiB|GiB)$'


def _one_or_each(schema: dict[str, Any]) -> dict[str, Any]:
    """A value for all nodes alike, or a list with one value for each."""
    return {
        'if': {'type': 'array'},
        'then': {'items': schema, 'minItems': 1, 'maxItems': MAX_NODES},
        'else': schema,
    }


def _integer(least: int, most: int) -> dict[str, Any]:
    return {'type': 'integer', 'minimum': least, 'maximum': most}


_NAME = {'type': 'string', 'pattern': r'^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$'}

_PAGES = {
    'type': 'object',
    'propertyNames': {'pattern': PAGE_SIZE},
    'additionalProperties': _one_or_each(_integer(0, 1 << 24)),
}

_HOST = {
    'type': 'object',
    'required': ['nodes', 'cores', 'memory_gib'],
    'additionalProperties': False,
    'properties': {
        'nodes': _integer(1, MAX_NODES),
        'cores': _one_or_each(_integer(1, 128)),
        'threads': _integer(1, 8),
        'shared_cores': _one_or_each(_integer(0, 128)),
        'memory_gib': _one_or_each(_integer(1, 1 << 14)),
        'pages': _PAGES,
        'reserved': _PAGES,
        'sockets': {'type': 'array', 'items': _integer(0, MAX_NODES - 1)},
        'distances': {
            'type': 'array',
            'items': {'type': 'array', 'items': _integer(10, 255)},
        },
        'compute': {'enum': ['ours', 'stock']},
    },
}

_FLAVOR = {
    'type': 'object',
    'required': ['vcpus', 'memory_mib'],
    'additionalProperties': False,
    'properties': {
        'vcpus': _integer(1, 1024),
        'memory_mib': _integer(1, 1 << 24),
        'extra_specs': {
            'type': 'object',
            'additionalProperties': {'type': ['string', 'integer', 'boolean']},
        },
    },
}

_GUEST = {
    'type': 'object',
    'required': ['name', 'flavor'],
    'additionalProperties': False,
    'properties': {
        'name': _NAME,
        'flavor': {'type': 'string'},
        'count': _integer(1, 20),
        'expect': {'enum': ['placed', 'refused']},
        'compare': {'type': 'boolean'},
        'note': {'type': 'string'},
    },
}

SCENARIO: dict[str, Any] = {
    'type': 'object',
    'required': ['hosts', 'flavors', 'guests'],
    'additionalProperties': False,
    'properties': {
        'hosts': {
            'type': 'object',
            'minProperties': 1,
            'maxProperties': 16,
            'propertyNames': _NAME,
            'additionalProperties': _HOST,
        },
        'flavors': {
            'type': 'object',
            'minProperties': 1,
            'additionalProperties': _FLAVOR,
        },
        'guests': {
            'type': 'array',
            'minItems': 1,
            'maxItems': MAX_GUESTS,
            'items': _GUEST,
        },
    },
}
