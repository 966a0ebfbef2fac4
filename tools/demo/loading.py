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


"""Read scenario files."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from tools.demo import problems
from tools.demo import scenario
from tools.demo import yamllines


class ScenarioError(Exception):
    """A scenario file is not right.

    :ivar problems: (line from 1 or None, what was found and expected)
    """

    def __init__(
        self, file: str, problems: Sequence[tuple[int | None, str]]
    ) -> None:
        super().__init__(
            '\n'.join(
                f'{file}: {text}' if line is None else f'{file}:{line}: {text}'
                for line, text in problems
            )
        )
        self.problems = problems


def load(path: pathlib.Path) -> scenario.Scenario:
    """Read a scenario file.

    :raises: `ScenarioError`, with every problem that was found
    """
    try:
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise ScenarioError(
            str(path), [(None, f'cannot read it: {error.strerror}')]
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b'\n', 0, error.start) + 1
        raise ScenarioError(
            str(path), [(line, 'found bytes that are no UTF-8, expected text')]
        ) from error
    try:
        document = yamllines.load(text)
    except yamllines.YAMLError as error:
        raise ScenarioError(str(path), [(error.line, str(error))]) from error
    if found := problems.find(document):
        raise ScenarioError(str(path), found)
    return scenario.build(str(path), document)
