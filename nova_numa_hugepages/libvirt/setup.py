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

"""Set-up of the huge page manager of a compute service."""

from __future__ import annotations

import contextlib
import pathlib

from nova.virt import hardware
from oslo_config import cfg
from oslo_log import log as logging

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import policy
from nova_numa_hugepages.hugepages.assembly import KernelAccess
from nova_numa_hugepages.hugepages.assembly import open_pools
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import privsep
from nova_numa_hugepages.hugepages.manager import HugePageManager
from nova_numa_hugepages.hugepages.state import service_lock
from nova_numa_hugepages.hugepages.state import sqlite
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME
from nova_numa_hugepages.hugepages.state.ledger import Ledger

LOG = logging.getLogger(__name__)


def kernel_access() -> KernelAccess:
    """Return access to the kernel of this host, through the helper."""
    return KernelAccess(
        hostfs.HostFS(),
        privsep.write_number,
        privsep.numa_maps,
        privsep.check,
        privsep.pod_promises,
    )


def open_manager(
    conf: cfg.ConfigOpts, kernel: KernelAccess, cleanup: contextlib.ExitStack
) -> HugePageManager | None:
    """Open the ledger and return the manager of this host's huge pages.

    What this host can't do is logged.

    :param cleanup: gets what has to be done when the service stops
    :returns: None if the kernel has no huge pages
    :raises exception.LedgerError: if the ledger can't be used
    :raises lock.LockError: if another service uses this ledger, or a lock file
        can't be used
    """
    nodes_folder = kernel.fs.nodes_folder
    huge_pages = hugetlb.Hugetlb(kernel.fs, kernel.writer)
    if not nodes_folder.is_dir() or not huge_pages.nodes():
        LOG.warning(
            'No huge page support found; NUMAHugepagesDriver will not manage '
            'pools: no NUMA node has huge pages in %s. If the hardware '
            'supports them, add hugepagesz= to the kernel command line.',
            nodes_folder,
        )
        return None
    reserved = {
        model.PoolKey(node, int(size_kib)): count
        for node, counts in hardware.numa_get_reserved_huge_pages().items()
        for size_kib, count in counts.items()
    }
    path = pathlib.Path(conf.state_path, FILE_NAME)
    sqlite.check_folder(path)
    service_lock.hold(path.parent)
    cleanup.callback(service_lock.release, path.parent)
    ledger = cleanup.enter_context(Ledger.open(path))
    pools = open_pools(
        kernel, ledger, policy.read(conf.numa_hugepages, reserved)
    )
    reason = kernel.read_only_reason()
    if reason is not None:
        pools.make_read_only(reason)
    return HugePageManager(pools)
