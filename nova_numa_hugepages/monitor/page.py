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

"""The page that shows a host: one file of HTML, with nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from collections.abc import Sequence
import datetime
import functools
import hashlib
from typing import Any

import jinja2
import markupsafe

_UNITS = ('KiB', 'MiB', 'GiB', 'TiB')

# The width and height of a curve, in its own units.
_WIDTH = 240
_HEIGHT = 40
_DAY_S = 86400.0


def render(view: Mapping[str, Any], refresh_s: int | None = None) -> str:
    """Write the page.

    :param view: as `nova_numa_hugepages.monitor.view.view` returns it
    :param refresh_s: how often a browser reads it again; None for a file
    """
    return (
        _environment()
        .get_template('page.html')
        .render(view, refresh_s=refresh_s, css=_css(), policy=policy())
    )


@functools.cache
def policy() -> str:
    """Return the content policy: only the style sheet in the page itself."""
    digest = hashlib.sha256(_css().encode()).digest()
    return (
        "default-src 'none'; style-src 'sha256-"
        f"{base64.b64encode(digest).decode()}'; base-uri 'none'; "
        "form-action 'none'"
    )


@functools.cache
def _css() -> markupsafe.Markup:
    environment = _environment()
    assert environment.loader is not None
    source, _, _ = environment.loader.get_source(environment, 'page.css')
    # Ours, and it has nothing of a host.
    return markupsafe.Markup(source)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader('nova_numa_hugepages.monitor'),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        kib=_kib, count=_count, when=_when, span=_span, bar=_bar, curve=_curve
    )
    return environment


def _kib(amount_kib: float | None) -> str:
    """Write an amount of memory for people."""
    if amount_kib is None:
        return '–'
    amount, units = float(amount_kib), [*_UNITS]
    while abs(amount) >= 1024 and len(units) > 1:
        amount /= 1024
        del units[0]
    digits = f'{amount:.0f}' if abs(amount) >= 100 else f'{amount:.3g}'
    return f'{digits} {units[0]}'


def _count(number: int | None) -> str:
    """Write a number, if it is known."""
    return '–' if number is None else str(number)


def _when(time: float) -> str:
    found = datetime.datetime.fromtimestamp(time, datetime.UTC)
    return found.strftime('%Y-%m-%d %H:%M UTC')


def _span(seconds: float | None) -> str:
    """Write how long something takes."""
    if seconds is None:
        return ''
    if seconds < 3600:
        return f'{seconds / 60:.0f} min'
    if seconds < 2 * _DAY_S:
        return f'{seconds / 3600:.0f} h'
    return f'{seconds / _DAY_S:.0f} days'


def _bar(
    parts: Sequence[tuple[str, float]], total: float
) -> list[tuple[str, float, float]]:
    """Place parts one beside the other.

    :param parts: the name and the size of each
    :param total: the size of all of it
    :returns: names with the beginning and the width, in permille
    """
    found = []
    at = 0.0
    for name, size in parts:
        width = min(1000.0 - at, 1000 * size / total) if total else 0.0
        if width > 0:
            found.append((name, round(at, 2), round(width, 2)))
        at += max(0.0, width)
    return found


def _curve(
    points: Sequence[tuple[float, float]], now: float, most: float
) -> str:
    """Write the points of a curve of the last day.

    :param most: the value at the top
    :returns: as the ``points`` of a ``polyline``
    """
    return ' '.join(
        f'{_WIDTH * (1 - (now - time) / _DAY_S):.1f},'
        f'{_HEIGHT * (1 - min(1.0, value / most if most else 0.0)):.1f}'
        for time, value in points
        if now - _DAY_S <= time <= now
    )
