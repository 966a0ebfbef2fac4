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

"""The comparison of a host before and after, in the Tempest plugin."""

import importlib
import types

import pytest

pytest.importorskip(
    'tempest', reason='tempest is not installed: pip install .[tempest]'
)

whitebox = importlib.import_module(
    'nova_numa_hugepages.tempest.tests.whitebox.base'
)
host_show = importlib.import_module(
    'nova_numa_hugepages.tempest.readings.host_show'
)
readings = importlib.import_module(
    'nova_numa_hugepages.tempest.readings.kernel'
)

GUEST = '0d6d6c1e-52ba-4d0b-9d2c-6b0c6a6f7c21'
NODE_0, NODE_1 = (0, 2048), (1, 2048)


class Comparing(whitebox.WhiteboxTest):
    """Gives access to its methods; it is not run."""

    __test__ = False

    def runTest(self):
        """Do nothing."""


def comparing(**changes):
    test = Comparing()
    test.options = types.SimpleNamespace(
        **{'page_pools': 'dynamic', 'warm_margin_mib': 0, **changes}
    )
    return test


def snapshot(*, total=(0, 0), free=(0, 0), held=(0, 0), guests=()):
    """The state of a host of two nodes with 2 MiB pages."""
    kernel, rows = {}, {}
    for node, key in enumerate((NODE_0, NODE_1)):
        kernel[key] = readings.Pool(total[node], free[node], 0)
        rows[key] = host_show.PoolRow(
            total=total[node],
            free=free[node],
            held=held[node],
            available=free[node],
            floor=0,
            grown=total[node],
            reserved=0,
            holds=dict.fromkeys(guests, ()),
        )
    return whitebox.Snapshot(kernel, host_show.HostShow(rows, {}))


def test_empty_pools_grow_by_the_guest():
    comparing().assert_taken(snapshot(), snapshot(total=(0, 64)), {NODE_1: 64})


def test_idle_pages_are_used_before_any_is_allocated():
    comparing().assert_taken(
        snapshot(total=(0, 40), free=(0, 40)),
        snapshot(total=(0, 64)),
        {NODE_1: 64},
    )


@pytest.mark.parametrize(
    'after',
    [
        pytest.param(snapshot(total=(64, 0)), id='other-node'),
        pytest.param(snapshot(total=(0, 96), free=(0, 32)), id='too-many'),
        pytest.param(
            snapshot(total=(8, 64), free=(8, 0)), id='other-node-too'
        ),
        pytest.param(snapshot(total=(0, 64), free=(0, 4)), id='not-all-taken'),
    ],
)
def test_any_other_growth_is_an_error(after):
    with pytest.raises(AssertionError):
        comparing().assert_taken(snapshot(), after, {NODE_1: 64})


def test_static_pools_do_not_grow():
    test = comparing(page_pools='static')
    before = snapshot(total=(64, 64), free=(64, 64))

    test.assert_taken(
        before, snapshot(total=(64, 64), free=(64, 0)), {NODE_1: 64}
    )
    with pytest.raises(AssertionError):
        test.assert_taken(before, snapshot(total=(64, 128)), {NODE_1: 64})


@pytest.mark.parametrize(
    ('now', 'back'),
    [
        pytest.param(snapshot(), True, id='as-before'),
        pytest.param(snapshot(total=(0, 8), free=(0, 8)), True, id='margin'),
        pytest.param(
            snapshot(total=(0, 9), free=(0, 9)), False, id='beyond-it'
        ),
        pytest.param(snapshot(total=(0, 8)), False, id='in-use'),
        pytest.param(snapshot(held=(1, 0)), False, id='held'),
        pytest.param(snapshot(guests=[GUEST]), False, id='in-the-ledger'),
    ],
)
def test_a_host_is_as_before_but_for_its_margin(now, back):
    test = comparing(warm_margin_mib=16)

    assert test._is_restored(snapshot(), now, GUEST) is back


def test_static_pools_have_no_margin():
    test = comparing(warm_margin_mib=16, page_pools='static')

    now = snapshot(total=(0, 8), free=(0, 8))

    assert not test._is_restored(snapshot(), now, GUEST)
