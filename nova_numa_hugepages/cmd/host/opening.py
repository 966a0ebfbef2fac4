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

"""The ledger and the pools of this host, opened by a command."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import datetime
import os
import pathlib
import sys
from typing import TYPE_CHECKING

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host.inspect import libvirt_domains
from nova_numa_hugepages.cmd.host.settings import Settings
from nova_numa_hugepages.hugepages import assembly
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import virsh
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state.ledger import Ledger

# Loaded late by what needs it, as it takes time.
if TYPE_CHECKING:
    from nova_numa_hugepages.hugepages.pools import Pools


def _stats(uri: str) -> Mapping[str, Mapping[str, str]]:
    return virsh.Virsh(uri).stats()


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """The machine that the commands run on.

    :ivar fs: the files of its kernel
    :ivar writer: writes to the files of a kernel
    :ivar read_maps: makes a reader of where the memory of processes is
    :ivar domains: lists the domains of libvirt
    :ivar stats: gets statistics of the domains of libvirt, by its URI
    :ivar lock_timeout_s: how long to wait for others at work on the pools
    """

    fs: hostfs.HostFS = dataclasses.field(default_factory=hostfs.HostFS)
    writer: hugetlb.Writer = hugetlb.write_number
    read_maps: Callable[[hostfs.HostFS], processes.MapsReader] = (
        processes.MapsFile
    )
    domains: Callable[..., frozenset[str]] = libvirt_domains.defined
    stats: Callable[[str], Mapping[str, Mapping[str, str]]] = _stats
    lock_timeout_s: float = 60.0


@contextlib.contextmanager
def opened(
    machine: Machine,
    fs: hostfs.HostFS,
    settings: Settings,
    *,
    to_change: bool = True,
) -> Iterator[Pools]:
    """Open the pools of this host with its ledger.

    :param fs: the files of the kernel, on this machine or mounted there
    :param to_change: whether anything may be changed
    :raises errors.Refused: if this user may not do that
    :raises exception.LedgerError: if there is no ledger, or it cannot be used
    """
    writer = (
        machine.writer if to_change else hugetlb.refusing('this only reads')
    )
    kernel = assembly.KernelAccess(fs, writer, machine.read_maps(fs))
    read_only = kernel.read_only_reason()
    pools = hugetlb.Hugetlb(fs, kernel.writer).pools()
    if to_change and read_only is None:
        _check_writable(fs, pools)
    elif to_change:
        print(f'The pools stay as they are: {read_only}', file=sys.stderr)
    if forbidden(settings.ledger, to_change=to_change):
        raise errors.Refused(
            f'this user may not {"change" if to_change else "read"} the '
            f'ledger {settings.ledger}. Run it as root, or as the user of '
            'the service.'
        )
    for note in reserved_notes(fs, settings.policy, pools):
        print(note, file=sys.stderr)
    with Ledger.open(
        settings.ledger, create=False, read_only=not to_change
    ) as ledger:
        check_times(ledger)
        yield assembly.open_pools(
            kernel,
            ledger,
            settings.policy,
            read_only=read_only,
            lock_timeout_s=machine.lock_timeout_s,
            waiting=lambda holder: print(
                f'Waiting up to {machine.lock_timeout_s:g} s for {holder}, '
                'which is at work on the pools …',
                file=sys.stderr,
                flush=True,
            ),
        )


def service(settings: Settings) -> str | None:
    """Describe the ``nova-compute`` that may work with the pools.

    :returns: None if none runs
    :raises lock.LockError: if the lock file of the service cannot be read
    """
    from nova_numa_hugepages.hugepages.state import service_lock

    for ledger in (settings.ledger, *settings.configured):
        process = service_lock.holder(ledger.parent)
        if process is not None:
            return f'nova-compute runs, as {process}'
    # An older one runs without the file.
    path = settings.ledger.parent / service_lock.NAME
    if not path.exists():
        return (
            'it is not known whether nova-compute runs, as it has not made '
            f'its lock file {path}'
        )
    return None


def forbidden(path: pathlib.Path, *, to_change: bool = False) -> bool:
    """Check whether there is a ledger that this user may not use."""
    try:
        path.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK | (os.W_OK if to_change else 0))


def check_times(ledger: Ledger) -> None:
    """Check that the times in the ledger can be shown.

    :raises exception.LedgerDamaged: if one of them cannot
    """
    for hold in ledger.holds():
        try:
            when(hold.since)
        except (OSError, OverflowError, ValueError) as error:
            raise exception.LedgerDamaged(
                ledger.path,
                'has an invalid row in holds: holder '
                f'{hold.holder!r}, since {hold.since!r} ({error})',
            ) from error


def when(since: float) -> datetime.datetime:
    """Convert seconds since the epoch to the host's local time."""
    return datetime.datetime.fromtimestamp(since).astimezone()


def reserved_notes(
    fs: hostfs.HostFS, policy: PoolPolicy, pools: Collection[model.PoolKey]
) -> list[str]:
    """Write a sentence for each reserved pool that the host does not have.

    Nova takes small pages there, too, which are in no pool.

    :param fs: the files of its kernel
    """
    present = ', '.join(map(str, sorted(pools))) or 'none'
    nodes = {key.node for key in pools}
    return [
        f'reserved_huge_pages names {key}, which this host does not have; its '
        f'pools are: {present}.'
        for key in sorted(policy.reserved)
        if key not in pools
        and not (
            key.node in nodes and key.size_kib == fragmentation.base_kib(fs)
        )
    ]


def _check_writable(
    fs: hostfs.HostFS, pools: Collection[model.PoolKey]
) -> None:
    """Check before anything is changed that the pools can be written."""
    for key in pools:
        path = fs.pool_folder(key) / 'nr_hugepages'
        if not os.access(path, os.W_OK):
            raise errors.Refused(
                f'this user may not write {path}, nor change what is held '
                'for instances. Run it as root.'
            )
