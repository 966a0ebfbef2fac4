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

"""Extra specs of the ``numa_hugepages`` namespace.

Nova's API validates extra specs from microversion 2.86 on. A flavor made with
an older one can carry any text, so values are checked again when they are
read. The names and bounds here are also those of the API's validators, in
:mod:`nova_numa_hugepages.api.extra_specs`.
"""

from collections.abc import Mapping
from typing import Final
from typing import NamedTuple

from oslo_utils import strutils

from nova_numa_hugepages import exception
from nova_numa_hugepages.core import host_stats

MAX_DISTANCE: Final = 'numa_hugepages:max_distance'
GUEST_DISTANCES: Final = 'numa_hugepages:guest_distances'
ALARM_USED_PERCENT: Final = 'numa_hugepages:alarm_used_percent'
ELASTIC_BASE_PERCENT: Final = 'numa_hugepages:elastic_base_percent'
ELASTIC_BASE_MIB: Final = 'numa_hugepages:elastic_base_mib'

LEAST_BASE_PERCENT: Final = 25
MOST_MIB: Final = 1 << 30


class ElasticBase(NamedTuple):
    """What an elastic instance boots with of each of its NUMA nodes.

    :ivar percent: a share of its memory; None if it is an amount
    :ivar mib: an amount in MiB; None if it is a share
    """

    percent: int | None
    mib: int | None

    def of(self, cell_mib: int) -> int:
        """Return what a cell boots with, in MiB, as far as it has so much."""
        if self.percent is not None:
            return -(-cell_mib * self.percent // 100)
        return min(cell_mib, self.mib or 0)


def max_distance(extra_specs: Mapping[str, str]) -> int | None:
    """Return the maximum distance between the host cells of an instance.

    :param extra_specs: the extra specs of a flavor
    :returns: 10 to 255, or None if the flavor sets no limit
    :raises: :class:`nova_numa_hugepages.exception.InvalidExtraSpec` if the
        value is not an integer in that range
    """
    return _integer(
        extra_specs,
        MAX_DISTANCE,
        host_stats.MIN_DISTANCE,
        host_stats.MAX_DISTANCE,
    )


def alarm_used_percent(extra_specs: Mapping[str, str]) -> int | None:
    """Return the share of its memory above which an instance raises an alarm.

    :param extra_specs: the extra specs of a flavor
    :returns: 1 to 100 percent, or None for that of the host
    :raises: :class:`nova_numa_hugepages.exception.InvalidExtraSpec` if the
        value is not an integer in that range
    """
    return _integer(extra_specs, ALARM_USED_PERCENT, 1, 100)


def elastic_base(extra_specs: Mapping[str, str]) -> ElasticBase | None:
    """Return what an elastic instance boots with of each of its NUMA nodes.

    :param extra_specs: the extra specs of a flavor
    :returns: None if its memory isn't elastic
    :raises: :class:`nova_numa_hugepages.exception.InvalidExtraSpec` if a value
        is not an integer in its range, or both are set
    """
    percent = _integer(
        extra_specs, ELASTIC_BASE_PERCENT, LEAST_BASE_PERCENT, 100
    )
    mib = _integer(extra_specs, ELASTIC_BASE_MIB, 1, MOST_MIB)
    if percent is None and mib is None:
        return None
    if percent is not None and mib is not None:
        raise exception.InvalidExtraSpec(
            ELASTIC_BASE_MIB,
            extra_specs[ELASTIC_BASE_MIB],
            f'none, as {ELASTIC_BASE_PERCENT} is set, too',
        )
    return ElasticBase(percent, mib)


def _integer(
    extra_specs: Mapping[str, str], name: str, least: int, most: int
) -> int | None:
    value = extra_specs.get(name)
    if value is None:
        return None
    # As Nova's API reads an integer.
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise exception.InvalidExtraSpec(
            name, value, f'an integer from {least} to {most}'
        )
    return number


def guest_distances(extra_specs: Mapping[str, str]) -> bool:
    """Return whether an instance gets the distances between its NUMA nodes.

    :param extra_specs: the extra specs of a flavor
    :raises: :class:`nova_numa_hugepages.exception.InvalidExtraSpec` if the
        value is not a boolean
    """
    value = extra_specs.get(GUEST_DISTANCES)
    if value is None:
        return False
    # As Nova's API reads a boolean.
    try:
        answer: bool = strutils.bool_from_string(value, strict=True)
    except ValueError as error:
        raise exception.InvalidExtraSpec(
            GUEST_DISTANCES, value, "'true' or 'false'"
        ) from error
    return answer
