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

"""Configuration files as oslo.config reads them."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib

# Options by group. A list stands for an option that is given several times.
Options = Mapping[str, Mapping[str, object]]


def write(path: pathlib.Path, *layers: Options) -> None:
    """Write a configuration file.

    :param layers: what is in it; later ones win
    """
    merged: dict[str, dict[str, object]] = {}
    for layer in layers:
        for group, options in layer.items():
            merged.setdefault(group, {}).update(options)
    lines = []
    for group, options in merged.items():
        lines.append(f'[{group}]')
        for name, value in options.items():
            values = value if isinstance(value, list) else [value]
            lines += [f'{name} = {_text(one)}' for one in values]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join([*lines, '']))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
