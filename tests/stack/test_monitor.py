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

"""The monitor on two hosts at once, against Nova's API and Placement."""

from __future__ import annotations

from concurrent import futures
import sys

from prometheus_client import parser
import pytest

from tests.stack import api
from tests.stack import checks
from tests.stack import host_state
from tests.stack import hosts

_PREFIX = 'numa_hugepages_'

Rows = dict[str, list[tuple[dict[str, str], float]]]


@pytest.mark.scenario(12, 'two hosts watched: as in the API and Placement')
def test_two_hosts_watched_at_once(
    client: api.Client, node1: hosts.ComputeHost, node2: hosts.ComputeHost
) -> None:
    small = client.pages(mib=128)
    # It may have had another driver just now.
    checks.wait_for_room(client, small, node2)
    servers = {
        client.boot(client.pages(cells=2, mib=256), host='node1'): node1,
        client.boot(small, host='node1'): node1,
        client.boot(small, host='node2'): node2,
    }

    with futures.ThreadPoolExecutor() as pool:
        watched = dict(
            zip(
                ('node1', 'node2'),
                pool.map(_watch, (node1, node2)),
                strict=True,
            )
        )

    for name, rows in watched.items():
        here = {
            server for server, host in servers.items() if host.name == name
        }
        assert {labels['resource'] for labels, _ in rows['instance_info']} == (
            here
        )
        assert rows['monitor_problems'] == [({}, 0.0)]
    for server, host in servers.items():
        rows = watched[host.name]
        pages = host_state.expected(client.topology(server))
        assert _by_node(rows, 'instance_promised_pages', server) == pages
        assert _by_node(rows, 'instance_in_place_pages', server) == pages
        assert not _by_node(rows, 'instance_astray_pages', server)
        memory_mb = client.allocations(server)[host.name]['MEMORY_MB']
        assert sum(pages.values()) * host_state.PAGE_KIB == memory_mb * 1024
        (info,) = [
            labels
            for labels, _ in rows['instance_info']
            if labels['resource'] == server
        ]
        found = client.server(server)
        assert info['name'] == found['name']
        assert info['project'] == found['tenant_id']
        assert info['flavor'] == found['flavor']['original_name']


def _watch(host: hosts.ComputeHost) -> Rows:
    """Run the monitor on a host, and read its metrics."""
    text = host.machine.run(
        [
            *(sys.executable, '-m', 'nova_numa_hugepages.cmd.main'),
            *('monitor', '--once', '--state-path', hosts.STATE),
        ],
        timeout=300,
    ).out
    found: Rows = {}
    for family in parser.text_string_to_metric_families(text):
        for row in family.samples:
            found.setdefault(row.name.removeprefix(_PREFIX), []).append(
                (row.labels, row.value)
            )
    return found


def _by_node(rows: Rows, name: str, server: str) -> dict[int, int]:
    """Get the pages of a server by node."""
    return {
        int(labels['node']): int(value)
        for labels, value in rows.get(name, [])
        if labels['resource'] == server
    }
