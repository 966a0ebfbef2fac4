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

"""Commands on the compute hosts, for other processes."""

from __future__ import annotations

import json
import pathlib
import socketserver
import sys
import threading
from typing import cast

from tests.host.rig import virtual
from tests.stack import locations

# Longer than any command of a person.
_LIMIT_S = 3600.0


class CommandServer(socketserver.ThreadingUnixStreamServer):
    """Runs commands on a compute host for other processes.

    A request is a line for the shell of the host, as JSON; the answer has
    ``out``, ``err`` and ``status``. A context manager.
    """

    daemon_threads = True

    def __init__(self, machine: virtual.VirtualHost) -> None:
        self.machine = machine
        path = socket(machine.name)
        path.unlink(missing_ok=True)
        super().__init__(str(path), _Handler)

    def __enter__(self) -> CommandServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        socket(self.machine.name).unlink(missing_ok=True)


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        line = json.loads(self.rfile.readline())
        machine = cast(CommandServer, self.server).machine
        result = machine.run(['sh', '-c', line], timeout=_LIMIT_S, check=False)
        self.wfile.write(json.dumps(result._asdict()).encode())


def socket(name: str) -> pathlib.Path:
    """Return the path of the socket of a host."""
    return locations.folder() / f'{name}.commands'


def command(name: str) -> str:
    """Return the words before a command that is to run on a host."""
    script = locations.HERE / 'run_on_host.py'
    return f'{sys.executable} {script} {socket(name)}'
