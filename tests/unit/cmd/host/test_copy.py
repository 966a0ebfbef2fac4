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
    assert host.run('show', '-f', 'json') == 0
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

    assert 'Where the memory of some instances is can only be seen' in notes
    guest = found[0, SMALL]['guests'][0]
    assert (guest['pid'], guest['held'], guest['has']) == (pid, 64, None)


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
