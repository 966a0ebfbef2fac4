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

"""``nova-numa-hugepages host elastic``: the sizes of elastic instances."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import sys
from typing import Any
import uuid

from cliff import lister
from oslo_utils import strutils

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import opening
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import host_root
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.hugepages.pools import Pools

# In the order in which they are shown. Scripts use them: a name keeps its
# meaning, and new ones come at the end.
COLUMNS = (
    'uuid',
    'cell',
    'node',
    'size_kib',
    'base_mib',
    'held_mib',
    'has_mib',
    'ceiling_mib',
    'used_mib',
    'lent_mib',
    'wanted_mib',
    'changed',
    'why',
    'waits_mib',
    'waits_since',
)

AUTO = 'auto'


class Elastic(lister.Lister):
    """List the elastic instances of this host, or set the size of one.

    One row for each of their NUMA nodes: the memory it boots with (base), that
    is held for it now, that it has, and that it may come to have (ceiling); of
    what it may come to have how much is lent to others at most; what is used
    inside the whole instance; the size that an operator has set, and when and
    why it last changed; what it needs and can't get, and since when. What
    is not known is null in json and yaml, and None in table.

    A size that is set is carried out by nova-compute within a few seconds. It
    is kept until it is set to auto, or the instance leaves this host other
    than by live migration, and rounded up to whole blocks: of 128 MiB, of
    2 GiB if the instance boots with 64 GiB or more, or of a page.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument(
            '--set',
            dest='sizes',
            metavar='HOLDER=SIZE',
            action='append',
            default=[],
            help=(
                'set the memory of an instance, by its uuid, for example to '
                '8GiB; auto lets its use decide again. May be repeated.'
            ),
        )
        parser.add_argument(
            '--force',
            action='store_true',
            help='even if the ledger is not that of the configuration',
        )
        settings.add_arguments(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        try:
            code: int = super().run(parsed_args)
        except exception.NUMAHugepagesError as error:
            return errors.fail(error)
        return code

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Set what is to be set, and list the instances.

        :returns: names of columns, and rows
        """
        machine = self.app.machine or opening.Machine()
        wanted = dict(_wanted(text) for text in parsed_args.sizes)
        fs = host_root.host_fs(parsed_args.root, machine.fs)
        found = settings.read(parsed_args)
        for note in found.notes:
            print(note, file=sys.stderr)
        if wanted:
            host_root.check_live(parsed_args.root, machine.fs)
            settings.check(parsed_args, found, forced=parsed_args.force)
        with opening.opened(
            machine, fs, found, to_change=bool(wanted)
        ) as pools:
            rows = [
                row
                for holder, size_mib in wanted.items()
                for row in _to_set(pools, holder, size_mib)
            ]
            for row in rows:
                pools.put_size(*row)
            return COLUMNS, _rows(pools, _stats(machine, found))


def _wanted(text: str) -> tuple[str, int | None]:
    """Read a size that is to be set.

    :returns: the uuid of an instance, and MiB; None if its use decides
    """
    name, equals, size = text.partition('=')
    try:
        holder = str(uuid.UUID(name))
    except ValueError:
        holder = ''
    if not (equals and holder):
        raise errors.BadInput(
            f'--set {text}: expected the uuid of an instance, =, and a size, '
            'for example 8GiB, or auto'
        )
    if size == AUTO:
        return holder, None
    try:
        count: int = strutils.string_to_bytes(
            size, unit_system='IEC', return_int=True
        )
    except ValueError:
        count = 0
    if count < 1 << 20:
        raise errors.BadInput(
            f'--set {text}: expected a size such as 8GiB or 512MiB, or auto'
        )
    return holder, count >> 20


def _to_set(
    pools: Pools, holder: str, size_mib: int | None
) -> list[tuple[str, int, model.Size]]:
    """Return the sizes that the cells of an instance are to have.

    :param size_mib: None if its use decides
    """
    cells = _elastic(pools.holds(holder, model.Purpose.GUEST))
    if not cells:
        raise errors.BadInput(
            f'{holder} is no elastic instance of this host. Those that are: '
            'nova-numa-hugepages host elastic'
        )
    now = pools.now()
    if size_mib is None:
        size = model.Size(None, now, 'an operator let its use decide')
        return [(holder, hold.cell, size) for hold in cells]
    least = sum(hold.base * hold.size_kib for hold in cells) // 1024
    most = sum(hold.ceiling * hold.size_kib for hold in cells) // 1024
    if not least <= size_mib <= most:
        raise errors.BadInput(
            f'{holder} can have {least} to {most} MiB in its elastic NUMA '
            f'nodes, found {size_mib} MiB'
        )
    rows = []
    for hold in cells:
        # Each gets the same share of what is elastic.
        more = (hold.ceiling - hold.base) * (size_mib - least)
        pages = hold.base + (more // (most - least))
        size = model.Size(pages * hold.size_kib, now, 'an operator set it')
        rows.append((holder, hold.cell, size))
    return rows


def _elastic(holds: Iterable[model.Hold]) -> list[model.Hold]:
    return [hold for hold in holds if hold.ceiling]


def _stats(
    machine: opening.Machine, found: settings.Settings
) -> Mapping[str, Mapping[str, str]]:
    """Ask libvirt what the kernels of the guests say, if it answers."""
    if found.libvirt_uri is None:
        return {}
    try:
        return machine.stats(found.libvirt_uri)
    except exception.LibvirtError as error:
        print(
            f'It is not known what is used inside: {error}.', file=sys.stderr
        )
        return {}


def _rows(
    pools: Pools, stats: Mapping[str, Mapping[str, str]]
) -> list[tuple[Any, ...]]:
    usage = pools.usage()
    running = pools.running()
    waits = {(wait.holder, wait.cell): wait for wait in pools.waits()}
    rows = []
    for hold in _elastic(pools.holds(None, model.Purpose.GUEST)):
        process = running.get(hold.holder)
        size = pools.sizes(hold.holder).get(hold.cell)
        used = usage.get(hold.key)
        lent = None if used is None else min(hold.idle, used.lent)
        wanted_kib = None if size is None else size.wanted_kib
        wait = waits.get((hold.holder, hold.cell))
        rows.append(
            (
                hold.holder,
                hold.cell,
                hold.node,
                hold.size_kib,
                *(
                    None if count is None else count * hold.size_kib // 1024
                    for count in (
                        hold.base,
                        hold.pages,
                        _has(pools, hold, process),
                        hold.ceiling,
                    )
                ),
                _used_mib(stats, process, pools.now()),
                None if lent is None else lent * hold.size_kib // 1024,
                None if wanted_kib is None else wanted_kib // 1024,
                None
                if size is None
                else opening.when(size.changed).isoformat(timespec='seconds'),
                None if size is None else size.why,
                None if wait is None else wait.kib // 1024,
                None
                if wait is None
                else opening.when(wait.since).isoformat(timespec='seconds'),
            )
        )
    return rows


def _has(
    pools: Pools, hold: model.Hold, process: processes.GuestProcess | None
) -> int | None:
    """Return the pages that a guest cell has, None if that isn't known.

    Of several cells on one node it can't be told.
    """
    holds = pools.holds(hold.holder, model.Purpose.GUEST)
    if process is None or sum(one.key == hold.key for one in holds) > 1:
        return None
    try:
        return pools.pages_of(process).get(hold.key, 0)
    except exception.KernelError:
        return None


def _used_mib(
    stats: Mapping[str, Mapping[str, str]],
    process: processes.GuestProcess | None,
    now: float,
) -> int | None:
    """Return what the programs of a guest use, None if it doesn't say."""
    inside = process and sample.inside(stats.get(process.name, {}), now)
    if not inside or inside.used_kib is None:
        return None
    return inside.used_kib // 1024
