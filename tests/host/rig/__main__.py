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

"""Sets up what the tests on real kernels need: ``python -m tests.host.rig``.

With ``nightly``, what the nightly ones need, too. With ``shell``, it boots a
virtual host and runs the commands that are typed.
"""

from __future__ import annotations

import sys

from tests.host.rig import setup
from tests.host.rig import virtual


def main() -> None:
    """Run it."""
    setup.prepare(with_nova=sys.argv[1:] == ['nightly'])
    if sys.argv[1:] != ['shell']:
        return
    with virtual.VirtualHost('shell') as host:
        print('A command a line, end with Ctrl-D.', flush=True)
        for line in sys.stdin:
            result = host.run(line, check=False)
            print(f'{result.out}{result.err}[{result.status}]', flush=True)


if __name__ == '__main__':
    main()
