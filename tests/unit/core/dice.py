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


"""How the property tests draw, and how many examples they take.

Everything is drawn as integers, several yes/no answers as the bits of one,
because drawing is most of the time of a test.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import enum
import functools
import os
from typing import Any
from typing import TypeVar

import hypothesis
from hypothesis import strategies as st

T = TypeVar('T')

# Examples over all property tests of a module, by profile.
_EXAMPLES = {'ci': 1_000, 'nightly': 20_000}
_PROFILE = os.environ.get('HYPOTHESIS_PROFILE', 'ci')


def examples(share: float) -> hypothesis.settings:
    """Take a share of the examples of the chosen profile.

    :param share: part of the examples that one test may use, 0 to 1
    """
    return hypothesis.settings(
        max_examples=max(1, round(_EXAMPLES[_PROFILE] * share)),
        deadline=None,
        suppress_health_check=[
            hypothesis.HealthCheck.too_slow,
            hypothesis.HealthCheck.filter_too_much,
        ],
    )


class Focus(enum.Enum):
    """What the drawn cases are about; the rest is kept plain."""

    ALL = enum.auto()
    CPUS = enum.auto()
    MEMORY = enum.auto()
    PLACES = enum.auto()


@functools.cache
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


class Dice:
    """Short names for what is drawn; 0 and the first are the simplest."""

    def __init__(self, draw: Callable[[Any], Any], focus: Focus) -> None:
        self.draw = draw
        self.focus = focus

    def number(self, low: int, high: int) -> int:
        return self.draw(_integers(low, high))

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.number(0, len(choices) - 1)]

    def chance(self, percent: int) -> bool:
        return self.number(0, 99) >= 100 - percent

    def some(self, items: Sequence[T]) -> frozenset[T]:
        """Draw a subset, each item with a chance of one half."""
        bits = self.number(0, (1 << len(items)) - 1)
        return frozenset(
            item for place, item in enumerate(items) if bits >> place & 1
        )

    def about(self, *focuses: Focus) -> bool:
        return self.focus is Focus.ALL or self.focus in focuses
