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

"""Runs on a compute host and prints its state: ``read_host_state.py LEDGER``.

Only the standard library, and little of that: in a virtual host each import
takes long, and ``host show`` would take half a minute. What it prints is JSON:
the pools by node, a copy of the ledger, and, by the uuid of the guest, where
its memory is.
"""

import binascii
import glob
import json
import re
import sqlite3
import sys

POOL = '/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/{}'
COUNTERS = ('nr_hugepages', 'free_hugepages', 'surplus_hugepages')


def pools():
    """Read the counters of the pools of 2 MiB pages, by node."""
    nodes = sorted(
        int(re.search(r'\d+$', path)[0])
        for path in glob.glob('/sys/devices/system/node/node[0-9]*')
    )
    found = {}
    for node in nodes:
        found[node] = {}
        for name in COUNTERS:
            with open(POOL.format(node, name)) as file:
                found[node][name.partition('_')[0]] = int(file.read())
    return found


def ledger(path):
    """Copy the ledger as text, with what is in its log; None without one."""
    try:
        connection = sqlite3.connect(f'file:{path}?mode=ro', uri=True)
        return binascii.b2a_base64(connection.serialize()).decode()
    except sqlite3.OperationalError:
        return None


def guests():
    """Read the maps of the memory of guests, by uuid."""
    found = {}
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try:
            with open(path, 'rb') as file:
                words = file.read().split(b'\0')
            if b'-uuid' not in words:
                continue
            uuid = words[words.index(b'-uuid') + 1].decode()
            with open(path.replace('cmdline', 'numa_maps')) as file:
                found[uuid] = [line for line in file if ' huge ' in line]
        except FileNotFoundError:
            # It ended in between.
            continue
    return found


if __name__ == '__main__':
    json.dump(
        {'pools': pools(), 'ledger': ledger(sys.argv[1]), 'guests': guests()},
        sys.stdout,
    )
