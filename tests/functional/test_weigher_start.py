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


"""The demand that the weigher starts with: flavors, a file, options."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import fixtures
import pytest

from nova_numa_hugepages import exception
from tests.fixtures import cloud as embedded
from tests.functional import scarce

NO_FLAVORS: dict[tuple[str | None, str], Any] = {
    ('numa_hugepages', 'demand_flavors_interval'): 0
}


def boot(cloud: embedded.EmbeddedCloud, guest: dict[str, Any]) -> str | None:
    """Boot an instance, and delete it again.

    :returns: its host
    """
    flavor = cloud.api.create_flavor(
        'guest',
        vcpus=guest['vcpus'],
        ram_mib=guest['ram_mib'],
        extra_specs=guest.get('specs'),
    )
    [server_id] = cloud.api.boot('guest', flavor=flavor)
    server = cloud.api.wait(server_id)
    cloud.api.delete(server_id)
    cloud.api.delete_flavor(flavor)
    assert cloud.wait_until_empty() == []
    [host] = scarce.hosts_of([server])
    return host


def test_stock_weighers_take_the_roomy_host() -> None:
    # Given the weighers of stock Nova alone, when guests are booted that our
    # weigher keeps off the hosts with pages of 1 GiB,
    with embedded.EmbeddedCloud(scarce.HOSTS) as cloud:
        scarce.create_scarce(cloud.api)
        taken = [boot(cloud, scarce.SMALL), boot(cloud, scarce.FLOATING)]

    # then they go to the host that has most of all.
    assert taken == ['roomy', 'roomy']


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        pytest.param({}, 'plain', id='read'),
        pytest.param(NO_FLAVORS, 'roomy', id='not-read'),
    ],
)
def test_flavors_are_the_demand_before_any_request(
    options: dict[tuple[str | None, str], Any], expected: str
) -> None:
    # Given a cloud with flavors for which there were no requests yet,
    with embedded.EmbeddedCloud(
        scarce.HOSTS, numa_weigher=True, options=options
    ) as cloud:
        scarce.create_scarce(cloud.api)

        # when the first guest is one that floats,
        taken = boot(cloud, scarce.FLOATING)

    # then it keeps off the hosts that these flavors need, if they are read.
    assert taken == expected


def test_learned_demand_survives_a_restart(tmp_path: pathlib.Path) -> None:
    # Given clouds that keep their state in the same folder and know no
    # flavors before they are asked for,
    options: dict[tuple[str | None, str], Any] = {
        **NO_FLAVORS,
        (None, 'state_path'): str(tmp_path),
    }
    report = scarce.SCARCE['report']

    def start() -> embedded.EmbeddedCloud:
        return embedded.EmbeddedCloud(
            scarce.HOSTS, numa_weigher=True, options=options
        )

    # when a guest on pages of 1 GiB is asked for in the first one,
    with start() as cloud:
        before = boot(cloud, scarce.FLOATING)
        boot(cloud, {**report, 'specs': report['extra_specs']})
    # and one that floats in the next one,
    with start() as cloud:
        after = boot(cloud, scarce.FLOATING)

    # then the second cloud knows what the first one has learned,
    assert (before, after) == ('roomy', 'plain')
    # from a small file.
    [file] = tmp_path.glob('*demand*')
    assert file.name == 'nova-numa-hugepages-demand.json'
    kept = json.loads(file.read_text(encoding='utf-8'))
    assert [
        (kind['count'], [cell['page_size'] for cell in kind['cells']])
        for kind in kept['kinds']
    ] == [(1.0, [scarce.GIB_1])]


@pytest.mark.parametrize(
    ('option', 'value', 'problem'),
    [
        (
            'demand_mix',
            'database:abc',
            "flavor database has the share 'abc', expected a number above 0",
        ),
        (
            'weight_multiplier',
            'high',
            ', expected a finite number',
        ),
        (
            'demand_half_life',
            '5',
            ', expected a number from 60 to 315360000',
        ),
        (
            'demand_file',
            '/no/such/folder/demand.json',
            '/no/such/folder is not a folder that this service can write to. '
            'Name another file, or none to keep nothing over a restart',
        ),
    ],
)
def test_scheduler_refuses_to_start(
    option: str, value: str, problem: str
) -> None:
    # Given a bad option in the configuration file,
    cloud = embedded.EmbeddedCloud(
        scarce.HOSTS,
        numa_weigher=True,
        config=f'[numa_hugepages]\n{option} = {value}\n',
    )

    # when the services are started,
    with pytest.raises(fixtures.MultipleExceptions) as caught:
        cloud.setUp()

    # then the scheduler refuses, names the option, and says what is wrong.
    kind, error, _ = caught.value.args[0]
    assert kind is exception.InvalidOption
    assert str(error).startswith(f'option [numa_hugepages] {option}: ')
    assert str(error).endswith(problem)
