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

"""What metrics, alarms and the history say what a number is of."""

from __future__ import annotations

from typing import NamedTuple

from nova_numa_hugepages.core import units
from nova_numa_hugepages.hugepages import model


class Subject(NamedTuple):
    """What something is about; empty where it doesn't matter.

    :ivar resource: the uuid of an instance
    :ivar node: the number of a NUMA node
    :ivar page_size: for example ``2MiB``
    """

    resource: str = ''
    node: str = ''
    page_size: str = ''


def page_size(size_kib: int) -> str:
    """Write a page size as a label has it, for example ``2MiB``."""
    return units.format_kib(size_kib).replace(' ', '')


def of_pool(key: model.PoolKey, resource: str = '') -> Subject:
    """Return the subject of a pool."""
    return Subject(resource, str(key.node), page_size(key.size_kib))
