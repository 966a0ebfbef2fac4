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

"""``host show``: its rows, and what it does not guess."""

import csv
import json
import os
import subprocess
import sys

import pytest
import yaml

from nova_numa_hugepages.cmd import main
from nova_numa_hugepages.cmd.host.render import rows
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.state import service_lock
from tests.fixtures import kernel
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import SMALL
from tests.unit.cmd.host.command_host import TWO


@pytest.fixture
def host(tmp_path):
    return command_host.two_guests(tmp_path)


def shown(host, capsys, *words):
    """Run ``host show``, and get its output."""
    assert host.run('show', *words) == 0
    return capsys.readouterr()


def pool(found, node, size_kib=SMALL):
    """Get the row of one pool."""
    (row,) = (
        row
        for row in found
        if (row['node'], row['size_kib']) == (node, size_kib)
    )
    return row


@pytest.mark.parametrize('columns', ['0', '', 'many'])
def test_the_picture_has_a_width_in_any_case(
    host, capsys, monkeypatch, columns
):
    monkeypatch.setenv('COLUMNS', columns)

    out = shown(host, capsys).out

    assert 'NUMA node 1' in out
    assert max(map(len, out.splitlines())) == 80


def test_a_row_has_all_of_a_pool(host, capsys):
    found = json.loads(shown(host, capsys, '-f', 'json').out)

    assert [(row['node'], row['size_kib']) for row in found] == [
        (0, 2048),
        (0, 1048576),
        (1, 2048),
        (1, 1048576),
    ]
    row = pool(found, 1)
    since = row['guests'][0].pop('since')
    row['guests'][1].pop('since')
    assert since > 0
    assert row == {
        'node': 1,
        'size_kib': 2048,
        'total': 132,
        'free': 100,
        'held': 132,
        'promised': 100,
        'available': 0,
        'reserved': 0,
        'floor': 16,
        'grown': 116,
        'surplus': 0,
        'others': {},
        'allocatable': row['allocatable'],
        'unusable_permille': 0,
        'guests': [
            {
                'uuid': ONE,
                'name': 'instance-00000001',
                'pid': host.kernel.pid(ONE),
                'purpose': 'guest',
                'state': 'held',
                'cells': [1],
                'held': 32,
                'grown': 16,
                'has': 32,
                'base': 32,
                'ceiling': 32,
            },
            {
                'uuid': TWO,
                'name': None,
                'pid': None,
                'purpose': 'guest',
                'state': 'held',
                'cells': [0],
                'held': 100,
                'grown': 100,
                'has': 0,
                'base': 100,
                'ceiling': 100,
            },
        ],
        'cpus': row['cpus'],
        'distances': row['distances'],
        'memory_kib': 4096 * 1024,
        'memory_free_kib': row['memory_free_kib'],
    }
    assert tuple(row) == rows.COLUMNS


def test_what_is_kept_for_a_revert_is_not_missing(host, capsys):
    # given: a guest that was resized on its host, and may come back
    host.hold(ONE, (0, 16), purpose=model.Purpose.RESIZE)

    # when
    found = json.loads(shown(host, capsys, '-f', 'json').out)

    # then: it has no pages there that could be too few
    assert [
        (guest['pid'], guest['purpose'], guest['held'], guest['has'])
        for guest in pool(found, 0)['guests']
    ] == [
        (host.kernel.pid(ONE), 'guest', 64, 64),
        (host.kernel.pid(ONE), 'resize', 16, None),
    ]


def test_others_are_named_by_their_cgroup(host, capsys):
    found = json.loads(shown(host, capsys, '-f', 'json').out)

    assert pool(found, 0)['others'] == {
        '/system.slice/ovs-vswitchd.service': 8
    }


def test_yaml_has_the_same_as_json(host, capsys):
    assert yaml.safe_load(shown(host, capsys, '-f', 'yaml').out) == json.loads(
        shown(host, capsys, '-f', 'json').out
    )


