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

"""The monitor of a host, for which a minute goes by with each look.

``python -m tests.host.keep_looking FOLDER FILE`` looks each second, and writes
the names of the alarms that are raised to a file, in a line that begins with
the number of the look. FOLDER is that of the ledger.
"""

from __future__ import annotations

import itertools
import pathlib
import sys
import time

from nova_numa_hugepages.hugepages import virsh
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import collector
from nova_numa_hugepages.monitor import history
from nova_numa_hugepages.monitor import insight
from nova_numa_hugepages.monitor import named_kinds
from nova_numa_hugepages.monitor import service
from nova_numa_hugepages.monitor.thresholds import Thresholds
from tests.host import scene

_MINUTE_S = 60.0


def main(folder: pathlib.Path, file: pathlib.Path) -> None:
    """Look until it is ended."""
    policy = PoolPolicy(**scene.POLICY)
    ticks = 0.0
    monitor = service.Monitor(
        collector.Collector(
            hostfs.HostFS(),
            policy,
            folder / 'ledger.sqlite',
            virsh.Virsh('qemu:///system', 60.0),
        ).collect,
        alarms.load(Thresholds(after_s=0.0)),
        insight.Analyst(
            history.History(None),
            policy,
            named=[
                named_kinds.parse('large:vcpus=1:ram=512:mem_page_size=2MB')
            ],
            ticks=lambda: ticks,
        ),
        _MINUTE_S,
        ticks=lambda: ticks,
    )
    for number in itertools.count():
        assert monitor.step()
        names = {alarm['alarm'] for alarm in monitor.alarms() or ()}
        new = file.with_suffix('.new')
        new.write_text(f'{number} {" ".join(sorted(names))}\n')
        new.replace(file)
        ticks += _MINUTE_S
        time.sleep(1)


if __name__ == '__main__':
    main(*map(pathlib.Path, sys.argv[1:]))
