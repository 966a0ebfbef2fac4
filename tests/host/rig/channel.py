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

"""The tests' end of the channel to the agent in a virtual host."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import queue
import signal
import socket
import threading
import time
from typing import Any
from typing import NamedTuple

# For the agent to notice that a command has run out of time, and to say so.
_GRACE_S = 30.0


class Result(NamedTuple):
    """How a command ended.

    :ivar status: its exit status; 124 if it ran out of time, negative if a
        signal ended it
    """

    out: str
    err: str
    status: int


class CommandFailed(Exception):
    """A command has failed that had to succeed."""

    def __init__(self, command: object, result: Result) -> None:
        self.result = result
        super().__init__(
            f'{command} ended with {result.status}\n'
            f'{result.out}{result.err}'.rstrip()
        )


class ChannelClosed(Exception):
    """The virtual host is gone."""


class Process:
    """A command that is running in a virtual host."""

    def __init__(self, channel: Channel, number: int, command: object) -> None:
        self._channel = channel
        self._number = number
        self._command = command
        self._result: Result | None = None

    @property
    def pid(self) -> int:
        """Its process id there."""
        return int(self._channel.ask(peek=self._number)['pid'])

    def output(self) -> str:
        """What it has written so far, its errors last."""
        found = self._channel.ask(peek=self._number)
        return f'{found["out"]}{found["err"]}'

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Wait until it has written a text.

        :raises TimeoutError: if it doesn't
        :raises CommandFailed: if it ended before
        """
        deadline = time.monotonic() + timeout
        while text not in self.output():
            if not self._channel.waits_for(self._number):
                raise CommandFailed(self._command, self.wait())
            if time.monotonic() > deadline:
                raise TimeoutError(f'{self._command} has not said {text!r}')
            time.sleep(0.1)

    def kill(self, number: int = signal.SIGKILL) -> Result:
        """Send a signal to it and its children, and wait for its end."""
        self._channel.ask(signal=self._number, number=int(number))
        return self.wait()

    def wait(self) -> Result:
        """Wait for its end. Its time limit was given when it was started."""
        if self._result is None:
            reply = self._channel.receive(self._number, None)
            self._result = Result(reply['out'], reply['err'], reply['status'])
        return self._result


class Channel:
    """Sends requests to the agent, from any number of threads.

    :param path: the socket of QEMU that leads to the agent's port
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        # The agent says once that it is there, with the number 0.
        self._replies: dict[int, queue.SimpleQueue[dict[str, Any] | None]]
        self._replies = {0: queue.SimpleQueue()}
        self._closed = False
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Let go of it. Idempotent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def greeted(self, timeout: float) -> bool:
        """Wait for the agent to be there.

        :returns: whether it is; it may have gone away, too
        """
        try:
            self.receive(0, timeout)
        except (TimeoutError, ChannelClosed):
            return False
        return True

    def start(
        self,
        command: list[str],
        *,
        stdin: str = '',
        timeout: float,
        env: dict[str, str] | None = None,
    ) -> Process:
        """Start a command."""
        number = self._send(
            run=command,
            input=stdin.encode().decode('latin-1'),
            timeout=timeout,
            env=env or {},
        )
        return Process(self, number, command)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request that is answered at once, and return the answer."""
        return self.receive(self._send(**request), _GRACE_S)

    def waits_for(self, number: int) -> bool:
        """Return whether the answer to a request is still to come."""
        replies = self._replies.get(number)
        return replies is not None and replies.empty()

    def receive(self, number: int, timeout: float | None) -> dict[str, Any]:
        """Wait for the answer to a request.

        :raises ChannelClosed: if the virtual host went away
        :raises TimeoutError: if there is none in time
        :raises OSError: if the agent couldn't do it
        """
        try:
            reply = self._replies[number].get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError('the virtual host does not answer') from None
        if reply is None:
            self._replies[number].put(None)
            raise ChannelClosed('the virtual host is gone')
        del self._replies[number]
        if 'error' in reply:
            raise OSError(reply['error'])
        for name in ('out', 'err'):
            if name in reply:
                reply[name] = (
                    reply[name].encode('latin-1').decode(errors='replace')
                )
        return reply

    def _send(self, **request: Any) -> int:
        with self._lock:
            if self._closed:
                raise ChannelClosed('the virtual host is gone')
            number = next(self._numbers)
            self._replies[number] = queue.SimpleQueue()
            data = json.dumps({'id': number, **request}).encode() + b'\n'
            try:
                self._socket.sendall(data)
            except OSError as problem:
                raise ChannelClosed(str(problem)) from problem
        return number

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            for line in self._socket.makefile('rb'):
                reply = json.loads(line)
                self._replies[reply['id']].put(reply)
        with self._lock:
            self._closed = True
            for replies in self._replies.values():
                replies.put(None)
