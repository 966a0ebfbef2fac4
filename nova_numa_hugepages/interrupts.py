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

"""Signals that end a program, handled so that it can put things in order."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import signal
from typing import Any
from typing import NoReturn

# A terminal or a service manager sends them to all processes at a time.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def handling(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Handle `SIGNALS` in another way meanwhile.

    Also where the shell has had SIGINT ignored, as it does for what it runs
    in the background of a script; but not what nohup has ignored.
    """
    before = {
        number: signal.signal(number, handler)
        for number in SIGNALS
        if number != signal.SIGHUP
        or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def interrupt(*_: object) -> NoReturn:
    """Handle a signal as an interrupt by a user.

    :raises KeyboardInterrupt: always
    """
    raise KeyboardInterrupt
