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

"""The cloud for these tests, and the table of what became of them."""

from __future__ import annotations

from collections.abc import Iterator
import pathlib
import time

import pytest

from tests.stack import api
from tests.stack import checks
from tests.stack import configuration
from tests.stack import hosts
from tests.stack import install
from tests.stack import processes
from tests.stack import stack


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of these tests."""
    config.addinivalue_line(
        'markers', 'scenario(number, text): what the test shows'
    )
    config.addinivalue_line(
        'markers', 'smoke: run by make test-stack-smoke, too'
    )


@pytest.fixture(scope='session')
def cloud(pytestconfig: pytest.Config) -> Iterator[stack.Stack]:
    """The cloud."""
    capture = pytestconfig.pluginmanager.get_plugin('capturemanager')
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print(flush=True)
        try:
            install.prepare()
            running = stack.Stack().__enter__()
        except (SystemExit, processes.Failed) as reason:
            pytest.exit(str(reason), returncode=1)
    try:
        yield running
    finally:
        with capture.global_and_fixture_disabled():
            print(flush=True)
            running.__exit__()


@pytest.fixture(scope='session')
def client(cloud: stack.Stack) -> api.Client:
    """Who uses the cloud."""
    return api.Client()


@pytest.fixture(scope='session')
def node1(cloud: stack.Stack) -> hosts.ComputeHost:
    """A compute host with four nodes."""
    return cloud.nodes['node1']


@pytest.fixture(scope='session')
def node2(cloud: stack.Stack) -> hosts.ComputeHost:
    """The other one."""
    return cloud.nodes['node2']


@pytest.fixture(autouse=True)
def _nothing_left(
    client: api.Client,
    cloud: stack.Stack,
) -> Iterator[None]:
    """After each test nothing is held, and no page is left."""
    yield
    for host in cloud.nodes.values():
        # Of a test that failed half-way.
        if not host.is_on:
            host.boot()
        if not host.is_served:
            host.start_service()
            host.wait_for_service()
            client.force_down(host.name, False)
    client.delete(
        server.id for server in client.compute.servers(details=False)
    )
    for host in cloud.nodes.values():
        # It would count for all tests that come later.
        client.forget_allocations(host.name)
        if host.driver == configuration.OUR_DRIVER:
            checks.check_empty(host)
    checks.wait_until_reported(client, cloud.nodes.keys())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what became of a test."""
    outcome, seconds = _outcomes.get(report.nodeid, ('passed', 0.0))
    if report.outcome != 'passed':
        outcome = report.outcome
    # The cloud itself is no part of the first one.
    took = report.duration if report.when != 'setup' else 0.0
    _outcomes[report.nodeid] = (outcome, seconds + took)


_START = time.monotonic()
_outcomes: dict[str, tuple[str, float]] = {}
_scenarios: dict[str, tuple[int, str]] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Remember what each test shows, and sort the modules by that.

    What starts services again comes late, as they are slow at first.
    """
    first: dict[pathlib.Path, int] = {}
    for item in items:
        mark = item.get_closest_marker('scenario')
        assert mark is not None, item.nodeid
        _scenarios[item.nodeid] = mark.args
        first.setdefault(item.path, mark.args[0])
    items.sort(key=lambda item: first[item.path])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> None:
    """Print the table."""
    rows = sorted(
        (*_scenarios[node], *_outcomes[node])
        for node in _scenarios
        if node in _outcomes
    )
    if not rows:
        return
    terminalreporter.section('scenarios')
    width = max(len(text) for _, text, _, _ in rows)
    for number, text, outcome, seconds in rows:
        terminalreporter.write_line(
            f'{number:>2}  {text:<{width}}  {outcome:<7}  {seconds:5.0f} s'
        )
    terminalreporter.write_line(
        f'    {"all, with the cloud brought up and taken down":<{width}}  '
        f'         {time.monotonic() - _START:5.0f} s'
    )
