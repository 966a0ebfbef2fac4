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

"""Nova's own validation of a flavor.

This imports Nova, which takes seconds: import it only when there is a flavor
to check.
"""

from __future__ import annotations

import dataclasses
import re

from nova import exception as nova_exception
from nova import objects
from nova.api.validation.extra_specs import validators

from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import scenario

# The prefix of the messages of the API's validators.
_FAILED = 'Validation failed; '

# Nova writes out lists of CPUs such as 0-3, however long they are. No flavor
# has so many vCPUs.
_CPU_LISTS = ('hw:numa_cpus.', 'hw:cpu_dedicated_mask', 'hw:cpu_realtime_mask')
_TOO_MANY_CPUS = re.compile(r'[0-9]{5}')


def problems(flavor: scenario.Flavor) -> list[tuple[str | None, str]]:
    """Find what Nova refuses of a flavor.

    First each extra spec is given to the validators of Nova's API, with all
    that are installed; then, if these take them, all together to what the
    scheduler makes of them for a guest whose image asks for nothing.

    :returns: (extra spec or None, why Nova refuses it); None if the
        extra spec is not known
    """
    objects.register_all()
    found: list[tuple[str | None, str]] = []
    for name, value in flavor.extra_specs.items():
        try:
            validators.validate(name, value)
        except nova_exception.ValidationError as error:
            found.append((name, str(error).removeprefix(_FAILED)))
            continue
        if name.startswith(_CPU_LISTS) and _TOO_MANY_CPUS.search(value):
            found.append((name, 'a CPU has a number of up to four digits.'))
    if found:
        return found
    refusal = _refusal(flavor)
    if refusal is None:
        return []
    # Nova does not name the extra spec: it is one without which there is no
    # refusal.
    for name in reversed(list(flavor.extra_specs)):
        rest = dict(flavor.extra_specs)
        del rest[name]
        if _refusal(dataclasses.replace(flavor, extra_specs=rest)) is None:
            return [(name, refusal)]
    return [(None, refusal)]


def _refusal(flavor: scenario.Flavor) -> str | None:
    try:
        fleet.request(fleet.nova_flavor(flavor))
    except nova_exception.NovaException as error:
        return str(error)
    except Exception as error:
        # Nova does not expect every text that its validators let through.
        return f'{type(error).__name__}: {error}'
    return None
