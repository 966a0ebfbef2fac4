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

from nova_numa_hugepages.yamlfile import flavor_format
from nova_numa_hugepages.yamlfile import host_format
from nova_numa_hugepages.yamlfile import shape

# As many as there are letters to draw them with.
MAX_GUESTS = 52

_NAME_PATTERN = r'^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$'
_NAME = {'type': 'string', 'pattern': _NAME_PATTERN}

# The patterns of the schema, in words.
PATTERNS = {
    _NAME_PATTERN: 'up to 40 letters, digits, dots, dashes and underscores',
    **host_format.PATTERNS,
}

_HOST = {
    'type': 'object',
    'required': list(host_format.REQUIRED),
    'additionalProperties': False,
    'properties': host_format.properties(),
}

_FLAVOR = {
    'type': 'object',
    'required': list(flavor_format.REQUIRED),
    'additionalProperties': False,
    'properties': flavor_format.properties(),
}

_GUEST = {
    'type': 'object',
    'required': ['name', 'flavor'],
    'additionalProperties': False,
    'properties': {
        'name': _NAME,
        'flavor': {'type': 'string'},
        'count': shape.integer(1, 20),
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
