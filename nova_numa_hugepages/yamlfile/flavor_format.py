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

"""The description of a flavor: vCPUs, memory and extra specs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nova_numa_hugepages.yamlfile import shape

REQUIRED = ('vcpus', 'memory_mib')


def properties() -> dict[str, Any]:
    """Make the schemas of what describes a flavor, by key."""
    return {
        'vcpus': shape.integer(1, 1024),
        'memory_mib': shape.integer(1, 1 << 24),
        'extra_specs': {
            'type': 'object',
            'additionalProperties': {'type': ['string', 'integer', 'boolean']},
        },
    }


def extra_specs(flavor: Mapping[str, Any]) -> dict[str, str]:
    """Read the extra specs as Nova has them, which knows text only.

    :param flavor: the mapping that describes the flavor
    """
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in flavor.get('extra_specs', {}).items()
    }
