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

"""Messages about progress, with the time that each step took."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import sys
import time

_BEGAN = time.monotonic()


def say(text: str) -> None:
    """Print a line, with the seconds since the start."""
    print(f'{time.monotonic() - _BEGAN:4.0f} s  {text}', flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Print that a step begins, and how long it took.

    On a terminal that is one line.
    """
    began = time.monotonic()
    live = sys.stdout.isatty()
    if live:
        print(f'{began - _BEGAN:4.0f} s  {text}…', end='', flush=True)
    else:
        say(f'{text}…')
    try:
        yield
    except BaseException:
        if live:
            print(' failed', flush=True)
        raise
    took = f'{time.monotonic() - began:.0f} s'
    if live:
        print(f' {took}', flush=True)
    else:
        say(f'{text}: done in {took}')
