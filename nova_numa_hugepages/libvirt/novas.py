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

"""Where the releases of Nova differ for the driver.

What a release does is found by looking at it. The numbers in comments only
tell which release that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nova.pci import stats as pci_stats


def claim_devices(
    virtapi: Any,
) -> Callable[[], pci_stats.PciDeviceStats | None]:
    """Tell where the host's PCI devices are found for a claim.

    The scheduler keeps a guest that asks for no device away from host cells
    that have some. Up to Nova 33 the claim doesn't pass the devices for such
    a guest, and would come to another plan.

    :param virtapi: what the compute service gave to the driver
    :returns: a function whose value is None before the service knows them
    """

    def devices() -> pci_stats.PciDeviceStats | None:
        service = getattr(virtapi, '_compute', None)
        tracker = getattr(service, 'rt', None)
        known = getattr(tracker, 'pci_tracker', None)
        return None if known is None else known.stats

    return devices
