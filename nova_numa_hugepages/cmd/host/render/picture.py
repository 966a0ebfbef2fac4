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

"""What is seen of a host as a picture for a terminal, whatever its width."""

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

from nova_numa_hugepages.cmd.host.inspect import collect
from nova_numa_hugepages.cmd.host.render import rows
from nova_numa_hugepages.core import units
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import snapshot
from nova_numa_hugepages.hugepages import usage
from nova_numa_hugepages.hugepages.kernel import cgroups
from nova_numa_hugepages.hugepages.kernel import nodes

FREE = '.'
OTHERS = 'x'
BACK = '-'
UNKNOWN = '?'

# What the signs mean; the last one depends on what is known.
LEGEND = (
    'A letter is a guest: a large one pages that it has, a small one pages '
    f'that are promised to it. {OTHERS} others; {BACK} held back from guests; '
)
LEGEND_FREE = f'{FREE} free.'
LEGEND_UNKNOWN = f'{UNKNOWN} free, but perhaps promised or held back.'
LEGEND_IN_USE = f'{UNKNOWN} in use or free, by whom or for whom is not known.'

# Colours that can be told apart on light and on dark ground.
_COLOURS = ('cyan', 'magenta', 'green', 'yellow', 'blue')
_WARNING = 'red'


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

    What is not nothing is seen, as far as there is room for it.

    :param counts: numbers above zero
    """
    total = sum(counts)
    if not total:
        return []
    ends = [0]
    for count in counts:
        ends.append(ends[-1] + count)
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


def draw(seen: collect.Seen, name: str) -> Iterable[console.RenderableType]:
    """Draw a host: its nodes with their pools, and its guests.

    :param name: the name of the host
    """
    uuids = sorted(
        {*seen.view.guests}
        | {
            hold.holder
            for one in seen.view.pools.values()
            for hold in one.holds
        }
    )
    letters = {
        uuid: string.ascii_uppercase[index % 26]
        for index, uuid in enumerate(uuids)
    }
    count = len(seen.view.nodes)
    yield text.Text(
        f'{name}: {count} node{"" if count == 1 else "s"}; '
        + (f'ledger {seen.ledger}' if seen.ledger else 'no ledger was read')
    )
    for node in sorted(seen.view.nodes.values(), key=lambda node: node.id):
        yield _node(seen, node, letters)
    if any(one.usage.pool.total for one in seen.view.pools.values()):
        yield text.Text(
            LEGEND + _last_sign(seen),
            'dim',
        )
    if not seen.knows('has'):
        yield text.Text('Which guests run here is not known.')
    elif not seen.view.guests and (seen.ledger is None or not uuids):
        yield text.Text(
            'No guest runs here, and none holds pages.'
            if seen.ledger
            else 'No guest runs here.'
        )
    if seen.ledger is None:
        yield text.Text('Who holds pages is not known.')
    if not uuids:
        return
    grid = table.Table.grid(padding=(0, 1))
    for uuid in uuids:
        grid.add_row(
            text.Text(letters[uuid], _colour(letters[uuid])),
            _guest(seen, uuid),
        )
    yield grid


def _last_sign(seen: collect.Seen) -> str:
    """Tell what the last sign of the legend is, and means."""
    if not seen.knows('others'):
        return LEGEND_IN_USE
    return LEGEND_FREE if _all_told(seen) else LEGEND_UNKNOWN


def _all_told(seen: collect.Seen) -> bool:
    """Tell whether what is free and nobody's is known."""
    return seen.ledger is not None and seen.knows('available')


def _colour(letter: str) -> str:
    return _COLOURS[ord(letter.upper()) % len(_COLOURS)]


def _node(
    seen: collect.Seen, node: nodes.Node, letters: Mapping[str, str]
) -> panel.Panel:
    lines: list[console.RenderableType] = [text.Text(_about(seen, node))]
    grid = table.Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for key, view in sorted(seen.view.pools.items()):
        if key.node == node.id:
            size = units.format_kib(key.size_kib)
            if view.usage.pool.total:
                grid.add_row(size, Bar(_parts(seen, key, letters)))
                size = ''
            grid.add_row(size, _numbers(seen, key))
    return panel.Panel(
        console.Group(*lines, grid),
        title=f'node {node.id}',
        title_align='left',
    )


def _about(seen: collect.Seen, node: nodes.Node) -> str:
    parts = []
    if seen.knows('cpus', node.id):
        parts.append(
            f'CPUs {rows.number_list(node.cpus)}' if node.cpus else 'no CPUs'
        )
    memory = seen.view.memory.get(node.id)
    if not seen.knows('memory_kib', node.id):
        parts.append('memory not known')
    elif memory is None or not memory.total_kib:
        parts.append('no memory')
    else:
        parts.append(
            f'{_gib(memory.free_kib)} of {_gib(memory.total_kib)} GiB free'
        )
    far: dict[int, list[int]] = {}
    for other, distance in sorted(node.distances.items()):
        if other != node.id and seen.knows('distances', node.id):
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
    return f'node{plural} {rows.number_list(numbers)}'


def _gib(amount_kib: int) -> str:
    return f'{amount_kib / 1024 / 1024:.1f}'


