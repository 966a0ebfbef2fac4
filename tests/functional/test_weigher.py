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


"""The weigher in Nova's scheduler: it chooses the host."""

from __future__ import annotations

from collections.abc import Iterator
import logging

import fixtures
import pytest

from nova_numa_hugepages.scheduler import weights
from tests.fixtures import cloud as embedded
from tests.functional import conftest
from tests.functional import scarce

HOSTS = scarce.HOSTS

# Pinned, so that no test teaches the weigher something for the next one.
CLOUD = {
    'numa_weigher': True,
    'options': {
        ('numa_hugepages', 'demand_mix'): {'database': '1', 'report': '1'},
    },
}

DRIVER = 'nova.virt.libvirt.driver.LibvirtDriver'


@pytest.fixture(scope='module', autouse=True)
def flavors(cloud: embedded.EmbeddedCloud) -> Iterator[dict[str, str]]:
    """The flavors of the demand, created before the first request."""
    ids = scarce.create_scarce(cloud.api)
    yield ids
    for flavor in ids.values():
        cloud.api.delete_flavor(flavor)


def test_weigher_is_called_and_logs_its_scores(
    boot: conftest.Boot, caplog: pytest.LogCaptureFixture
) -> None:
    # Given the log of the weigher,
    caplog.set_level(logging.DEBUG, weights.__name__)

    # when a guest is booted that fits on all hosts,
    [server] = boot(**scarce.SMALL)

    # then it goes where nothing scarce is taken, and the log says why.
    assert scarce.hosts_of([server]) == ['plain']
    logged = [
        record.getMessage()
        for record in caplog.records
        if record.name == weights.__name__
    ]
    assert logged == [
        'NUMAHugepagesWeigher: best of 3 hosts: '
        'plain (cost 0.0000%); '
        'medium (cost 4.0000%, '
        'takes 1 of 5 slots for 4 CPUs and 4 GiB in 1 GiB pages); '
        'roomy (cost 29.0000%, '
        'takes 1 of 2 slots for 8 CPUs and 8 GiB in 1 GiB pages '
        'and 1 of 5 slots for 4 CPUs and 4 GiB in 1 GiB pages)'
    ]


def test_floating_guest_goes_where_nothing_is_scarce(
    boot: conftest.Boot,
) -> None:
    # Given a guest that asks for no cells, pages or CPUs, when it is booted,
    [server] = boot(**scarce.FLOATING)

    # then it keeps off the hosts that have pages of 1 GiB.
    assert scarce.hosts_of([server]) == ['plain']


@pytest.mark.parametrize('multiplier', ['0', '-10000'])
def test_aggregate_overrides_the_multiplier(
    cloud: embedded.EmbeddedCloud, boot: conftest.Boot, multiplier: str
) -> None:
    # Given an aggregate of all hosts, where the weigher has no say or the
    # opposite one,
    with cloud.aggregate(
        ['roomy', 'medium', 'plain'],
        {'numa_hugepages_weight_multiplier': multiplier},
    ):
        # when a guest is booted,
        [inside] = boot(**scarce.SMALL)
    # and another one when there is no aggregate any more,
    [after] = boot(**scarce.SMALL)

    # then only the first one goes to the host that stock Nova would take.
    assert scarce.hosts_of([inside, after]) == ['roomy', 'plain']


def test_each_server_of_a_request_is_weighed(boot: conftest.Boot) -> None:
    # Given room for three guests where nothing scarce is taken, and then for
    # two where one slot is, when six are asked for in one request,
    servers = boot(**scarce.SMALL, count=6)

    # then each one goes to the best host that is left.
    assert scarce.hosts_of(servers) == (
        ['plain'] * 3 + ['medium'] * 2 + ['roomy']
    )


@pytest.mark.parametrize('resize', [False, True], ids=['migrate', 'resize'])
def test_moved_server_is_weighed_alike(
    cloud: embedded.EmbeddedCloud,
    boot: conftest.Boot,
    flavors: dict[str, str],
    resize: bool,
) -> None:
    # Given a guest on the best host,
    [server] = boot(**scarce.SMALL)
    assert scarce.hosts_of([server]) == ['plain']

    # when it is moved away from there,
    larger = cloud.api.create_flavor(
        'larger', vcpus=4, ram_mib=1024, extra_specs=scarce.SMALL['specs']
    )
    path = f'/servers/{server["id"]}/action'
    action = {'resize': {'flavorRef': larger}} if resize else {'migrate': None}
    # (the copy of its disk is what needs real hosts)
    with fixtures.MockPatch(
        f'{DRIVER}.migrate_disk_and_power_off', return_value='{}'
    ):
        cloud.api.request('POST', path, action)
        moved = cloud.api.wait(
            server['id'], until=('VERIFY_RESIZE', 'ACTIVE', 'ERROR')
        )
    # (Nova itself gives back what a moved guest had only at its next audit)
    cloud.api.request('POST', path, {'revertResize': None})
    cloud.api.wait(server['id'])
    cloud.api.delete_flavor(larger)

    # then it goes to the next best, not to the one that has most of all.
    assert scarce.hosts_of([moved]) == ['medium']
