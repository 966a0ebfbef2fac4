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

"""The picture of ``host show``, on a terminal and elsewhere."""

import io
import re
import sys

import pytest
from rich import console

from nova_numa_hugepages.cmd.host.inspect import collect
from nova_numa_hugepages.cmd.host.render import picture
from nova_numa_hugepages.cmd.host.settings import Settings
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import SMALL
from tests.unit.cmd.host.command_host import THREE
from tests.unit.cmd.host.command_host import TWO

FOUR = '44444444-4444-4444-8444-444444444444'


@pytest.fixture
def host(tmp_path):
    return command_host.two_guests(tmp_path)


def shown(host, capsys, *words):
    """Run ``host show``, and get its output."""
    assert host.run('show', *words) == 0
    return capsys.readouterr()


def test_the_picture(host, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '60')

    out = shown(host, capsys).out

    assert all(len(line) <= 60 for line in out.splitlines())
    assert '\x1b' not in out
    # Where a path is too long for a line, it is broken anywhere.
    assert 'host:2nodes;ledger/' in ''.join(out.split())
    text = ' '.join(out.replace('│', ' ').split())
    assert 'CPUs ' in text
    assert '56 of 128 free, 64 held, 56 available; floor 128' in text
    assert '8 used by /system.slice/ovs-vswitchd.service' in text
    assert (
        f'A instance-00000001 {ONE} is running on 2 MiB pages: 64 on node 0, '
        '32 on node 1' in text
    )
    assert (
        f'B {TWO} is not running, and keeps 2 MiB pages: 100 on node 1' in text
    )
    # 128 pages on 50 signs: 64 of the instance, 8 of others, 56 free.
    (bar,) = (line for line in out.splitlines() if 'AAAx' in line)
    assert [bar.count(sign) for sign in 'Ax.'] == [25, 3, 22]


def test_without_a_ledger_there_is_a_picture(host, capsys):
    host.ledger.unlink()

    out = ' '.join(shown(host, capsys).out.replace('│', ' ').split())

    assert 'no ledger was read' in out
    assert 'It is not known which instances hold pages.' in out
    assert '? free, but perhaps promised or kept.' in out
    assert '..' not in out
    assert 'No instance runs here' not in out
    assert '100 of 132 free;' in out
    assert ' held' not in out.replace('are held', '').split('A letter')[0]


def test_with_neither_guests_nor_a_ledger(tmp_path, capsys):
    host = command_host.Host(tmp_path)

    out = shown(host, capsys).out

    assert (
        'No instance runs here.\n'
        'It is not known which instances hold pages.\n' in out
    )


def test_with_neither_guests_nor_holds(tmp_path, capsys):
    host = command_host.Host(tmp_path)
    with host.pools():
        pass

    assert shown(host, capsys).out.endswith(
        'No instance runs here, and none holds pages.\n'
    )


def warnings(host, monkeypatch, policy=None):
    """Draw a host on a colour terminal.

    :returns: the texts that are red
    """
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('NO_COLOR', raising=False)
    return [
        text.split('\x1b')[0]
        for text in drawn(host, policy=policy).split('\x1b[31m')[1:]
    ]


def drawn(host, width=1000, policy=None):
    """Draw a host on a terminal."""
    paper = console.Console(
        file=io.StringIO(), force_terminal=True, width=width
    )
    settings = Settings(host.ledger, policy or PoolPolicy())
    inspection = collect.inspect(host.machine, host.root, settings)
    for part in picture.draw(inspection, 'compute-7'):
        paper.print(part, highlight=False)
    return paper.file.getvalue()


def lines(host, monkeypatch):
    """Draw a host without colours, and get its lines."""
    monkeypatch.setenv('NO_COLOR', '1')
    plain = re.sub(r'\x1b\[[0-9;]*m', '', drawn(host))
    return [line.strip('│ ') for line in plain.splitlines()]


def test_more_reserved_than_there_is_stands_out(host, monkeypatch):
    # given: of 56 pages that are free, 59 are to be kept from instances
    policy = PoolPolicy(reserved={model.PoolKey(0, SMALL): 67})

    # when, then
    found = warnings(host, monkeypatch, policy)
    assert '; 3 too few for promised and reserved pages' in found


