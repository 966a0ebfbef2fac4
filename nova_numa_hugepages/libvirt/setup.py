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

"""Where a compute service has its pools, its ledger and its privileges."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import pathlib

from nova.virt import hardware
from oslo_config import cfg
from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import manager
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import policy
from nova_numa_hugepages.hugepages import pools
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import privsep
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.state import lock
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME
from nova_numa_hugepages.hugepages.state.ledger import Ledger

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How the kernel is reached.

    :ivar fs: where its files are
    :ivar writer: changes pools
    :ivar read_maps: reads where the memory of a process is
    :ivar check: sees that these two have what they need for it; raises
        `exception.PoolsReadOnly` if they don't
    """

    fs: hostfs.HostFS
    writer: hugetlb.Writer
    read_maps: processes.MapsReader
    check: Callable[[], None]


def host() -> Access:
    """Reach the kernel of this host, with privileges of their own."""
    return Access(
        hostfs.HostFS(),
        privsep.PrivsepWriter(),
        privsep.numa_maps,
        privsep.check,
    )


def keeper(
    conf: cfg.ConfigOpts, access: Access
) -> manager.HugePageManager | None:
    """Open the ledger, and take care of the pools.

    What can't be done on this host is told in the log.

    :param conf: the configuration of the service
    :returns: None if the kernel has no huge pages
    :raises exception.LedgerError: if the ledger can't be used
    """
    fs = access.fs
    writer = access.writer
    if not fs.nodes_folder.is_dir() or not hugetlb.Hugetlb(fs, writer).nodes():
        LOG.warning(
            'The kernel of this host has no huge pages, or tells of no NUMA '
            'nodes, so none are held for '
            'guests. Where the hardware has them, hugepagesz= on the kernel '
            'command line makes them known.'
        )
        return None
    reason = _why_read_only(access)
    if reason is not None:
        LOG.warning(manager.READ_ONLY, reason)
        writer = hugetlb.RefusingWriter(reason)
    reserved = {
        model.PoolKey(node, int(size_kib)): count
        for node, counts in hardware.numa_get_reserved_huge_pages().items()
        for size_kib, count in counts.items()
    }
    allowed = policy.read(conf.numa_hugepages, reserved)
    if reason is not None:
        # Nor is the scheduler told of pages that could be made.
        allowed = dataclasses.replace(allowed, dynamic=False)
    folder = pathlib.Path(conf.state_path)
    return manager.HugePageManager(
        pools.Pools(
            hugetlb.Hugetlb(fs, writer),
            Ledger.open(folder / FILE_NAME),
            fs,
            allowed,
            lock=lock.HostLock(folder),
            read_maps=access.read_maps,
            writable=reason is None,
        )
    )


def _why_read_only(access: Access) -> str | None:
    """Tell why pools can't be changed, None if they can."""
    reason = hugetlb.read_only_reason(access.fs)
    if reason is None:
        try:
            access.check()
        except exception.PoolsReadOnly as error:
            reason = error.reason
    return reason
