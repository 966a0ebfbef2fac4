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


"""The embedded cloud leaves nothing behind, and comes up again."""

from __future__ import annotations

import logging
import os
import pathlib
import tempfile
import threading

from nova import conf
from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages.scheduler import demand
from tests.fixtures import cloud as embedded

HOST = embedded.HostSpec(
    'host', (embedded.NodeSpec(memory_mib=2048, shared_cores=2),)
)


def test_cloud_leaves_nothing_behind(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process with its threads, environment, fit and temporary files,
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    threads = set(threading.enumerate())
    environment = dict(os.environ)
    fit = nova_hardware.numa_fit_instance_to_host
    handlers = list(logging.getLogger().handlers)

    # when a cloud comes and goes, twice,
    for _ in range(2):
        with embedded.EmbeddedCloud([HOST], numa_weigher=True) as cloud:
            flavor = cloud.api.create_flavor('small', vcpus=2, ram_mib=512)
            [server_id] = cloud.api.boot('guest', flavor=flavor)
            assert cloud.api.wait(server_id)['status'] == 'ACTIVE'

    # then all is as before.
    assert set(threading.enumerate()) == threads
    assert dict(os.environ) == environment
    assert nova_hardware.numa_fit_instance_to_host is fit
    assert list(logging.getLogger().handlers) == handlers
    assert list(tmp_path.rglob('*')) == []
    assert conf.CONF.quota.cores == 20
    assert demand.current() is None


def test_one_cloud_at_a_time() -> None:
    # Given a cloud, when another one is started beside it,
    with embedded.EmbeddedCloud([HOST]) as cloud:
        with pytest.raises(Exception, match='another cloud'):
            embedded.EmbeddedCloud([HOST]).setUp()

        # then the first one goes on.
        assert cloud.in_use() == []
