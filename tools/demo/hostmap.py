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


"""Drawings of hosts: nodes, the guests that have their CPUs, and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import panel
from rich import table
from rich import text

from nova_numa_hugepages.core import units

FREE = '.'
SHARED = '~'
UNKNOWN = '?'
BAR_CHARACTERS = 10

# The meaning of the signs.
LEGEND = (
    'CPUs, the threads of a core side by side: a letter is the guest pinned '
    f'there; {FREE} free; {SHARED} shared by vCPUs that float',
    f'pages: # used; x reserved by the operator; {FREE} free; small is the '
    'memory in no pool',
)

# Colours that can be distinguished on light and on dark ground.
_COLOURS = ('cyan', 'magenta', 'green', 'yellow', 'blue', 'red')


def colour(letter: str) -> str:
    """Choose the colour of a guest by its letter."""
    return _COLOURS[ord(letter) % len(_COLOURS)]


def draw(
    name: str,
    topology: Any,
    owners: Mapping[int, str],
    guests: str,
    distances: str,
) -> panel.Panel:
    """Draw a host.

    :param name: its name
    :param topology: its ``NUMATopology``, with what is used of it
    :param owners: the letter of the guest that is pinned to a CPU, by CPU
    :param guests: which letter is which guest
    :param distances: the distances in a few words
    """
    grid = table.Table(box=None, pad_edge=False, expand=True)
    grid.add_column('node')
    grid.add_column('CPUs', ratio=1)
    grid.add_column('pages', justify='right')
    grid.add_column('', no_wrap=True)
    for title in ('used', 'free', 'reserved'):
        grid.add_column(title, justify='right', no_wrap=True)
    for cell in topology.cells:
        pools = sorted(
            (pages for pages in cell.mempages if pages.total),
            key=lambda pages: pages.size_kb,
        )
        rows = [_pool(cell, pages) for pages in pools]
        grid.add_row(
            str(cell.id),
            _cpus(cell, owners),
            *(
                text.Text('\n').join(column)
                for column in zip(*rows, strict=True)
            ),
        )
    return panel.Panel(
        grid,
        title=f'{name}: {distances}',
        title_align='left',
        subtitle=guests or 'no guest',
        subtitle_align='left',
    )


def _cpus(cell: Any, owners: Mapping[int, str]) -> text.Text:
    drawing = text.Text()
    cpus = cell.cpuset | cell.pcpuset
    cores = [sorted(core) for core in cell.siblings] or [
        [cpu] for cpu in sorted(cpus)
    ]
    for core in sorted(cores):
        for cpu in core:
            if cpu in owners:
                drawing.append(owners[cpu], colour(owners[cpu]))
            elif cpu in cell.pinned_cpus:
                drawing.append(UNKNOWN)
            elif cpu in cell.pcpuset:
                drawing.append(FREE, 'dim')
            else:
                drawing.append(SHARED, 'dim')
        drawing.append(' ')
    return drawing


def _pool(cell: Any, pages: Any) -> tuple[text.Text, ...]:
    """Draw a pool: size, bar, and counts of pages.

    What is in no pool is counted in MiB, which is how one thinks of it.
    """
    reserved = pages.reserved if 'reserved' in pages else 0
    free = pages.total - pages.used - reserved
    base = pages.size_kb < units.KIB_PER_MIB
    used_width = _share(pages.used, pages.total)
    reserved_width = min(
        _share(reserved, pages.total), BAR_CHARACTERS - used_width
    )
    rest = BAR_CHARACTERS - used_width - reserved_width
    bar = text.Text.assemble(
        ('#' * used_width, 'green'),
        ('x' * reserved_width, 'red'),
        (FREE * rest, 'dim'),
    )

    def count(number: int) -> text.Text:
        if base:
            mib = number * pages.size_kb // units.KIB_PER_MIB
            return text.Text(f'{mib} MiB')
        return text.Text(str(number))

    return (
        text.Text('small' if base else units.format_kib(pages.size_kb)),
        bar,
        count(pages.used),
        count(free),
        count(reserved),
    )


def _share(part: int, whole: int) -> int:
    """Scale a part to the bar; what is above 0 is seen."""
    return -(-part * BAR_CHARACTERS // whole)
