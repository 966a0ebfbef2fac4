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

"""The picture of ``host show``: on any terminal, and on none."""

import io
import sys

import pytest
from rich import console

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import collect
from nova_numa_hugepages.cmd.host.render import picture
from nova_numa_hugepages.cmd.host.render import rows
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import policy
from nova_numa_hugepages.hugepages.kernel import processes
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
    assert '56 of 128 free, 64 held, 56 to promise; floor 128' in text
    assert '8 used by /system.slice/ovs-vswitchd.service' in text
    assert (
        f'A instance-00000001 {ONE} runs on 2 MiB pages: 64 on node 0, 32 on '
        'node 1' in text
    )
    assert (
        f'B {TWO} does not run, and keeps 2 MiB pages: 100 on node 1' in text
    )
    # 128 pages on 50 signs: 64 of the guest, 8 of others, 56 free.
    (bar,) = (line for line in out.splitlines() if 'AAAx' in line)
    assert [bar.count(sign) for sign in 'Ax.'] == [25, 3, 22]


def test_without_a_ledger_there_is_a_picture(host, capsys):
    host.ledger.unlink()

    out = ' '.join(shown(host, capsys).out.replace('│', ' ').split())

    assert 'no ledger was read' in out
    assert 'Who holds pages is not known.' in out
    assert '? free, but perhaps promised or held back.' in out
    assert '..' not in out
    assert 'No guest runs here' not in out
    assert '100 of 132 free;' in out
    assert ' held' not in out.replace('are held', '').split('A letter')[0]


def test_with_neither_guests_nor_a_ledger(tmp_path, capsys):
    host = command_host.Host(tmp_path)

    out = shown(host, capsys).out

    assert 'No guest runs here.\nWho holds pages is not known.\n' in out


def test_with_neither_guests_nor_holds(tmp_path, capsys):
    host = command_host.Host(tmp_path)
    host.pools().ledger.close()

    assert shown(host, capsys).out.endswith(
        'No guest runs here, and none holds pages.\n'
    )


def test_more_reserved_than_there_is_stands_out(host, tmp_path, capsys):
    # given: of 56 pages that are free, 59 are to be kept from guests
    key = model.PoolKey(0, SMALL)
    seen = collect.look(
        host.kernel.fs,
        settings.Settings(host.ledger, policy.PoolPolicy(reserved={key: 67})),
    )

    # when
    drawn = picture._numbers(seen, key)

    # then
    assert seen.view.pools[key].standing.available == -3
    assert drawn.plain.endswith(
        '; 3 too few for what is promised and held back'
    )
    assert [span.style for span in drawn.spans] == ['red']


def test_a_guest_elsewhere_than_it_holds_stands_out(host):
    host.kernel.stop_guest(ONE)
    host.start(ONE, {0: 64, 1: 31})
    seen = collect.look(
        host.kernel.fs, settings.Settings(host.ledger, policy.PoolPolicy())
    )

    drawn = picture._guest(seen, ONE)

    assert drawn.plain.endswith(
        '31 on node 1; 2 MiB pages: 64 on node 0, 32 on node 1 held for it'
    )
    assert [span.style for span in drawn.spans] == ['red']


def test_colours_on_a_terminal_and_none_with_no_color(host, monkeypatch):
    seen = collect.look(
        host.kernel.fs, settings.Settings(host.ledger, policy.PoolPolicy())
    )

    def drawn() -> str:
        paper = console.Console(
            file=io.StringIO(), force_terminal=True, width=60
        )
        for part in picture.draw(seen, 'compute-7'):
            paper.print(part)
        return paper.file.getvalue()

    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('NO_COLOR', raising=False)
    assert '\x1b[36mA' in drawn().replace('\x1b[35mA', '\x1b[36mA')
    monkeypatch.setenv('NO_COLOR', '1')
    assert '\x1b[3' not in drawn()


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


@pytest.mark.parametrize(
    ('numbers', 'expected'),
    [
        ([], ''),
        ([3], '3'),
        ([0, 1], '0-1'),
        ([8, 0, 1, 2, 9, 11], '0-2,8-9,11'),
    ],
)
def test_lists_of_numbers(numbers, expected):
    assert rows.number_list(numbers) == expected


def test_pages_that_are_held_for_guests_on_their_way(host, capsys):
    host.hold(THREE, (0, 4), purpose=model.Purpose.INCOMING)
    host.hold(FOUR, (0, 2), purpose=model.Purpose.RESIZE)

    text = ' '.join(shown(host, capsys).out.split())

    assert f'C {THREE} is expected, with 2 MiB pages: 4 on node 0' in text
    assert (
        f'D {FOUR} was resized or moved away, and may come back to 2 MiB '
        'pages: 2 on node 0' in text
    )


def test_a_resize_that_awaits_confirmation_does_not_stand_out(host):
    # given: a guest that was resized on its host, and may come back
    host.hold(ONE, (0, 16), (1, 8), purpose=model.Purpose.RESIZE)
    seen = collect.look(
        host.kernel.fs, settings.Settings(host.ledger, policy.PoolPolicy())
    )

    # when
    drawn = picture._guest(seen, ONE)
    bars = [
        picture._parts(seen, model.PoolKey(node, SMALL), {ONE: 'A'})[:2]
        for node in (0, 1)
    ]

    # then
    assert drawn.plain == (
        f'instance-00000001 {ONE} runs on 2 MiB pages: 64 on node 0, 32 on '
        'node 1; 2 MiB pages: 16 on node 0, 8 on node 1 kept for its coming '
        'back from a resize'
    )
    assert drawn.spans == []
    assert [[part[:2] for part in bar] for bar in bars] == [
        [(64, 'A'), (16, 'a')],
        [(32, 'A'), (8, 'a')],
    ]


def test_a_guest_that_is_off_awaits_confirmation(host):
    host.hold(TWO, (0, 2), purpose=model.Purpose.RESIZE)
    seen = collect.look(
        host.kernel.fs, settings.Settings(host.ledger, policy.PoolPolicy())
    )

    assert picture._guest(seen, TWO).plain == (
        f'{TWO} does not run, and keeps 2 MiB pages: 100 on node 1; 2 MiB '
        'pages: 2 on node 0 kept for its coming back from a resize'
    )


def test_what_is_promised_and_not_there_stands_out(host):
    # given: somebody takes away what the guest that is off has a right to
    host.kernel.operator_writes(model.PoolKey(1, SMALL), 32)
    seen = collect.look(
        host.kernel.fs, settings.Settings(host.ledger, policy.PoolPolicy())
    )

    # when
    drawn = picture._numbers(seen, model.PoolKey(1, SMALL))

    # then
    assert drawn.plain.startswith('0 of 32 free, 132 held, 0 to promise')
    assert drawn.plain.endswith('; 100 that are promised are not there')
    assert [span.style for span in drawn.spans] == ['red']


def test_who_may_not_see_all_is_told_so_in_the_picture(
    host, capsys, monkeypatch
):
    def forbidden(self, pid):
        raise exception.KernelError(f'/proc/{pid}/numa_maps', 'no', 'a file')

    monkeypatch.setattr(processes.MapsFile, '__call__', forbidden)

    text = ' '.join(shown(host, capsys).out.split())

    assert (
        'runs; where its memory is can be seen by root only; 2 MiB pages: 64 '
        'on node 0, 32 on node 1 held for it' in text
    )
    assert 'used by unknown others' in text