def test_an_instance_elsewhere_than_it_holds_stands_out(host, monkeypatch):
    host.kernel.stop_guest(ONE)
    host.start(ONE, {0: 64, 1: 31})

    assert '; 2 MiB pages: 64 on node 0, 32 on node 1 held for it' in warnings(
        host, monkeypatch
    )


def test_colours_on_a_terminal_and_none_with_no_color(host, monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('NO_COLOR', raising=False)
    assert '\x1b[36mA' in drawn(host, 60).replace('\x1b[35mA', '\x1b[36mA')

    monkeypatch.setenv('NO_COLOR', '1')
    assert '\x1b[3' not in drawn(host, 60)


def test_without_rich_there_is_the_table(host, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rich', None)

    result = shown(host, capsys)

    assert 'size_kib' in result.out
    assert 'A picture needs rich' in result.err


@pytest.mark.parametrize(
    ('counts', 'width', 'expected'),
    [
        ([], 10, []),
        ([1, 1], 10, [5, 5]),
        ([1000, 1], 10, [9, 1]),
        ([1, 1000, 1], 10, [1, 8, 1]),
        ([1, 1, 1], 2, [0, 1, 1]),
        ([7], 3, [3]),
    ],
)
def test_bars(counts, width, expected):
    assert picture.scale(counts, width) == expected


def test_pages_that_are_held_for_migrations(host, capsys):
    host.hold(THREE, (0, 4), purpose=model.Purpose.INCOMING)
    host.hold(FOUR, (0, 2), purpose=model.Purpose.RESIZE)

    text = ' '.join(shown(host, capsys).out.split())

    assert (
        f'C {THREE} is expected by live migration, with 2 MiB pages: 4 on '
        'node 0' in text
    )
    assert (
        f'D {FOUR} was resized or migrated away, and may come back to 2 MiB '
        'pages: 2 on node 0' in text
    )


def test_a_resize_that_awaits_confirmation_does_not_stand_out(
    host, monkeypatch
):
    # given: an instance that was resized on its host
    host.hold(ONE, (0, 16), (1, 8), purpose=model.Purpose.RESIZE)

    # then
    assert not any(
        'held for it' in text for text in warnings(host, monkeypatch)
    )
    found = lines(host, monkeypatch)
    assert (
        f'A instance-00000001 {ONE} is running on 2 MiB pages: 64 on node 0, '
        '32 on node 1; 2 MiB pages: 16 on node 0, 8 on node 1 kept in case '
        'its resize is reverted' in found
    )
    # then: 64 and 16 of 128 pages, and 32 and 8 of 140, on 990 signs
    bars = [line for line in found if 'AAAA' in line]
    assert [(bar.count('A'), bar.count('a')) for bar in bars] == [
        (495, 123),
        (226, 56),
    ]


def test_an_instance_that_is_not_running_awaits_confirmation(
    host, monkeypatch
):
    host.hold(TWO, (0, 2), purpose=model.Purpose.RESIZE)

    assert (
        f'B {TWO} is not running, and keeps 2 MiB pages: 100 on node 1; 2 MiB '
        'pages: 2 on node 0 kept in case its resize is reverted'
        in lines(host, monkeypatch)
    )


def test_what_is_promised_and_missing_stands_out(host, monkeypatch):
    # given: the pages of the instance that is not running are removed
    host.kernel.operator_writes(model.PoolKey(1, SMALL), 32)

    assert '; 100 promised pages are missing' in warnings(host, monkeypatch)
    assert any(
        '0 of 32 free, 132 held, 0 available' in line
        for line in lines(host, monkeypatch)
    )


def test_what_this_user_may_not_see_is_in_the_picture(host, capsys):
    host.forbid_maps()

    text = ' '.join(shown(host, capsys).out.split())

    assert (
        'is running; only root can see on which pages; 2 MiB pages: 64 on '
        'node 0, 32 on node 1 held for it' in text
    )
    assert 'used by unknown others' in text
