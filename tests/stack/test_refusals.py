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

"""What is refused, where people can see why."""

from __future__ import annotations

import re
import subprocess

from openstack import exceptions
import pytest

from tests.stack import api
from tests.stack import configuration
from tests.stack import ini
from tests.stack import locations
from tests.stack import processes
from tests.stack import services

_START_S = 90.0


@pytest.mark.scenario(10, 'bad extra specs are refused by the API')
@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('numa_hugepages:max_distance', '9'),
        ('numa_hugepages:max_distance', 'near'),
        ('numa_hugepages:guest_distances', 'perhaps'),
        ('numa_hugepages:no_such_thing', '1'),
    ],
)
def test_bad_extra_specs(client: api.Client, name: str, value: str) -> None:
    flavor = client.compute.create_flavor(name='bad', vcpus=1, ram=128, disk=1)
    try:
        with pytest.raises(exceptions.BadRequestException) as refused:
            client.compute.create_flavor_extra_specs(flavor, {name: value})
    finally:
        client.compute.delete_flavor(flavor)
    # Nova names the value if that is what is wrong, and else the option.
    assert re.search(f"'{value}' is|{name}", str(refused.value))


@pytest.mark.scenario(10, 'bad options: the service does not start')
@pytest.mark.parametrize(
    ('service', 'option', 'value'),
    [
        ('nova-scheduler', 'demand_mix', 'none of it'),
        ('nova-compute', 'node_ceiling_percent', '101'),
        ('nova-compute', 'page_pools', 'sometimes'),
    ],
)
def test_bad_options(service: str, option: str, value: str) -> None:
    bad = locations.configuration('nova') / 'bad.conf'
    ini.write(bad, {'numa_hugepages': {option: value}})
    configuration.write_compute(
        'here',
        locations.LOOPBACK,
        configuration.OUR_DRIVER,
        {
            'libvirt': {'virt_type': 'qemu'},
            'DEFAULT': {'state_path': locations.state('here')},
        },
    )
    command = {
        'nova-scheduler': services.worker('nova-scheduler'),
        'nova-compute': services.nova_compute('here'),
    }[service]

    ended = subprocess.run(
        [*command, '--config-file', str(bad)],
        capture_output=True,
        text=True,
        timeout=_START_S,
        env=processes.environment(),
        cwd=locations.folder(),
    )

    assert ended.returncode != 0
    output = ended.stdout + ended.stderr
    assert f'option [numa_hugepages] {option}: ' in output, output
