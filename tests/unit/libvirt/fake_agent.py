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

"""An agent in a guest."""

from __future__ import annotations

import base64
import json

# What a kernel says of its node 1.
MEMINFO = """\
Node 1 MemTotal:        4096000 kB
Node 1 MemFree:          100000 kB
Node 1 MemUsed:         3996000 kB
Node 1 Active:           500000 kB
Node 1 Active(anon):     450000 kB
Node 1 Active(file):      20000 kB
Node 1 Inactive(file):     3000 kB
Node 1 SReclaimable:        400 kB
Node 1 HugePages_Total:     0
"""


class Agent:
    """An agent with files.

    :ivar asked: the commands that it was asked
    :ivar answers: what it answers to some of them instead
    """

    def __init__(self, **files: str) -> None:
        self.files = files
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.answers: dict[str, str] = {}

    def __call__(self, domain: object, command: str) -> str:
        """Answer a command."""
        document = json.loads(command)
        name, given = document['execute'], document['arguments']
        self.asked.append((name, given))
        if name in self.answers:
            return self.answers[name]
        if name == 'guest-file-open':
            folder = given['path'].split('/')[-2]
            return json.dumps({'return': [*self.files].index(folder) + 1})
        if name == 'guest-file-read':
            text = [*self.files.values()][given['handle'] - 1]
            data = base64.b64encode(text.encode()).decode()
            return json.dumps(
                {'return': {'count': len(text), 'buf-b64': data, 'eof': True}}
            )
        return '{"return": {}}'


def meminfo(node: int, total_mib: int, usable_mib: int) -> str:
    """Return what a kernel says of a node."""
    return (
        f'Node {node} MemTotal: {total_mib * 1024} kB\n'
        f'Node {node} MemFree: {usable_mib * 1024} kB\n'
        f'Node {node} Active(file): 0 kB\n'
        f'Node {node} Inactive(file): 0 kB\n'
        f'Node {node} SReclaimable: 0 kB\n'
    )
