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

"""``host release`` for an instance that may be about to start."""

import dataclasses
import time

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import THREE
from tests.unit.cmd.host.command_host import TWO


@pytest.fixture
def host(tmp_path):
    return command_host.one_runs_one_is_off(tmp_path)


@pytest.mark.parametrize('purpose', model.Purpose)
def test_an_instance_that_may_be_about_to_start_is_refused(
    host, capsys, purpose
):
    # given: pages that were just held, and others long ago; no process yet
    host.hold(THREE, (1, 4))
    host.long_ago()
    host.hold(THREE, (0, 8), purpose=purpose)
    before = host.holders()

    # when, then
    assert host.run('release', '--yes', THREE) == 1
    err = capsys.readouterr().err
    assert (
        'Not released: the instance may be about to start, as some of this '
        'has been held for less than start_time_limit (600 s). Try again '
        'after 2' in err
    )
    assert 'Use --force to override.' in err
    assert host.holders() == before

    # when, then
    assert host.run('release', '--yes', '--force', THREE) == 0
    assert THREE not in host.holders()


def test_an_instance_that_has_started_is_not_about_to_start(host):
    # given: a guest that ran on pages that were just held, and is off
    host.hold(THREE, (1, 8))
    with Ledger.open(host.ledger) as ledger:
        ledger.set_state(THREE, model.Purpose.GUEST, model.State.TAKEN)

    assert host.run('release', '--yes', THREE) == 0


def test_how_long_a_start_may_take_is_configured(host):
    # given: pages that are held for two minutes
    with Ledger.open(host.ledger) as ledger:
        ledger.replace_holds(
            TWO,
            model.Purpose.GUEST,
            [
                dataclasses.replace(hold, since=time.time() - 120)
                for hold in ledger.holds(TWO)
            ],
        )
    assert host.run('release', '--yes', TWO) == 1

    with host.conf.open('a') as file:
        file.write('[numa_hugepages]\nstart_time_limit = 60\n')
    assert host.run('release', '--yes', TWO) == 0
