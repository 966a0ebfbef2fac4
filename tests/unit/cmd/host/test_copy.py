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

"""``host show --root`` on a copy of another host's files."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import textwrap

import pytest

from nova_numa_hugepages.cmd import main
from nova_numa_hugepages.hugepages.kernel import processes
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
    """Get the rows, by node and page size, and the notes."""
    words = '-f', 'json', '--config-file', str(host.conf)
    assert host.run('show', *words) == 0
    result = capsys.readouterr()
    found = json.loads(result.out)
    return {(row['node'], row['size_kib']): row for row in found}, result.err


@pytest.mark.parametrize(
    'name', [f'{NODES}/online', 'proc/buddyinfo', f'{NODES}/node1/distance']
)
def test_a_file_that_was_not_copied_is_named(host, capsys, name):
    path = host.root / name
    path.unlink()

    assert host.run('show') == 1

    assert capsys.readouterr().err.startswith(f'{path}: expected ')


def test_small_pages_of_another_size_than_here(host, capsys):
    """The same host shows the same numbers with small pages of 16 KiB."""
    host.kernel.fragment(0, 64 * 1024)
    before, _ = rows(host, capsys)
    assert before[0, SMALL]['unusable_permille'] > 0
    copy = host.root.with_name('arm64')
    shutil.copytree(host.root, copy)
    zones = copy / 'proc/zoneinfo'
    zones.write_text(
        re.sub(
            r'(free|high|managed|nr_free_cma) +(\d+)',
            lambda match: f'{match[1]} {int(match[2]) // 4}',
            zones.read_text(),
        )
    )
    blocks = copy / 'proc/buddyinfo'
    blocks.write_text(
        ''.join(
            f'{line[:21]} {_in_larger_pages(line[21:].split())}\n'
            for line in blocks.read_text().splitlines()
        )
    )
    host.root = copy

    assert rows(host, capsys) == (before, '')


def _in_larger_pages(counts):
    """Convert blocks by order of 4 KiB to blocks by order of 16 KiB."""
    one, two, four, *more = map(int, counts)
    return ' '.join(map(str, (one // 4 + two // 2 + four, *more)))


def test_small_pages_of_a_size_that_cannot_be_told(host, capsys):
    path = host.root / 'proc/zoneinfo'
    path.write_text(path.read_text().replace('managed', 'present'))

    assert host.run('show') == 1

    assert capsys.readouterr().err == (
        f'{path}: expected 8388608 KiB of memory, as in meminfo of the nodes, '
        'in pages of 4, 8, 16, 32, 64, 256 KiB, found 0 managed pages\n'
    )


@pytest.mark.parametrize(
    ('online', 'told'),
    [
        ('0-2', 'lists NUMA node 2, and there is no {nodes}/node2. '),
        ('0', 'does not list NUMA node 1. '),
    ],
)
def test_nodes_that_are_listed_and_folders_disagree(
    host, capsys, online, told
):
    nodes = host.root / NODES
    (nodes / 'online').write_text(f'{online}\n')

    assert host.run('show') == 2

    text = capsys.readouterr().err
    assert text.startswith(f'--root {host.root}: ')
    assert told.format(nodes=nodes) in text


def test_without_processes_no_instance_is_said_to_be_off(host, capsys):
    for folder in (host.root / 'proc').glob('[0-9]*'):
        shutil.rmtree(folder)

    found, notes = rows(host, capsys)
    assert (
        f'{host.root}/proc/2/comm: expected kthreadd, found nothing' in notes
    )
    assert 'Until then it is not known which instances run' in notes
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
    assert '? free or in use, it is not known by whom.' in text
    assert 'xx' not in text
    assert '????' in text


def test_where_an_instance_is_is_not_known_without_its_file(host, capsys):
    host.change(read_maps=processes.MapsFile)
    pid = host.kernel.pid(ONE)
    (host.root / f'proc/{pid}/numa_maps').unlink()

    found, notes = rows(host, capsys)

    assert notes == (
        'Where the memory of some instances is cannot be known without their '
        'numa_maps, so pages that they have count as used by unknown others.\n'
    )
    guest = found[0, SMALL]['guests'][0]
    assert (guest['pid'], guest['held'], guest['has']) == (pid, 64, None)


def test_an_instance_that_ends_meanwhile_has_no_pages(host, capsys):
    # given: a file that can't be read any more, of a process that has ended
    def read_maps(pid):
        raise ProcessLookupError

    host.change(read_maps=lambda fs: read_maps)

    found, notes = rows(host, capsys)

    assert notes == ''
    assert found[0, SMALL]['guests'][0]['has'] == 0


def test_a_dry_run_on_a_copy_needs_no_processes(host, capsys):
    shutil.rmtree(host.root / 'proc/2')
    host.define(ONE, TWO)
    (host.own / 'self/mountinfo').write_text('')

    host.run('reconcile', '--dry-run')

    assert 'kthreadd' not in capsys.readouterr().err


def test_the_ledger_of_a_service_that_runs_can_be_copied(host, capsys):
    # given: a ledger that is in use, with its log
    before, _ = rows(host, capsys)
    with Ledger.open(host.ledger) as ledger:
        ledger.put_placement(ONE, {}, 1.0)
        assert len(list(host.state.iterdir())) == 4
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
def test_what_the_manual_says_to_collect_is_enough(tmp_path):
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

    # then: no file is missing that there is on this host
    copy = tmp_path / 'compute-7'
    assert main.run(['host', 'show', '--root', str(copy)]) == 0
    assert (copy / 'proc/2/comm').exists() == os.path.exists('/proc/2/comm')
