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

"""A picture of a host for a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import string

from rich import console
from rich import panel
from rich import table
from rich import text

from nova_numa_hugepages.cmd.host.inspect.collect import HostInspection
from nova_numa_hugepages.cmd.host.render import rows
from nova_numa_hugepages.core import units
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import usage
from nova_numa_hugepages.hugepages.kernel import cgroups
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import nodes

FREE = '.'
OTHERS = 'x'
KEPT = '-'
UNKNOWN = '?'

# The meaning of the signs; that of the last one depends on what is known.
LEGEND = (
    'A letter is an instance: a capital one pages that it has, a small one '
    f'pages that are promised to it. {OTHERS} others; {KEPT} kept from '
    'instances; '
)
LEGEND_FREE = f'{FREE} free.'
LEGEND_UNKNOWN = f'{UNKNOWN} free, but perhaps promised or kept.'
LEGEND_IN_USE = f'{UNKNOWN} free or in use, it is not known by whom.'

# Colours that can be distinguished on light and on dark ground.
_COLOURS = ('cyan', 'magenta', 'green', 'yellow', 'blue')
_WARNING = 'red'

_Counts = Mapping[model.PoolKey, int]


class Bar:
    """A bar as wide as the terminal: counts, each with its sign and style."""

    def __init__(self, parts: Sequence[tuple[int, str, str]]) -> None:
        self._parts = [part for part in parts if part[0] > 0]

    def __rich_console__(
        self, _: console.Console, options: console.ConsoleOptions
    ) -> console.RenderResult:
        widths = scale([part[0] for part in self._parts], options.max_width)
        yield text.Text.assemble(
            *(
                (sign * width, style)
                for width, (_, sign, style) in zip(
                    widths, self._parts, strict=True
                )
            )
        )


def scale(counts: Sequence[int], width: int) -> list[int]:
    """Scale counts to widths that add up to a width.

    Every count is at least one wide, as far as there is room for it.

    :param counts: numbers above zero
    """
    total = sum(counts)
    if not total:
        return []
    ends = list(itertools.accumulate(counts, initial=0))
    widths = [
        end * width // total - start * width // total
        for start, end in itertools.pairwise(ends)
    ]
    for index, wide in enumerate(widths):
        largest = widths.index(max(widths))
        if not wide and widths[largest] > 1:
            widths[index] = 1
            widths[largest] -= 1
    return widths


def draw(host: HostInspection, name: str) -> Iterable[console.RenderableType]:
    """Draw a host: its nodes with their pools, and its instances."""
    snapshot = host.snapshot
    uuids = sorted(
        {*snapshot.guests}
        | {
            hold.holder
            for pool in snapshot.pools.values()
            for hold in pool.holds
        }
    )
    letters = {
        uuid: string.ascii_uppercase[index % 26]
        for index, uuid in enumerate(uuids)
    }
    count = len(snapshot.nodes)
    yield text.Text(
        f'{name}: {count} node{"" if count == 1 else "s"}; '
        + (f'ledger {host.ledger}' if host.ledger else 'no ledger was read')
    )
    for node in sorted(snapshot.nodes.values(), key=lambda node: node.id):
        yield _node(host, node, letters)
    if any(pool.usage.pool.total for pool in snapshot.pools.values()):
        yield text.Text(LEGEND + _last_sign(host), 'dim')
    if not host.processes_known:
        yield text.Text('It is not known which instances run here.')
    elif not snapshot.guests and not (host.ledger and uuids):
        yield text.Text(
            'No instance runs here, and none holds pages.'
            if host.ledger
            else 'No instance runs here.'
        )
    if host.ledger is None:
        yield text.Text('It is not known which instances hold pages.')
    if not uuids:
        return
    grid = table.Table.grid(padding=(0, 1))
    for uuid in uuids:
        grid.add_row(
            text.Text(letters[uuid], _colour(letters[uuid])),
            _instance(host, uuid),
        )
    yield grid


def _last_sign(host: HostInspection) -> str:
    """Get the last sign of the legend, with its meaning."""
    if not host.processes_known:
        return LEGEND_IN_USE
    return LEGEND_FREE if host.ledger else LEGEND_UNKNOWN


def _colour(letter: str) -> str:
    return _COLOURS[ord(letter.upper()) % len(_COLOURS)]


def _node(
    host: HostInspection, node: nodes.Node, letters: Mapping[str, str]
) -> panel.Panel:
    grid = table.Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for key, pool in sorted(host.snapshot.pools.items()):
        if key.node == node.id:
            size = units.format_kib(key.size_kib)
            if pool.usage.pool.total:
                grid.add_row(size, Bar(_parts(host, key, letters)))
                size = ''
            grid.add_row(size, _numbers(host, key))
    return panel.Panel(
        console.Group(text.Text(_about(host, node)), grid),
        title=f'NUMA node {node.id}',
        title_align='left',
    )


def _about(host: HostInspection, node: nodes.Node) -> str:
    parts = [
        f'CPUs {hostfs.format_ids(node.cpus)}' if node.cpus else 'no CPUs'
    ]
    memory = host.snapshot.memory.get(node.id)
    if memory is None or not memory.total_kib:
        parts.append('no memory')
    else:
        parts.append(
            f'{_gib(memory.free_kib)} of {_gib(memory.total_kib)} GiB free'
        )
    far: dict[int, list[int]] = {}
    for other, distance in sorted(node.distances.items()):
        if other != node.id:
            far.setdefault(distance, []).append(other)
    if far:
        parts.append(
            'distance '
            + ', '.join(
                f'{distance} to {_nodes(others)}'
                for distance, others in sorted(far.items())
            )
        )
    return '; '.join(parts)


def _nodes(numbers: Sequence[int]) -> str:
    plural = '' if len(numbers) == 1 else 's'
    return f'node{plural} {hostfs.format_ids(numbers)}'


def _gib(amount_kib: int) -> str:
    return f'{amount_kib / 1024 / 1024:.1f}'


def _parts(
    host: HostInspection, key: model.PoolKey, letters: Mapping[str, str]
) -> list[tuple[int, str, str]]:
    """Divide a pool among instances, others and what is left."""
    pool_usage = host.snapshot.pools[key].usage
    others = sum(host.others.get(key, {}).values())
    wanted: list[tuple[int, str, str]] = []
    if host.processes_known:
        for uuid, letter in letters.items():
            has = (host.in_place.get(uuid) or {}).get(key, 0)
            held, kept = (counts.get(key, 0) for counts in _held(host, uuid))
            style = _colour(letter)
            wanted.append((has, letter, style))
            wanted.append((max(0, held - has) + kept, letter.lower(), style))
        wanted.append((others, OTHERS, _WARNING))
    else:
        wanted.append((others, UNKNOWN, 'dim'))
    wanted.append((pool_usage.held_back, KEPT, _WARNING))
    all_known = host.processes_known and host.ledger is not None
    left = pool_usage.pool.total
    parts = []
    for count, sign, style in wanted:
        parts.append((min(count, left), sign, style))
        left -= parts[-1][0]
    return [*parts, (left, FREE if all_known else UNKNOWN, 'dim')]


def _numbers(host: HostInspection, key: model.PoolKey) -> text.Text:
    view = host.snapshot.pools[key]
    pool_usage = view.usage
    sentences = []
    if pool_usage.pool.total:
        parts = [f'{pool_usage.pool.free} of {pool_usage.pool.total} free']
        if host.ledger is not None:
            parts.append(f'{sum(hold.pages for hold in view.holds)} held')
            if host.processes_known:
                parts.append(f'{max(0, pool_usage.available)} available')
        sentences.append(', '.join(parts))
        if host.ledger is not None:
            sentences.append(
                f'floor {view.account.floor}, grown {view.account.grown}'
            )
    else:
        sentences.append('no pages')
    if host.processes_known:
        sentences += [
            f'{count} used by '
            + ('unknown others' if name == cgroups.UNKNOWN else name)
            for name, count in host.others.get(key, {}).items()
        ]
    if pool_usage.reserved:
        sentences.append(f'{pool_usage.reserved} reserved by the operator')
    if pool_usage.pool.surplus:
        sentences.append(f'{pool_usage.pool.surplus} surplus')
    sentences.append(f'{view.allocatable} more could be allocated')
    if view.of_blocks:
        sentences.append(f'fragmentation {view.unusable_permille // 10} %')
    drawn = text.Text('; '.join(sentences))
    if host.processes_known:
        for shortage in _shortages(pool_usage):
            drawn.append(f'; {shortage}', _WARNING)
    return drawn


def _shortages(pool_usage: usage.PoolUsage) -> list[str]:
    """List what the pool has too few pages for."""
    found = []
    if pool_usage.overdue:
        found.append(f'{pool_usage.overdue} promised pages are missing')
    too_few = -pool_usage.available - pool_usage.overdue
    if too_few > 0:
        found.append(f'{too_few} too few for promised and reserved pages')
    return found


def _instance(host: HostInspection, uuid: str) -> text.Text:
    process = host.snapshot.guests.get(uuid)
    has = host.in_place.get(uuid, {})
    held, kept = _held(host, uuid)
    if process is None:
        if not held:
            held, kept = kept, {}
        absent = _absent(host, uuid) if host.processes_known else 'holds'
        drawn = text.Text(f'{uuid} {absent} {_list(held)}')
    else:
        drawn = text.Text(f'{process.name or "instance"} {uuid} ')
        if has is None:
            drawn.append('is running; only root can see on which pages')
        else:
            drawn.append(f'is running on {_list(has)}')
        if host.ledger is not None and held != has:
            # A guest that is taking its pages has fewer than it holds.
            drawn.append(
                f'; {_list(held)} held for it',
                '' if has is None else _WARNING,
            )
    if kept:
        drawn.append(f'; {_list(kept)} kept in case its resize is reverted')
    drawn.append(_elastic(host, uuid))
    return drawn


def _elastic(host: HostInspection, uuid: str) -> str:
    """Say between which sizes the memory of an instance is elastic."""
    holds = [
        hold
        for pool in host.snapshot.pools.values()
        for hold in pool.holds
        if hold.holder == uuid and hold.purpose in rows.USING
    ]
    if not any(hold.ceiling for hold in holds):
        return ''
    least, most = (
        model.total_kib((hold.key, getattr(hold, size)) for hold in holds)
        for size in ('at_boot', 'at_most')
    )
    return f'; elastic, from {_gib(least)} to {_gib(most)} GiB'


def _absent(host: HostInspection, uuid: str) -> str:
    """Say why pages are held for an instance that is not running."""
    purposes = {
        hold.purpose
        for pool in host.snapshot.pools.values()
        for hold in pool.holds
        if hold.holder == uuid
    }
    if model.Purpose.INCOMING in purposes:
        return 'is expected by live migration, with'
    if model.Purpose.GUEST in purposes:
        return 'is not running, and keeps'
    return 'was resized or migrated away, and may come back to'


def _held(
    host: HostInspection, uuid: str
) -> tuple[dict[model.PoolKey, int], dict[model.PoolKey, int]]:
    """Get the pages that are held for an instance, by pool.

    :returns: those that it runs on or will, and those that are kept in case
        its resize is reverted
    """
    held: dict[model.PoolKey, int] = {}
    kept: dict[model.PoolKey, int] = {}
    for key, pool in host.snapshot.pools.items():
        for hold in pool.holds:
            if hold.holder == uuid:
                counts = held if hold.purpose in rows.USING else kept
                counts[key] = counts.get(key, 0) + hold.pages
    return held, kept


def _list(counts: _Counts) -> str:
    """Write counts by page size, for example 2 MiB: 8 on node 0, 4 on 1."""
    sizes: dict[int, list[str]] = {}
    for key, count in sorted(counts.items()):
        if count:
            sizes.setdefault(key.size_kib, []).append(
                f'{count} on node {key.node}'
            )
    return (
        '; '.join(
            f'{units.format_kib(size_kib)} pages: {", ".join(where)}'
            for size_kib, where in sorted(sizes.items())
        )
        or 'no huge pages'
    )
