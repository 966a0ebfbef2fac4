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

"""Draw what two elastic guests on lent pages had over time.

``python -m tests.host.elastic_figure SVG <JSON`` takes what the story ``lend``
of `tests.host.elastic_story` has written.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from matplotlib import figure

# Of the Okabe-Ito palette, for all kinds of sight.
_COLOURS = {'one': '#0072B2', 'two': '#D55E00'}


def draw(seen: dict[str, Any], path: str) -> None:
    """Draw it.

    :param path: of the SVG that is written
    """
    drawn = figure.Figure(figsize=(8, 4), layout='constrained')
    axes = drawn.subplots()
    for name, points in seen['curves'].items():
        seconds, has, used = zip(*points, strict=True)
        colour = _COLOURS[name]
        axes.step(
            seconds, has, where='post', color=colour, label=f'{name}: has'
        )
        axes.plot(
            seconds,
            used,
            linestyle='--',
            color=colour,
            label=f'{name}: its programs use',
        )
    axes.set_xlabel('seconds')
    axes.set_ylabel('MiB')
    axes.set_ylim(bottom=0)
    axes.legend(
        loc='lower center', bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False
    )
    axes.spines[['top', 'right']].set_visible(False)
    drawn.savefig(path, metadata={'Date': None})


if __name__ == '__main__':
    draw(json.load(sys.stdin), sys.argv[1])
