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

"""``host show --root`` on a copy, from which some files may be missing."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import textwrap

import pytest

from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import SMALL
from tests.unit.cmd.host.command_host import TWO

NODES = 'sys/devices/system/node'
PAGE = (
    pathlib.Path(__file__).parents[4]
    / 'doc/source/cli/nova-numa-hugepages-host.rst'
)


@pytest.fixture
def host(tmp_path):
    return command_host.two_guests(tmp_path)


def rows(host, capsys):
    """Get what is shown, by node and page size, and what is said of it."""
    assert host.run('show', '-f', 'json') == 0
    result = capsys.readouterr()
    found = json.loads(result.out)
    return {(row['node'], row['size_kib']): row for row in found}, result.err


@pytest.mark.parametrize(
    ('name', 'unknown'),
    [
        ('proc/buddyinfo', {'allocatable', 'unusable_permille'}),
        ('proc/zoneinfo', {'allocatable'}),
        ('proc/sys/kernel/random/boot_id', {'floor', 'grown'}),
        (
            f'sys/kernel/mm/hugepages/hugepages-{SMALL}kB/resv_hugepages',
            {'available'},
        ),
        (f'{NODES}/node1/cpulist', {'cpus'}),
        (f'{NODES}/node1/distance', {'distances'}),
        (
            f'{NODES}/node1/meminfo',
            {'memory_kib', 'memory_free_kib', 'allocatable'},
        ),
    ],
)
def test_what_can_be_read_without_a_file_is_shown(host, capsys, name, unknown):
    # given
    before, _ = rows(host, capsys)
    with Ledger.open(host.ledger) as ledger:
        ledger.set_boot_id(host.kernel.boot_id)
    (host.root / name).unlink()

    # when
    after, said = rows(host, capsys)

    # then: what takes the file isn't known, and all else is as before
    assert f'{host.root / name} could not be read, so this is not' in said
    for key, row in before.items():
        of_node = 'node' not in name or ('node1' in name and key[0] == 1)
        expected = {
            column: None if column in unknown and of_node else value
            for column, value in row.items()
        }
        assert after[key] == expected

    # then: there is a picture of it, too
    assert host.run('show') == 0


def test_a_file_without_which_there_is_nothing_to_show(host, capsys):
    path = host.root / NODES / 'online'
    path.unlink()

    assert host.run('show') == 1

    assert str(path) in capsys.readouterr().err


def test_without_processes_nobody_is_said_to_be_off(host, capsys):
    for folder in (host.root / 'proc').glob('[0-9]*'):
        shutil.rmtree(folder)

    found, said = rows(host, capsys)
    assert f'There are no processes in {host.root}/proc, so' in said
    row = found[1, SMALL]
    assert (row['held'], row['promised'], row['available']) == (132,) + 2 * (
        None,
    )
    assert {one['others'] for one in found.values()} == {None}
    assert [guest['has'] for guest in row['guests']] == [None, None]

    assert host.run('show') == 0
    text = command_host.guests_unknown(
        capsys.readouterr().out, TWO, '100 on node 1'
    )
    assert '? in use or free, by whom or for whom is not known.' in text
    assert 'xx' not in text
    assert '????' in text


def test_where_a_guest_is_is_not_known_without_its_file(host, capsys):
    pid = host.kernel.pid(ONE)
    (host.root / f'proc/{pid}/numa_maps').unlink()

    found, said = rows(host, capsys)

    assert 'cannot be told without their numa_maps' in said
    guest = found[0, SMALL]['guests'][0]
    assert (guest['pid'], guest['held'], guest['has']) == (pid, 64, None)


def test_what_tar_fills_up_is_read(host, capsys):
    before, _ = rows(host, capsys)
    for path in (host.root / NODES).glob('**/*_hugepages'):
        path.write_bytes(path.read_bytes().ljust(4096, b'\0'))

    assert rows(host, capsys) == (before, '')


def test_the_ledger_of_a_service_that_runs_can_be_copied(host, capsys):
    # given: a ledger that is in use, with its log
    before, _ = rows(host, capsys)
    with Ledger.open(host.ledger) as ledger:
        ledger.put_placement(ONE, {}, 1.0)
        assert len(list(host.state.iterdir())) == 3
        copy = host.root / 'copy'
        shutil.copytree(host.state, copy)
    names = {path: path.read_bytes() for path in copy.iterdir()}
    host.ledger = copy / host.ledger.name

    # when, then: it is read, and stays as it is
    assert rows(host, capsys) == (before, '')
    assert {path: path.read_bytes() for path in copy.iterdir()} == names


@pytest.mark.skipif(
    not os.path.exists(f'/{NODES}/online'), reason='no NUMA nodes here'
)
def test_what_the_manual_says_to_collect_is_enough(tmp_path, capsys):
    # given
    (script,) = re.findall(
        r'\.\. code-block:: shell\n\n((?:   .*\n|\n)+)',
        PAGE.read_text()
        .partition('Copies of a host\n')[2]
        .partition('host show\n====')[0],
    )

    # when
    subprocess.run(
        ['sh', '-c', textwrap.dedent(script)],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )

    # then: but for a ledger, nothing is missing
    code = command_host.main.run(
        ['host', 'show', '--root', str(tmp_path / 'compute-7')]
    )
    assert code == 0
    err = capsys.readouterr().err
    assert 'could not be read' not in err
    assert 'There are no processes' not in err
