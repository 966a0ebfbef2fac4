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

"""The order in which host cells are preferred, which is Nova's.

Nova sorts the host cells of `numa_fit_instance_to_host` several times, each
sort keeping the order of the one before among equals. That is one sort by a
tuple of keys, the last sort's key first.
"""

from __future__ import annotations

from collections.abc import Sequence

from nova_numa_hugepages.core import model


def preferred(
    request: model.Request,
    cells: tuple[model.HostCell, ...],
    free: Sequence[int],
    *,
    pack: bool,
    devices: model.Devices | None,
) -> list[int]:
    """Order host cells by preference.

    The keys, from the first to the last:

    1. free PCI devices, if the host reports any: most first when the guest
       asks for devices, else fewest first
    2. for dedicated CPUs, the free ones: most first; for shared CPUs, the
       vCPUs in use: fewest first; the other way round to pack
    3. free memory: most first; least first to pack
    4. the host's own order

    A guest with as many cells as the host takes all of them, in the host's
    own order.

    :param free: the free dedicated CPUs of each host cell
    :returns: indices into ``cells``
    """
    indices = list(range(len(cells)))
    if len(cells) == len(request.cells):
        return indices
    shared = request.cells[0].cpu_policy is model.CPUPolicy.SHARED
    sign = 1 if pack else -1
    wanted = -1 if request.asks_devices else 1
    keys = [
        (
            wanted * devices.count(cell.id) if devices else 0,
            -sign * cell.shared_used if shared else sign * free[index],
            sign * (cell.memory_mib - cell.memory_used_mib),
        )
        for index, cell in enumerate(cells)
    ]
    indices.sort(key=keys.__getitem__)
    return indices
