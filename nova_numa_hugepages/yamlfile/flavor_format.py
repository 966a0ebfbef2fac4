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

"""Descriptions of flavors: vCPUs, memory and extra specs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nova_numa_hugepages.yamlfile import validation


def schema(**more: Any) -> dict[str, Any]:
    """Return the JSON schema of a flavor.

    :param more: the schemas of further keys
    """
    return validation.mapping(
        {
            'vcpus': validation.integer(1, 1024),
            'memory_mib': validation.integer(1, 1 << 24),
            'extra_specs': {
                'type': 'object',
                'propertyNames': {'type': 'string'},
                'additionalProperties': {
                    'type': ['string', 'integer', 'boolean']
                },
            },
            **more,
        },
        required=('vcpus', 'memory_mib'),
    )


def extra_specs(flavor: Mapping[str, Any]) -> dict[str, str]:
    """Return the extra specs of a description as text, as Nova has them."""
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in flavor.get('extra_specs', {}).items()
    }
