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

"""The results of a simulation as plots.

Each is written as PNG and as SVG, the same for the same results. They are made
to be read at a width of 800 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import functools
import io
import pathlib
from typing import Any
from typing import TYPE_CHECKING

from nova_numa_hugepages.simulate import drawing
from nova_numa_hugepages.simulate import extras
from nova_numa_hugepages.simulate import output
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import summary

if TYPE_CHECKING:
    from matplotlib import figure

# Twice as many as a page shows, for screens that have them.
_PNG_DOTS_PER_INCH = 200

_STYLE = {
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlelocation': 'left',
    'figure.constrained_layout.use': True,
    'figure.titlesize': 12,
    'figure.titleweight': 'bold',
    'font.family': 'DejaVu Sans',
    'font.size': 11,
    'legend.frameon': False,
    # Else the ids in an SVG file are drawn at random.
    'svg.hashsalt': 'nova-numa-hugepages',
    # A name of a flavor may have dollar signs.
    'text.parse_math': False,
}


def write_plots(
    found: results.Results, folder: pathlib.Path
) -> list[pathlib.Path]:
    """Write all plots for which there are runs.

    ``placed`` compares the guests before the first refusal, ``fleet-PHASE``
    shows what becomes of the CPUs and pages, and ``refusals-PHASE`` which
    flavors are refused where guests leave.

    :param folder: where to; it is made
    :returns: the files, in ascending order; none without runs
    :raises: `extras.MissingLibrary` without matplotlib, `output.OutputError`
        if a file can't be written
    """
    matplotlib, figures = _library()
    summed = summary.summarise(found)
    contents: dict[pathlib.Path, bytes] = {}
    # The user's own style doesn't count: the plots are to be the same.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        for name, draw in _plots(found, summed):
            drawn = figures.Figure()
            draw(drawn)
            for suffix, content in _rendered(drawn).items():
                contents[folder / f'{name}.{suffix}'] = content
    if contents:
        output.make_folder(folder)
        for path, content in contents.items():
            output.write(path, content)
    return sorted(contents)


def check_library() -> None:
    """Check that what plots are drawn with is installed.

    :raises: `extras.MissingLibrary` if it isn't
    """
    _library()


def _library() -> tuple[Any, Any]:
    try:
        import matplotlib
        from matplotlib import figure
    except ImportError as error:
        raise extras.MissingLibrary('matplotlib', 'Plotting') from error
    return matplotlib, figure


def _rendered(drawn: figure.Figure) -> dict[str, bytes]:
    """Render a figure; without a window, since it has none."""
    found = {}
    for suffix, metadata in (
        ('png', {'Software': None}),
        ('svg', {'Date': None}),
    ):
        buffer = io.BytesIO()
        drawn.savefig(
            buffer,
            format=suffix,
            dpi=_PNG_DOTS_PER_INCH,
            metadata=metadata,
        )
        found[suffix] = buffer.getvalue()
    return found


def _plots(
    found: results.Results, summed: summary.Summary
) -> Iterator[tuple[str, Callable[[figure.Figure], None]]]:
    """Name the plots, with what draws each into an empty figure."""
    if summed.phases:
        # If there is a fill, it is the first phase, and shows most.
        phase = summed.phases[0]
        yield (
            'placed',
            functools.partial(drawing.placed, found=found, phase=phase),
        )
    for phase in summed.phases:
        if any(run.samples for run in found.runs if run.phase is phase.phase):
            yield (
                f'fleet-{phase.phase}',
                functools.partial(drawing.fleet, found=found, phase=phase),
            )
        if phase.phase is not results.Phase.FILL:
            yield (
                f'refusals-{phase.phase}',
                functools.partial(drawing.refusals, phase=phase),
            )