def _parts(
    seen: collect.Seen, key: model.PoolKey, letters: Mapping[str, str]
) -> list[tuple[int, str, str]]:
    """Divide a pool among guests, others and what is left."""
    standing = seen.view.pools[key].usage
    parts = []
    left = standing.pool.total
    for uuid, letter in letters.items() if seen.knows('has') else ():
        has = (seen.has.get(uuid) or {}).get(key, 0)
        held, kept = (one.get(key, 0) for one in _held(seen.view, uuid))
        waits = max(0, held - has) + kept
        for count, sign in ((has, letter), (waits, letter.lower())):
            parts.append((min(count, left), sign, _colour(letter)))
            left -= parts[-1][0]
    others = sum(seen.others.get(key, {}).values())
    if seen.knows('others'):
        parts.append((min(others, left), OTHERS, _WARNING))
    else:
        parts.append((min(others, left), UNKNOWN, 'dim'))
    left -= parts[-1][0]
    parts.append((min(standing.held_back, left), BACK, _WARNING))
    left -= parts[-1][0]
    parts.append((left, FREE if _all_told(seen) else UNKNOWN, 'dim'))
    return parts


def _numbers(seen: collect.Seen, key: model.PoolKey) -> text.Text:
    view = seen.view.pools[key]
    standing = view.usage
    sentences = []
    if standing.pool.total:
        parts = [f'{standing.pool.free} of {standing.pool.total} free']
        if seen.ledger is not None:
            parts.append(f'{sum(hold.pages for hold in view.holds)} held')
            if seen.knows('available'):
                parts.append(f'{max(0, standing.available)} to promise')
        sentences.append(', '.join(parts))
        if seen.ledger is not None and seen.knows('grown'):
            sentences.append(
                f'floor {view.account.floor}, grown {view.account.grown}'
            )
    else:
        sentences.append('no pages')
    sentences += [
        f'{count} used by '
        + ('unknown others' if name == cgroups.UNKNOWN else name)
        for name, count in seen.others.get(key, {}).items()
        if seen.knows('others')
    ]
    if standing.reserved:
        sentences.append(f'{standing.reserved} reserved by the operator')
    if standing.pool.surplus:
        sentences.append(f'{standing.pool.surplus} surplus')
    if seen.knows('allocatable', key.node):
        sentences.append(f'{view.allocatable} more could be made')
    # Larger pages never come out of what is free in blocks.
    if key.size_kib <= nodes.LARGEST_BLOCK_KIB and seen.knows(
        'unusable_permille'
    ):
        sentences.append(f'fragmentation {view.unusable_permille // 10} %')
    drawn = text.Text('; '.join(sentences))
    for lack in _lacks(seen, standing):
        drawn.append(f'; {lack}', _WARNING)
    return drawn


def _lacks(seen: collect.Seen, standing: usage.PoolUsage) -> list[str]:
    """Say what is not as it should be."""
    found = []
    told = 0
    if seen.ledger is not None and seen.knows('promised') and standing.overdue:
        told = standing.overdue
        found.append(f'{told} that are promised are not there')
    lack = -standing.available - told
    if seen.knows('available') and lack > 0:
        found.append(f'{lack} too few for what is promised and held back')
    return found


def _guest(seen: collect.Seen, uuid: str) -> text.Text:
    process = seen.view.guests.get(uuid)
    has = seen.has.get(uuid, {})
    held, kept = _held(seen.view, uuid)
    if process is None:
        if not held:
            held, kept = kept, {}
        absent = _absent(seen.view, uuid) if seen.knows('has') else 'holds'
        drawn = text.Text(f'{uuid} {absent} {_list(held)}')
    else:
        drawn = text.Text(f'{process.name or "guest"} {uuid} ')
        if has is None:
            drawn.append('runs; where its memory is can be seen by root only')
        else:
            drawn.append(f'runs on {_list(has)}')
        if seen.ledger is not None and held != has:
            # A guest that takes its pages right now has fewer than it holds.
            drawn.append(
                f'; {_list(held)} held for it',
                '' if has is None else _WARNING,
            )
    if kept:
        drawn.append(f'; {_list(kept)} kept for its coming back from a resize')
    return drawn


def _absent(view: snapshot.HostSnapshot, uuid: str) -> str:
    """Say why pages are held for a guest that doesn't run."""
    purposes = {
        hold.purpose
        for one in view.pools.values()
        for hold in one.holds
        if hold.holder == uuid
    }
    if model.Purpose.INCOMING in purposes:
        return 'is expected, with'
    if model.Purpose.GUEST in purposes:
        return 'does not run, and keeps'
    return 'was resized or moved away, and may come back to'


def _held(
    view: snapshot.HostSnapshot, uuid: str
) -> tuple[dict[model.PoolKey, int], dict[model.PoolKey, int]]:
    """Tell what is held for a guest, by pool.

    :returns: what it runs on or will, and what is kept for its coming back
    """
    held: dict[model.PoolKey, int] = {}
    kept: dict[model.PoolKey, int] = {}
    for key, one in view.pools.items():
        for hold in one.holds:
            if hold.holder == uuid:
                counts = held if hold.purpose in rows.USING else kept
                counts[key] = counts.get(key, 0) + hold.pages
    return held, kept


def _list(counts: Mapping[model.PoolKey, int]) -> str:
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
