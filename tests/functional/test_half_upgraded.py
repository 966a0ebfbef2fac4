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


"""Fleets in which some computes run stock Nova, or report nonsense."""

from __future__ import annotations

import logging

from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages.nova_fit import numa_fit
from tests.fixtures import cloud as embedded
from tests.functional import conftest

MIB_2 = 2048
GIB_1 = 1024 * 1024

HOSTS = (
    embedded.HostSpec(
        'stock',
        (
            embedded.NodeSpec(memory_mib=8192, pages={MIB_2: 1024, GIB_1: 2}),
            embedded.NodeSpec(memory_mib=8192, pages={MIB_2: 1024}),
        ),
        runs_us=False,
    ),
    embedded.HostSpec(
        'nonsense',
        (embedded.NodeSpec(memory_mib=8191, pages={MIB_2: 1024}),) * 2,
        raw_stats='{"version": 1, "cells": {"0": ',
    ),
    embedded.HostSpec(
        'newer',
        (embedded.NodeSpec(memory_mib=8190, pages={MIB_2: 1024}),) * 2,
        raw_stats='{"version": 99}',
    ),
)


def test_stock_compute_claims_with_the_fit_of_nova(
    boot: conftest.Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given computes that do not run our fit, and a record of who asks for
    # Nova's own,
    stock_fit = numa_fit.stock_fit()
    asked = []

    def record(*args: object, **kwargs: object) -> object:
        asked.append(args)
        return stock_fit(*args, **kwargs)

    monkeypatch.setattr(numa_fit, 'stock_fit', lambda: record)

    # when a guest is booted,
    [server] = boot(
        vcpus=2, ram_mib=1024, specs={'hw:cpu_policy': 'dedicated'}
    )

    # then the claim was Nova's own.
    assert server['status'] == 'ACTIVE'
    assert nova_hardware.numa_fit_instance_to_host is not stock_fit
    assert asked


@pytest.mark.parametrize(
    'specs',
    [
        pytest.param({'hw:mem_page_size': 'large'}, id='large'),
        pytest.param({'hw:mem_page_size': 'any'}, id='any'),
        pytest.param(
            {
                'hw:numa_cpus.0': '0',
                'hw:numa_mem.0': '512',
                'hw:numa_cpus.1': '1-3',
                'hw:numa_mem.1': '1536',
            },
            id='unlike-cells',
        ),
        pytest.param(
            {
                'hw:mem_page_size': '2MB',
                'hw:cpu_thread_policy': 'require',
            },
            id='whole-cores',
        ),
    ],
)
def test_stock_claim_accepts_what_the_filter_accepts(
    cloud: embedded.EmbeddedCloud,
    boot: conftest.Boot,
    specs: dict[str, str],
) -> None:
    # Given computes whose claims run Nova's own fit,
    # when guests are booted until there is no room,
    statuses = []
    for _ in range(6):
        [server] = boot(
            vcpus=4,
            ram_mib=2048,
            specs={
                'hw:cpu_policy': 'dedicated',
                'hw:numa_nodes': '2',
                **specs,
            },
        )
        statuses.append((server['status'], server.get('fault', {})))

    # then each runs or is refused by the scheduler; no claim fails.
    for status, fault in statuses:
        assert status == 'ACTIVE' or 'No valid host' in fault['message']
    assert 'ACTIVE' in [status for status, _ in statuses]


def test_nonsense_in_stats_is_logged_and_ignored(
    boot: conftest.Boot, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a compute that reports broken JSON and one of a later version,
    caplog.set_level(logging.WARNING)

    # when two guests are booted,
    servers = boot(
        vcpus=2, ram_mib=1024, specs={'hw:cpu_policy': 'dedicated'}, count=2
    )

    # then both run,
    assert [s['status'] for s in servers] == ['ACTIVE', 'ACTIVE']
    # and each host is warned about once at most.
    warnings = [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING
        and record.name.startswith('nova_numa_hugepages')
    ]
    assert len(warnings) == len(set(warnings)) <= 2
