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

"""Time of a spawn with our driver, against Nova's: ``make bench-spawn``.

On one host with four nodes of the cloud of ``tests/stack``, with its pages
ready, so that nothing has to be made. Servers of one flavor are started one
after the other, with our driver, with the stock driver, and with ours again,
to separate a trend of the machine from a difference of the drivers. What is
compared is what Nova's log says that a spawn took on the hypervisor. The host
is emulated and slow, and so are both.
"""

from __future__ import annotations

import re
import statistics
import sys

from tests.host import scene
from tests.host.rig import virtual
from tests.stack import api
from tests.stack import configuration
from tests.stack import hosts
from tests.stack import install
from tests.stack import processes
from tests.stack import progress
from tests.stack import stack

SERVERS = 10
# More than any server has, on each node.
_PAGES = 128
_MIB = 128
_GOAL = 1.10
_TOOK = re.compile(r'Took ([\d.]+) seconds to spawn the instance')
_ROUNDS = (
    ('ours', configuration.OUR_DRIVER, SERVERS // 2),
    ('stock', configuration.STOCK_DRIVER, SERVERS),
    ('ours', configuration.OUR_DRIVER, SERVERS - SERVERS // 2),
)


def measure(cloud: stack.Stack) -> dict[str, list[float]]:
    """Spawn servers with both drivers.

    :returns: seconds of each spawn, by driver
    """
    client = api.Client()
    host = cloud.nodes['node1']
    scene.set_pools(host.machine, *[_PAGES] * virtual.NODES)
    flavor = client.pages(mib=_MIB)
    took: dict[str, list[float]] = {}
    for name, driver, count in _ROUNDS:
        with progress.step(f'{count} spawns with the driver {driver}'):
            host.restart_service(driver)
            # The first one starts Nova's helpers.
            _spawn(client, host, flavor)
            for _ in range(count):
                seconds = _spawn(client, host, flavor)
                took.setdefault(name, []).append(seconds)
    return took


def _spawn(client: api.Client, host: hosts.ComputeHost, flavor: str) -> float:
    before = len(host.log)
    server = client.boot(flavor, host=host.name)
    client.delete([server])
    found = _TOOK.search(host.log, before)
    assert found is not None
    return float(found[1])


def main() -> int:
    """Run it, and return whether the goal is met, as an exit status."""
    install.prepare()
    try:
        with stack.Stack(alone=True) as cloud:
            took = measure(cloud)
    except processes.Failed as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('Interrupted.', file=sys.stderr)
        return 1
    print('\n| driver | spawns | median | least | most |')
    print('| --- | ---: | ---: | ---: | ---: |')
    for name, seconds in took.items():
        print(
            f'| {name} | {len(seconds)} | {statistics.median(seconds):.2f} s '
            f'| {min(seconds):.2f} s | {max(seconds):.2f} s |'
        )
    ratio = statistics.median(took['ours']) / statistics.median(took['stock'])
    print(f'\nOurs takes {ratio:.2f} times what stock Nova takes.')
    if ratio > _GOAL:
        print(f'Goal missed: {_GOAL:.2f} at the most', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