def test_values_of_chosen_columns_for_scripts(host, capsys):
    out = shown(
        host, capsys, '-f', 'value', '-c', 'node', '-c', 'size_kib',
        '-c', 'total',
    ).out  # fmt: skip

    assert out.splitlines() == [
        '0 2048 128',
        '0 1048576 0',
        '1 2048 132',
        '1 1048576 0',
    ]


def test_values_have_blanks_only_between_them(host, capsys):
    out = shown(host, capsys, '-f', 'value').out

    assert {len(line.split(' ')) for line in out.splitlines()} == {
        len(rows.COLUMNS)
    }


@pytest.mark.parametrize(
    ('name', 'unknown'),
    [('value', 'None'), ('csv', ''), ('json', None), ('table', '-')],
)
def test_what_is_not_known_is_as_the_help_says(host, capsys, name, unknown):
    host.ledger.unlink()

    out = shown(host, capsys, '-f', name, '-c', 'held').out

    if name == 'json':
        assert {row['held'] for row in json.loads(out)} == {unknown}
    else:
        assert out.splitlines()[-2].strip('| "') == unknown


@pytest.mark.parametrize('name', ['csv', 'value'])
def test_what_is_more_than_one_value_is_json_in_a_cell(host, capsys, name):
    out = shown(host, capsys, '-f', name, '-c', 'distances').out

    cell = out.splitlines()[-1]
    if name == 'csv':
        (cell,) = next(csv.reader([cell]))
    assert json.loads(cell) == {'0': 21, '1': 10}


def test_a_picture_has_no_columns(host, capsys):
    assert host.run('show', '-f', 'picture', '-c', 'node') == 2

    assert 'picture has no columns' in capsys.readouterr().err


def test_a_column_that_there_is_not(host, capsys):
    assert host.run('show', '-f', 'json', '-c', 'nodes') == 2

    assert '-c nodes: there is no such column. There are: node, ' in (
        capsys.readouterr().err
    )


def test_a_table_has_the_columns_that_there_is_room_for(host, capsys):
    heading = shown(host, capsys, '-f', 'table').out.splitlines()[1]

    assert tuple(heading.replace('|', ' ').split()) == rows.SHORT


def test_a_column_without_a_format_means_the_table(host, capsys):
    out = shown(host, capsys, '-c', 'node', '-c', 'guests').out

    assert 'instance-00000001, 64 held, 64 in use' in out
    assert f'{TWO}, 100 held' in out


def test_without_a_ledger_nothing_is_made_up(host, capsys):
    host.ledger.unlink()

    result = shown(host, capsys, '-f', 'json')

    row = pool(json.loads(result.out), 1)
    assert {row[name] for name in ('held', 'promised', 'available')} == {None}
    assert (row['floor'], row['grown']) == (None, None)
    assert row['total'] == 132
    assert [guest['uuid'] for guest in row['guests']] == [ONE]
    assert (row['guests'][0]['held'], row['guests'][0]['has']) == (None, 32)
    assert f'There is no ledger {host.ledger}, so it is not' in result.err
    assert list(host.state.iterdir()) == [host.state / service_lock.NAME]


def test_a_damaged_ledger_is_noted_and_the_rest_shown(host, capsys):
    host.ledger.write_bytes(b'no ledger' * 1000)

    result = shown(host, capsys, '-f', 'json')

    assert pool(json.loads(result.out), 0)['total'] == 128
    assert str(host.ledger) in result.err
    assert 'is damaged' in result.err


def test_a_ledger_that_this_user_may_not_read(host, capsys, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda *_, **__: False)

    result = shown(host, capsys, '-f', 'json')

    assert pool(json.loads(result.out), 0)['held'] is None
    assert f'This user may not read the ledger {host.ledger}, so' in result.err


def test_what_only_root_may_see_is_noted(host, capsys):
    host.forbid_maps()

    result = shown(host, capsys, '-f', 'json')

    guest = pool(json.loads(result.out), 0)['guests'][0]
    assert (guest['uuid'], guest['held'], guest['has']) == (ONE, 64, None)
    assert 'can only be seen by root' in result.err


