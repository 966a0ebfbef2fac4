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

"""The rig puts back the page pools of this machine that it changed."""

from __future__ import annotations

import pytest

from tests.fixtures.kernel import FakeKernel
from tests.fixtures.kernel import FakeNode
from tests.host.rig import pagepools

SMALL = 2048
LARGE = 1048576


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A machine with two nodes."""
    kernel = FakeKernel(
        tmp_path / 'machine',
        {0: FakeNode(pools={SMALL: 16}, cma_gib=2), 1: FakeNode()},
    )
    (tmp_path / 'lock').mkdir()
    monkeypatch.setattr(pagepools, '_NODES', kernel.fs.nodes_folder)
    monkeypatch.setattr(
        pagepools, '_BOOT', kernel.fs.proc / 'sys/kernel/random/boot_id'
    )
    monkeypatch.setattr(pagepools, '_FOLDER', tmp_path / 'lock')
    return kernel


def pool(kernel, node, size_kib):
    """Get the file with how many pages a pool has."""
    folder = kernel.fs.node_folder(node) / f'hugepages/hugepages-{size_kib}kB'
    return folder / 'nr_hugepages'


def counts(kernel):
    """Read how many pages each pool has."""
    return {
        (node, size): int(pool(kernel, node, size).read_text())
        for node in (0, 1)
        for size in (SMALL, LARGE)
    }


def test_what_the_tests_changed_is_put_back(kernel):
    before = counts(kernel)

    with pagepools.Keeper():
        pool(kernel, 0, SMALL).write_text('40')
        pool(kernel, 1, SMALL).write_text('7')

    assert counts(kernel) == before


def test_pools_of_others_stay_as_they_have_made_them(kernel):
    pool(kernel, 1, LARGE).write_text('84')

    with pagepools.Keeper():
        pool(kernel, 0, SMALL).write_text('40')
        # Another program ends, and gives its pages back.
        pool(kernel, 1, LARGE).write_text('0')

    assert counts(kernel) == {
        (0, SMALL): 16,
        (0, LARGE): 0,
        (1, SMALL): 0,
        (1, LARGE): 0,
    }


def test_what_a_killed_run_has_left_is_put_back(kernel, tmp_path):
    killed = pagepools.Keeper()
    killed.__enter__()
    pool(kernel, 0, SMALL).write_text('40')
    # It has no more the lock, and has put nothing back.
    killed._lock.close()

    with pagepools.Keeper():
        assert counts(kernel)[0, SMALL] == 16

    assert [path.name for path in (tmp_path / 'lock').iterdir()] == [
        'nova-numa-hugepages-tests.lock'
    ]


def test_one_at_a_time_has_them_whatever_its_home_folder(
    kernel, monkeypatch, tmp_path
):
    with pagepools.Keeper():
        for name in ('HOME', 'XDG_CACHE_HOME', 'HOST_RIG_STATE'):
            monkeypatch.setenv(name, str(tmp_path / 'another'))

        with (
            pytest.raises(pagepools.InUse, match='Wait for its end'),
            pagepools.Keeper(),
        ):
            pass
