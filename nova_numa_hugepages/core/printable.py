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

"""Texts of others that are shown."""

from __future__ import annotations

# As Nova has it for names.
LONGEST = 255


def printable(text: str, longest: int = LONGEST) -> str:
    """Return a text without what must not be printed, and not too long.

    :param text: anything, also with parts that can't be encoded
    """
    return ''.join(
        letter if letter.isprintable() else '\N{REPLACEMENT CHARACTER}'
        for letter in text[:longest]
    )
