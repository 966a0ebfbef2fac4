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

"""Holds and releases while one write fails."""

from __future__ import annotations

import errno
import pathlib

import pytest

from nova_numa_hugepages import exception
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))

# Its memory is in small blocks until it is compacted, so that a hold writes
# its pool twice.
NODE = fake_kernel.FakeNode(
    total=1024, used=64, broken=950, mendable=None, pools={2048: 2}
)


@pytest.mark.parametrize('others', [False, True])
def test_whichever_write_fails_no_page_is_lost(
    tmp_path: pathlib.Path, others: bool
) -> None:
    failed = 0
    for step in range(100):
        rig = page_host.make(tmp_path / str(step), NODE)
        if others:
            rig.pools.hold(B, page_host.needs((0, 5)))
        before = (rig.account(0), rig.persistent(), rig.held())
        rig.steps.revive()
        rig.steps.fail_at = step
        try:
            rig.pools.hold(A, page_host.needs((0, 11)))
        except exception.LedgerError:
            failed += 1
        else:
            break
        rig.steps.revive()
        if (A, 'guest') in rig.held():
            # The one that ended it was written, and only its end failed.
            rig.pools.release(A)
        rig.reconcile([B])
        after = (rig.account(0), rig.persistent(), rig.held())
        assert after == before, step
        rig.kernel.check()
    assert failed > 4


def test_a_pool_that_can_not_be_written_does_not_keep_the_others_large(
    tmp_path: pathlib.Path,
) -> None:
    rig = page_host.make(tmp_path)
    before = (rig.account(0), rig.account(1), rig.persistent())

    def break_down(event: fake_kernel.Event) -> None:
        if event.kind == 'write' and event.what.startswith('write_nr 1'):
            raise OSError(errno.EIO, 'Input/output error')

    rig.watch(break_down)
    with pytest.raises(exception.KernelError):
        rig.pools.hold(A, page_host.needs((0, 5), (1, 5)))

    assert rig.held() == {}
    assert (rig.account(0), rig.account(1), rig.persistent()) == before
