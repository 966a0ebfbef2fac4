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

"""The state of a host, as far as this user may see it."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import pathlib

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import opening
from nova_numa_hugepages.cmd.host.inspect import host_root
from nova_numa_hugepages.cmd.host.settings import Settings
from nova_numa_hugepages.hugepages import assembly
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.snapshot import HostSnapshot
from nova_numa_hugepages.hugepages.state.ledger import Ledger

_Counts = Mapping[model.PoolKey, int]


@dataclasses.dataclass(frozen=True, slots=True)
class HostInspection:
    """A host, as this user sees it.

    :ivar snapshot: its nodes, pools and guests; reservations and accounts in
        it mean nothing without a ledger
    :ivar ledger: the ledger that was read, None if none was
    :ivar in_place: the pages that each running guest has, by uuid and pool;
        None where this user may not see them
    :ivar others: who else uses pages, by pool
    :ivar processes_known: whether all processes of the host are seen;
        otherwise guests, what they have, and others are not known
    :ivar notes: sentences about what could not be seen
    """

    snapshot: HostSnapshot
    ledger: pathlib.Path | None
    in_place: Mapping[str, _Counts | None]
    others: Mapping[model.PoolKey, Mapping[str, int]]
    processes_known: bool = True
    notes: tuple[str, ...] = ()


def inspect(
    machine: opening.Machine, root: pathlib.Path | None, settings: Settings
) -> HostInspection:
    """Inspect a host; changes nothing.

    :param root: the value of `--root`
    :raises exception.KernelError: if a file of the kernel cannot be read
    """
    fs = host_root.host_fs(root, machine.fs)
    notes = list(settings.notes)
    kernel = assembly.KernelAccess(
        fs,
        hugetlb.refusing('this only reads'),
        functools.cache(machine.read_maps(fs)),
    )
    ledger, path = _open(settings.ledger, notes)
    with ledger:
        snapshot = assembly.take_snapshot(kernel, ledger, settings.policy)
    in_place = {
        uuid: _in_place(kernel, process)
        for uuid, process in snapshot.guests.items()
    }
    processes_known = True
    try:
        host_root.check_processes(fs)
    except errors.BadInput as error:
        processes_known = False
        notes.append(
            f'{error} Until then it is not known which instances run, and '
            'who else uses pages.'
        )
    unseen = [
        process.pid
        for uuid, process in snapshot.guests.items()
        if in_place[uuid] is None
    ]
    if unseen:
        notes.append(
            'Where the memory of some instances is '
            + (
                'cannot be known without their numa_maps'
                if any(_not_copied(fs, pid) for pid in unseen)
                else 'can only be seen by root'
            )
            + ', so pages that they have count as used by unknown others.'
        )
    if not snapshot.pools:
        notes.append(
            'The kernel has no huge pages: it was built or booted without '
            'them.'
        )
    notes += opening.reserved_notes(fs, settings.policy, snapshot.pools)
    return HostInspection(
        snapshot,
        path,
        in_place,
        snapshot.others(fs, in_place.values()),
        processes_known,
        tuple(notes),
    )


def _open(
    path: pathlib.Path, notes: list[str]
) -> tuple[Ledger, pathlib.Path | None]:
    """Open the ledger, or an empty one if it cannot be read."""
    try:
        if not opening.forbidden(path):
            ledger = Ledger.open(path, read_only=True)
            try:
                opening.check_times(ledger)
            except BaseException:
                ledger.close()
                raise
            return ledger, path
        reason = f'This user may not read the ledger {path}, so'
    except exception.LedgerMissing:
        reason = f'There is no ledger {path}, so'
    except exception.LedgerError as error:
        reason = f'{errors.sentence(error)} Until then'
    notes.append(
        f'{reason} it is not known which pages are held for instances, and '
        'which were allocated for them.'
    )
    return Ledger.in_memory(), None


def _in_place(
    kernel: assembly.KernelAccess, process: processes.GuestProcess
) -> _Counts | None:
    """Read the huge pages of a guest; None if this user may not see them."""
    try:
        return processes.pages_of(kernel.read_maps(process.pid))
    except exception.KernelError:
        return None
    except ProcessLookupError:
        return None if _not_copied(kernel.fs, process.pid) else {}


def _not_copied(fs: hostfs.HostFS, pid: int) -> bool:
    """Check whether a copy of a host has a process without numa_maps."""
    folder = fs.proc / str(pid)
    return folder.is_dir() and not (folder / 'numa_maps').exists()
