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

"""Pools that turn out to be read-only are offered no more."""

import pytest

from nova_numa_hugepages import exception
from tests.unit.hugepages import managed
from tests.unit.hugepages.managed import ONE


def helper_dies(event):
    """Let no pool be written, as a hook of the kernel."""
    if event.kind == 'write':
        raise exception.PoolsReadOnly(
            'the privileged helper cannot be started'
        )


def offered(manager):
    """Check whether the scheduler is offered pages to be allocated."""
    return any(view.allocatable for view in manager.snapshot().pools.values())


def test_pools_that_turn_out_read_only_are_offered_no_more(
    manager, rig, caplog
):
    assert offered(manager)
    rig.kernel.hook = helper_dies

    with (
        pytest.raises(exception.PoolsReadOnly),
        manager.starting(ONE, managed.NEEDS, is_defined=lambda: False),
    ):
        pytest.fail('it was started')

    assert rig.held() == {}
    assert not offered(manager)
    assert [record.getMessage() for record in caplog.records] == [
        'Huge page pools are read-only (the privileged helper cannot be '
        'started): reserving from existing pages only. Restart nova-compute '
        'once this is fixed.'
    ]


def test_a_guest_that_was_to_come_finds_out_as_well(manager, rig):
    rig.kernel.hook = helper_dies

    with pytest.raises(exception.PoolsReadOnly):
        manager.incoming(ONE, managed.NEEDS)

    assert rig.held() == {}
    assert not offered(manager)
