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

"""The manager asks what it needs to know, and puts the host in order."""

import pytest

from tests.unit.hugepages import managed
from tests.unit.hugepages import page_host
from tests.unit.hugepages.managed import ONE
from tests.unit.hugepages.managed import TWO


def test_what_a_guest_returns_stays_its_own(manager, rig):
    # Given a guest that has given most of its pages back,
    managed.start(manager, rig)
    key = page_host.pool(1)
    rig.kernel.discard(ONE, key, 15)
    assert rig.kernel.pool(key).free == 15

    # when pools are put in order, and another guest starts,
    manager.reconcile(lambda: frozenset({ONE}), frozenset)
    with manager.starting(
        TWO, page_host.needs((1, 10)), is_defined=lambda: True
    ):
        rig.kernel.start_guest(TWO, {key: 10})
        manager.started(TWO)

    # then there is still what the first one may want back.
    assert rig.kernel.pool(key).free == 15
    assert rig.pools.usage()[key].promised == 15
    assert rig.pools.usage()[key].available == 0


def test_a_guest_that_nova_has_here_is_not_gone(manager, rig):
    managed.start(manager, rig)
    rig.kernel.stop_guest(ONE)
    manager.reconcile(
        frozenset, frozenset, lambda: frozenset({ONE}), starting=True
    )
    assert rig.held() == {(ONE, 'guest'): managed.ALL}
    manager.reconcile(frozenset, frozenset, frozenset, starting=True)
    assert rig.held() == {}


def test_migrations_are_listed_only_if_pages_are_held_for_one(manager, rig):
    managed.start(manager, rig)

    def fail():
        pytest.fail('it was asked')

    manager.reconcile(lambda: frozenset({ONE}), fail)
    manager.incoming(page_host.guest(2), page_host.needs((0, 3)))
    rig.now += 1
    manager.reconcile(lambda: frozenset({ONE}), frozenset)

    assert rig.held() == {(ONE, 'guest'): managed.ALL}
