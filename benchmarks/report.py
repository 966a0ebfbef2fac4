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

"""The results as tables, on the terminal and in the documents."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import re

from benchmarks import run

_BEGIN = '<!-- benchmark:begin -->'
_END = '<!-- benchmark:end -->'


def usual_table(results: Sequence[run.UsualResult]) -> str:
    """Lay out the usual cases in Markdown."""
    lines = [
        '| guest / host cells | stock Nova | ours | ratio | ours, stock '
        'compute | ratio | same hosts |',
        '| --- | ---: | ---: | ---: | ---: | ---: | --- |',
    ]
    lines.extend(
        f'| {result.case.name} | {result.stock_us:,.0f} µs '
        f'| {result.ours_us:.0f} µs | {result.ratio:.0f} '
        f'| {result.ours_on_stock_us:.0f} µs | {result.ratio_on_stock:.0f} '
        f'| {"yes" if result.same else "NO"}, {result.passed} of '
        f'{result.hosts} |'
        for result in results
    )
    return '\n'.join(lines)


def explosive_table(results: Sequence[run.ExplosiveResult]) -> str:
    """Lay out the explosive cases in Markdown."""
    lines = [
        '| one host | stock Nova | ours | ours, stock compute |',
        '| --- | ---: | ---: | ---: |',
    ]
    lines.extend(
        f'| {result.case.name} | {_milliseconds(result.stock_ms)} '
        f'| {result.ours_ms:.2f} ms | {result.ours_on_stock_ms:.2f} ms |'
        for result in results
    )
    return '\n'.join(lines)


def write(path: pathlib.Path, text: str) -> None:
    """Put a text between the marks of a document.

    :raises ValueError: if the document has no such marks
    """
    before = path.read_text(encoding='utf-8')
    after, count = re.subn(
        f'{re.escape(_BEGIN)}.*?{re.escape(_END)}',
        lambda _: f'{_BEGIN}\n{text}\n{_END}',
        before,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(
            f'{path}: expected the marks {_BEGIN} and {_END} once, found '
            f'them {count} times'
        )
    path.write_text(after, encoding='utf-8')


def _milliseconds(value: float | None) -> str:
    return 'not run' if value is None else f'{value:,.0f} ms'
