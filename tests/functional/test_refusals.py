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


"""Rejected hosts: what the user and the operator see."""

from __future__ import annotations

import logging

import pytest

from tests.fixtures import cloud as embedded
from tests.functional import conftest

MIB_2 = 2048
GIB_1 = 1024 * 1024

FILTER = 'nova_numa_hugepages.scheduler.filters'

HOSTS = (
    embedded.HostSpec('small-pool', (embedded.NodeSpec(pages={MIB_2: 512}),)),
    embedded.HostSpec('large-pool', (embedded.NodeSpec(pages={MIB_2: 2048}),)),
    embedded.HostSpec('no-pool', (embedded.NodeSpec(),)),
)

HUGE = {'hw:cpu_policy': 'dedicated', 'hw:mem_page_size': '2MB'}


@pytest.fixture
def reasons(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log from INFO on."""
    caplog.set_level(logging.INFO)
    return caplog


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Get the lines of our filter."""
    return [r.getMessage() for r in caplog.records if r.name == FILTER]


def test_no_host_fits(
    reasons: pytest.LogCaptureFixture, boot: conftest.Boot
) -> None:
    # Given nodes with 2048 pages at most, when a guest needs 2560,
    [server] = boot(vcpus=1, ram_mib=5120, specs=HUGE)

    # then the user learns that there is no host,
    assert server['status'] == 'ERROR'
    assert 'No valid host was found' in server['fault']['message']
    # and the operator why, in one line.
    assert lines(reasons) == [
        'NUMAHugepagesFilter rejected 3 of 3 hosts: '
        '2 hosts: no NUMA node with 2560 free 2 MiB pages (most: 2048); '
        '1 host: no 2 MiB pages'
    ]


def test_some_hosts_fit(
    reasons: pytest.LogCaptureFixture, boot: conftest.Boot
) -> None:
    # Given one host with 2048 pages, when a guest needs 1024,
    [server] = boot(vcpus=1, ram_mib=2048, specs=HUGE)

    # then it gets there, and the line counts the others.
    assert server['status'] == 'ACTIVE'
    assert server['OS-EXT-SRV-ATTR:host'] == 'large-pool'
    assert lines(reasons) == [
        'NUMAHugepagesFilter rejected 2 of 3 hosts: '
        '1 host: no 2 MiB pages; '
        '1 host: no NUMA node with 1024 free 2 MiB pages (most: 512)'
    ]


def test_all_hosts_fit(
    reasons: pytest.LogCaptureFixture, boot: conftest.Boot
) -> None:
    # Given three hosts, when a guest fits on each,
    [server] = boot(vcpus=1, ram_mib=512, specs={'hw:cpu_policy': 'dedicated'})

    # then there is nothing to log.
    assert server['status'] == 'ACTIVE'
    assert lines(reasons) == []


def test_full_hosts_are_logged_with_the_nearest_miss(
    reasons: pytest.LogCaptureFixture, boot: conftest.Boot
) -> None:
    # Given guests that leave 512 free pages on the largest pool,
    [first] = boot(vcpus=1, ram_mib=3072, specs=HUGE)
    assert first['OS-EXT-SRV-ATTR:host'] == 'large-pool'
    reasons.clear()

    # when another one needs 1024,
    [second] = boot(vcpus=1, ram_mib=2048, specs=HUGE)

    # then the line has what is left, not what there was.
    assert second['status'] == 'ERROR'
    assert lines(reasons) == [
        'NUMAHugepagesFilter rejected 3 of 3 hosts: '
        '2 hosts: no NUMA node with 1024 free 2 MiB pages (most: 512); '
        '1 host: no 2 MiB pages'
    ]
