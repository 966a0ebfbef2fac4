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
import time

import pytest

from tests.stack import client as client_module
from tests.stack import configuration
from tests.stack import hosts
from tests.stack import install
from tests.stack import look
from tests.stack import processes
from tests.stack import stack as stack_module

_NOTHING = [0, 0, 0, 0]


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks of these tests."""
    config.addinivalue_line(
        'markers', 'scenario(number, text): what the test shows'
    )


@pytest.fixture(scope='session')
def stack(pytestconfig: pytest.Config) -> Iterator[stack_module.Stack]:
    """The cloud."""
    capture = pytestconfig.pluginmanager.get_plugin('capturemanager')
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print(flush=True)
        try:
            install.prepare()
            running = stack_module.Stack().__enter__()
        except (SystemExit, processes.Failed) as reason:
            pytest.exit(str(reason), returncode=1)
    try:
        yield running
    finally:
        with capture.global_and_fixture_disabled():
            print(flush=True)
            running.__exit__()


@pytest.fixture(scope='session')
def client(stack: stack_module.Stack) -> client_module.Client:
    """Who uses the cloud."""
    return client_module.Client()


@pytest.fixture(scope='session')
def node1(stack: stack_module.Stack) -> hosts.ComputeHost:
    """A compute host with four nodes."""
    return stack.nodes['node1']


@pytest.fixture(scope='session')
def node2(stack: stack_module.Stack) -> hosts.ComputeHost:
    """The other one."""
    return stack.nodes['node2']


@pytest.fixture(autouse=True)
def _nothing_left(
    client: client_module.Client,
    stack: stack_module.Stack,
) -> Iterator[None]:
    """After each test nothing is held, and no page is left."""
    yield
    for host in stack.nodes.values():
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
    for host in stack.nodes.values():
        if host.driver != configuration.OUR_DRIVER:
            continue
        seen = look.look(host)
        assert seen.holds == {}, host.name
        assert seen.placed == {}, host.name
        assert seen.total == _NOTHING, host.name


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
_scenarios: dict[str, tuple[str, str]] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Remember what each test shows."""
    for item in items:
        mark = item.get_closest_marker('scenario')
        if mark is not None:
            number, text = mark.args
            _scenarios[item.nodeid] = (str(number), text)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> None:
    """Print the table."""
    rows = [
        (*_scenarios[node], *_outcomes[node])
        for node in _scenarios
        if node in _outcomes
    ]
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