def test_a_host_without_huge_pages(tmp_path, capsys):
    # given: one node, and a kernel that was built without them
    host = command_host.Host(tmp_path, {0: kernel.FakeNode()})
    folder = host.root / 'sys/devices/system/node/node0/hugepages'
    folder.rename(folder.with_name('none'))

    # when
    result = shown(host, capsys, '-f', 'json')

    # then: the node is shown, and the reason is noted
    (row,) = json.loads(result.out)
    assert (row['node'], row['size_kib'], row['total']) == (0, None, None)
    assert row['memory_kib'] == 4096 * 1024
    assert 'The kernel has no huge pages' in result.err
    # Whatever the length of the root, which is broken anywhere.
    assert '1node;' in ''.join(shown(host, capsys).out.split())


def test_a_kernel_that_reports_nonsense(host, capsys):
    path = host.root / 'proc/buddyinfo'
    path.write_text('nonsense\n')

    assert host.run('show') == 1

    assert str(path) in capsys.readouterr().err


def test_a_root_without_the_files_of_a_kernel(tmp_path, capsys):
    code = main.run(['host', 'show', '--root', str(tmp_path)])

    assert code == 2
    assert 'expected the folder with the sys and proc' in (
        capsys.readouterr().err
    )


def test_the_configuration_is_read(host, capsys, tmp_path):
    # given: a nova.conf with reserved pages, as Nova takes them
    path = tmp_path / 'nova.conf'
    path.write_text(
        '[DEFAULT]\n'
        f'state_path = {tmp_path}/elsewhere\n'
        'reserved_huge_pages = node:0,size:2MB,count:12\n'
        'reserved_huge_pages = node:1,size:2048,count:3\n'
        '[numa_hugepages]\npage_pools = static\n'
    )

    # when
    found = json.loads(
        shown(host, capsys, '-f', 'json', '--config-file', str(path)).out
    )

    # then: 8 of the 12 pages are those that others have
    assert pool(found, 0)['reserved'] == 12
    assert pool(found, 0)['available'] == 128 - 64 - 8 - 4
    assert pool(found, 1)['reserved'] == 3
    assert pool(found, 1)['allocatable'] == 0


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('[numa_hugepages]\npage_pools = sometimes\n', 'page_pools'),
        ('[DEFAULT]\nreserved_huge_pages = node:0,size:2048\n', 'reserved'),
        ('[DEFAULT]\nreserved_huge_pages = node:0,size:2XB,count:1\n', 'size'),
        ('no section\n', 'nova.conf'),
    ],
)
def test_a_bad_configuration(host, capsys, tmp_path, text, expected):
    path = tmp_path / 'nova.conf'
    path.write_text(text)

    assert host.run('show', '--config-file', str(path)) != 0

    assert expected in capsys.readouterr().err


def test_the_ledger_is_in_the_state_path(host, capsys):
    words = ('--root', str(host.root), '--state-path', str(host.state))

    assert host.call('show', '-f', 'value', '-c', 'held', *words) == 0

    assert capsys.readouterr().out.split() == ['64', '0', '132', '0']


def test_it_loads_neither_nova_nor_what_it_does_not_need(host):
    code = (
        'import sys\n'
        'from nova_numa_hugepages.cmd import main\n'
        'assert main.run(["host", "show", "-f", "json", *sys.argv[1:]]) == 0\n'
        'print(sorted({name.partition(".")[0] for name in sys.modules} &'
        '{"nova", "eventlet", "libvirt", "rich", "oslo_concurrency",'
        '"oslo_config", "oslo_db", "oslo_log", "oslo_privsep"}),'
        'file=sys.stderr)\n'
    )

    done = subprocess.run(
        [
            *(sys.executable, '-c', code),
            *('--root', str(host.root), '--state-path', str(host.state)),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, 'PYTHONWARNINGS': 'ignore'},
    )

    assert done.stderr.splitlines()[-1] == '[]'
