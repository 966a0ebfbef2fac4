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

"""Pages that the operator reserves, compared with the pools there are."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping

from nova_numa_hugepages.hugepages import model


def notes(
    reserved: Mapping[model.PoolKey, int], pools: Collection[model.PoolKey]
) -> list[str]:
    """Say what ``reserved_huge_pages`` names that this host doesn't have.

    :param pools: those of the host
    """
    having = sorted({key.node for key in pools})
    found = []
    for key in sorted(reserved):
        if key in pools:
            continue
        start = f'reserved_huge_pages names {key}, and this host has '
        if key.node not in having:
            found.append(
                f'{start}huge pages on node '
                f'{", ".join(map(str, having)) or "none"} only.'
            )
        else:
            sizes = sorted(one.size_kib for one in pools if one[0] == key.node)
            found.append(
                f'{start}pages of {", ".join(map(str, sizes))} KiB there.'
            )
    return found
