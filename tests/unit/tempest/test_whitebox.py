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

"""How the plugin of Tempest compares a host before and after."""

import importlib
import types

import pytest

pytest.importorskip(
    'tempest', reason='tempest is not installed: pip install .[tempest]'
)

whitebox = importlib.import_module(
    'nova_numa_hugepages.tempest.tests.whitebox.base'
)
ledger = importlib.import_module('nova_numa_hugepages.tempest.readings.ledger')
pools = importlib.import_module('nova_numa_hugepages.tempest.readings.pools')

GUEST = '0d6d6c1e-52ba-4d0b-9d2c-6b0c6a6f7c21'
NODE_0, NODE_1 = (0, 2048), (1, 2048)


class Comparing(whitebox.WhiteboxTest):
    """For what it can do; it is not run."""

    __test__ = False

    def runTest(self):
        """Do nothing."""


def comparing(**changes):
    test = Comparing()
    test.options = types.SimpleNamespace(
        **{'page_pools': 'dynamic', 'warm_margin_mib': 0, **changes}
    )
    return test


def look(*, total=(0, 0), free=(0, 0), held=(0, 0), guests=()):
    """A look at a host of two nodes, with pages of 2 MiB on each."""
    kernel, rows = {}, {}
    for node, key in enumerate((NODE_0, NODE_1)):
        kernel[key] = pools.Pool(total[node], free[node], 0)
        rows[key] = ledger.PoolRow(
            total=total[node],
            free=free[node],
            held=held[node],
            available=free[node],
            floor=0,
            grown=total[node],
            reserved=0,
            holds=dict.fromkeys(guests, ()),
        )
    return whitebox.Look(kernel, ledger.HostShow(rows, {}))


def test_empty_pools_grow_by_the_guest():
    comparing().assert_taken(look(), look(total=(0, 64)), {NODE_1: 64})


def test_idle_pages_are_taken_before_any_is_made():
    comparing().assert_taken(
        look(total=(0, 40), free=(0, 40)), look(total=(0, 64)), {NODE_1: 64}
    )


@pytest.mark.parametrize(
    'after',
    [
        pytest.param(look(total=(64, 0)), id='other-node'),
        pytest.param(look(total=(0, 96), free=(0, 32)), id='too-many'),
        pytest.param(look(total=(8, 64), free=(8, 0)), id='other-node-too'),
        pytest.param(look(total=(0, 64), free=(0, 4)), id='not-all-taken'),
    ],
)
def test_any_other_growth_is_found(after):
    with pytest.raises(AssertionError):
        comparing().assert_taken(look(), after, {NODE_1: 64})


def test_static_pools_do_not_grow():
    test = comparing(page_pools='static')
    before = look(total=(64, 64), free=(64, 64))

    test.assert_taken(before, look(total=(64, 64), free=(64, 0)), {NODE_1: 64})
    with pytest.raises(AssertionError):
        test.assert_taken(before, look(total=(64, 128)), {NODE_1: 64})


@pytest.mark.parametrize(
    ('now', 'back'),
    [
        pytest.param(look(), True, id='as-before'),
        pytest.param(look(total=(0, 8), free=(0, 8)), True, id='margin'),
        pytest.param(look(total=(0, 9), free=(0, 9)), False, id='beyond-it'),
        pytest.param(look(total=(0, 8)), False, id='in-use'),
        pytest.param(look(held=(1, 0)), False, id='held'),
        pytest.param(look(guests=[GUEST]), False, id='in-the-ledger'),
    ],
)
def test_a_host_is_as_before_but_for_its_margin(now, back):
    test = comparing(warm_margin_mib=16)

    assert test._is_back(look(), now, GUEST) is back


def test_static_pools_have_no_margin():
    test = comparing(warm_margin_mib=16, page_pools='static')

    now = look(total=(0, 8), free=(0, 8))

    assert not test._is_back(look(), now, GUEST)
