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

"""The privileged process, on behalf of one that has no privileges."""

from __future__ import annotations

import json

from tests.host import scene
from tests.host.rig import domains
from tests.host.rig import virtual

# What is run there: the privileged process is forked off, and all else goes
# on as nobody.
CODE = """
import json, os, pathlib, sys
from oslo_config import cfg
from oslo_privsep import priv_context
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.kernel import hostfs, hugetlb
from nova_numa_hugepages.hugepages.kernel import privsep, processes

cfg.CONF([], project='test')
privsep.context.start(priv_context.Method.FORK)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)

fs = hostfs.HostFS()
key = model.PoolKey(2, 2048)
try:
    hugetlb.Hugetlb(fs, hugetlb.write_number).set_persistent(key, 1)
except Exception as error:
    refused = type(error).__name__
kernel = hugetlb.Hugetlb(fs, privsep.write_number)
kernel.set_persistent(key, 33)
kernel.compact(2)
guest = processes.running(fs)[sys.argv[1]]
try:
    processes.MapsFile(fs)(guest.pid)
except Exception as error:
    unread = type(error).__name__
found = processes.pages_of(privsep.numa_maps(guest.pid))
try:
    privsep.numa_maps(os.getpid())
except ProcessLookupError:
    other = 'no guest'
[child] = pathlib.Path(
    f'/proc/self/task/{os.getpid()}/children').read_text().split()
status = dict(line.split(':', 1) for line in
              pathlib.Path(f'/proc/{child}/status').read_text().splitlines())
json.dump([refused, kernel.pool(key).total, unread,
           {str(key.node): count for key, count in found.items()}, other,
           status['CapEff'].strip()], sys.stdout)
"""
CAP_SYS_PTRACE = 19


def test_it_does_what_it_has_to_and_no_more(
    host: virtual.VirtualHost,
) -> None:
    """With one capability, it writes pools and sees another user's QEMU."""
    scene.set_pools(host, 0, 64)
    guest = scene.Guest(host, domains.Cell(1, 128, [2]), user=65533)
    guest.start()
    found = json.loads(host.python(CODE, guest.uuid).out)
    assert found == [
        'PoolsReadOnly',
        33,
        'KernelError',
        {'1': 64},
        'no guest',
        f'{1 << CAP_SYS_PTRACE:016x}',
    ]
