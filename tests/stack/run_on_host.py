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

"""Runs a command on a compute host: ``run_on_host.py SOCKET LINE``.

SOCKET is the one that ``make stack-status`` shows, LINE is for the shell
there, which runs it as root.
"""

from __future__ import annotations

import json
import socket
import sys


def main(path: str, *words: str) -> int:
    """Run it.

    :returns: the exit status of the command
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(json.dumps(' '.join(words)).encode() + b'\n')
        with client.makefile('rb') as file:
            answer = json.load(file)
    sys.stdout.write(answer['out'])
    sys.stderr.write(answer['err'])
    return int(answer['status'])


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
