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

"""What there is to be seen of a host, as far as this user may see it."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import pathlib

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import ledgers
from nova_numa_hugepages.cmd.host import reserved
from nova_numa_hugepages.cmd.host.inspect import partial_fs
from nova_numa_hugepages.cmd.host.settings import Settings
from nova_numa_hugepages.hugepages import accounts
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import snapshot
from nova_numa_hugepages.hugepages import usage
from nova_numa_hugepages.hugepages.kernel import cgroups
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.state.ledger import Ledger


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A host, as it was seen.

    :ivar view: its nodes, pools and guests; what is in it of promises and
        accounts means nothing without a ledger
    :ivar ledger: the ledger that was read, None if none was
    :ivar has: what each guest that runs has, by uuid and pool; None where the
        kernel doesn't tell this user
    :ivar others: who else uses pages, by pool
    :ivar notes: sentences on what could not be seen
    :ivar unknown: what isn't known although there are values for it: columns
        of `rows`, and what guests have as ``has``, each with its node or None
        for all nodes
    """

    view: snapshot.HostSnapshot
    ledger: pathlib.Path | None
    has: Mapping[str, Mapping[model.PoolKey, int] | None]
    others: Mapping[model.PoolKey, Mapping[str, int]]
    notes: tuple[str, ...] = ()
    unknown: frozenset[tuple[str, int | None]] = frozenset()

    def knows(self, column: str, node: int | None = None) -> bool:
        """Tell whether something is known, of a node or at all."""
        return not {(column, None), (column, node)} & self.unknown


def look(
    fs: hostfs.HostFS,
    settings: Settings,
    *,
    doubt: str | None = None,
) -> Seen:
    """Look at a host; changes nothing.

    :param doubt: why the processes there aren't all that the host has, if
        that is so; what guests have isn't known then
    :raises exception.KernelError: if files can't be read without which there
        is nothing to show
    """
    notes = list(settings.notes)
    files = partial_fs.ForgivingFS(fs, doubt)
    kernel = hugetlb.Hugetlb(files, hugetlb.RefusingWriter('this only looks'))
    ledger, path = _open(settings.ledger, notes)
    maps = _Maps(files)
    with ledger:
        holds = ledger.holds()
        books = accounts.Accounts(kernel, ledger, files).read()
    standings = usage.Promises(files, maps.read).standings(
        kernel, holds, settings.policy.reserved
    )
    view = snapshot.survey(
        files, kernel, settings.policy, books, holds, standings
    )
    has = {uuid: maps.pages_of(one) for uuid, one in view.guests.items()}
    notes += files.notes()
    if None in has.values():
        notes.append(
            'Where the memory of some guests is '
            + (
                'cannot be told without their numa_maps'
                if maps.missing
                else 'can only be seen by root'
            )
            + ', so pages that they have count as used by unknown others.'
        )
    if not view.pools:
        notes.append(
            'The kernel has no huge pages: it was built or started without '
            'them.'
        )
    else:
        notes += reserved.notes(settings.policy.reserved, view.pools.keys())
    return Seen(
        view,
        path,
        has,
        _others(files, view, has),
        tuple(dict.fromkeys(notes)),
        files.unknown(),
    )


def _open(
    path: pathlib.Path, notes: list[str]
) -> tuple[Ledger, pathlib.Path | None]:
    """Open the ledger, or an empty one if it can't be read."""
    try:
        if not ledgers.forbidden(path):
            ledger = Ledger.open(path, read_only=True)
            try:
                ledgers.check(ledger)
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
        f'{reason} it is not known what is held for guests, and which pages '
        'were made for them.'
    )
    return Ledger.in_memory(), None


class _Maps:
    """Reads where the memory of processes is, as far as that is allowed.

    Each process is read once.

    :ivar missing: whether a process was there without that file, as in a copy
    """

    def __init__(self, fs: hostfs.HostFS) -> None:
        self.missing = False
        self._proc = fs.proc
        self._file = processes.MapsFile(fs)
        self._known: dict[int, str | None] = {}

    def read(self, pid: int) -> str:
        """Read the ``numa_maps`` of a process; empty if that isn't allowed.

        :raises ProcessLookupError: if the process is gone
        """
        return self._read(pid) or ''

    def pages_of(
        self, process: processes.GuestProcess
    ) -> Mapping[model.PoolKey, int] | None:
        """Tell which huge pages a guest has; None if that isn't known."""
        try:
            text = self._read(process.pid)
        except ProcessLookupError:
            return {}
        return None if text is None else processes.pages_of(text)

    def _read(self, pid: int) -> str | None:
        if pid not in self._known:
            try:
                self._known[pid] = self._file(pid)
            except exception.KernelError:
                self._known[pid] = None
            except ProcessLookupError:
                folder = self._proc / str(pid)
                if (folder / 'numa_maps').exists() or not folder.is_dir():
                    raise
                self.missing = True
                self._known[pid] = None
        return self._known[pid]


def _others(
    fs: hostfs.HostFS,
    view: snapshot.HostSnapshot,
    has: Mapping[str, Mapping[model.PoolKey, int] | None],
) -> dict[model.PoolKey, dict[str, int]]:
    """Tell who uses the pages that no guest has."""
    ours: dict[model.PoolKey, int] = {}
    for counts in has.values():
        for key, count in (counts or {}).items():
            ours[key] = ours.get(key, 0) + count
    return cgroups.occupants(
        fs,
        {key: one.standing.pool for key, one in view.pools.items()},
        ours,
        {process.pid for process in view.guests.values()},
    )
