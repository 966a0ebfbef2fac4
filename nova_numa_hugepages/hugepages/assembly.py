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

"""Composition of the parts that look after the huge pages of a host.

The service and the host commands put them together here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import TYPE_CHECKING

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import pods
from nova_numa_hugepages.hugepages import snapshot
from nova_numa_hugepages.hugepages.accounts import Accounts
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import kubelet
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from nova_numa_hugepages.hugepages.usage import UsageReader

# Loaded late: a command that only reads starts without the libraries of these.
if TYPE_CHECKING:
    from nova_numa_hugepages.hugepages.pools import Pools


@dataclasses.dataclass(frozen=True, slots=True)
class KernelAccess:
    """The means to read and change the huge pages of a kernel.

    :ivar fs: the files of the kernel
    :ivar writer: writes to them
    :ivar read_maps: reads where the memory of a process is
    :ivar check: checks the privileges that these two need; raises
        `exception.PoolsReadOnly` if they are missing
    :ivar read_pods: reads what a kubelet promised to pods
    """

    fs: hostfs.HostFS
    writer: hugetlb.Writer
    read_maps: processes.MapsReader
    check: Callable[[], None] = lambda: None
    read_pods: pods.PromisesReader = kubelet.promised

    def read_only_reason(self) -> str | None:
        """Return why pools can't be changed, None if they can.

        :raises exception.KernelError: if the nodes can't be read
        """
        reason = hugetlb.read_only_reason(self.fs)
        if reason is None:
            try:
                self.check()
            except exception.PoolsReadOnly as error:
                reason = error.reason
        return reason


def open_pools(
    kernel: KernelAccess,
    ledger: Ledger,
    policy: PoolPolicy,
    *,
    read_only: str | None = None,
    lock_timeout_s: float | None = None,
    waiting: Callable[[str], None] | None = None,
) -> Pools:
    """Make the pools of a host.

    :param read_only: why the pools can't be changed here, None if they can
    :param lock_timeout_s: how long to wait for the lock, in seconds; as long
        as the service does if None
    :param waiting: called with the process that has the lock, if it is waited
        for
    """
    from nova_numa_hugepages.hugepages.pools import Pools
    from nova_numa_hugepages.hugepages.state import lock

    return Pools(
        hugetlb.Hugetlb(kernel.fs, kernel.writer),
        ledger,
        policy,
        lock=lock.HostLock(
            ledger.path.parent,
            timeout_s=(
                lock.TIMEOUT_S if lock_timeout_s is None else lock_timeout_s
            ),
            waiting=waiting,
        ),
        read_maps=kernel.read_maps,
        pod_pages=pods.PodPages(kernel.fs, kernel.read_pods),
        read_only=read_only,
    )


def take_snapshot(
    kernel: KernelAccess,
    ledger: Ledger,
    policy: PoolPolicy,
    pod_pages: pods.PodPages | None = None,
) -> snapshot.HostSnapshot:
    """Take a snapshot of a host, as `Pools.snapshot` does.

    :param pod_pages: the pages of pods; as `kernel` reads them if None
    """
    hugepages = hugetlb.Hugetlb(kernel.fs, kernel.writer)
    accounts = Accounts(hugepages, ledger)
    return snapshot.take(
        kernel.fs,
        policy,
        UsageReader(
            hugepages,
            kernel.read_maps,
            accounts,
            ledger,
            policy.reserved,
            pod_pages or pods.PodPages(kernel.fs, kernel.read_pods),
            policy.lend_ratio,
        ),
        ledger.holds(),
        can_grow=policy.dynamic,
        ready=ledger.ready(),
        waits=ledger.waits(),
    )
