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

"""Tests of ``host elastic`` on a pretended kernel."""

import json

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from tests.unit.cmd.host import command_host

ONE, TWO = command_host.ONE, command_host.TWO
SMALL = command_host.SMALL


@pytest.fixture
def host(tmp_path):
    """A host with an elastic guest of two cells, and an ordinary one."""
    host = command_host.Host(tmp_path)
    with host.pools() as pools:
        pools.hold(
            ONE,
            [
                model.PageNeed(0, 0, SMALL, 512, 512, 1024),
                model.PageNeed(1, 1, SMALL, 256, 256, 1024),
            ],
        )
        pools.hold(TWO, [model.PageNeed(0, 0, SMALL, 64)])
    host.kernel.start_guest(
        ONE,
        {model.PoolKey(0, SMALL): 512, model.PoolKey(1, SMALL): 256},
        name='instance-1',
    )
    return host


@pytest.fixture
def listed(host, capsys):
    """List the elastic instances, as JSON."""

    def run(*arguments):
        code = host.run('elastic', '-f', 'json', *arguments)
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return run


def test_each_cell_has_a_row(listed):
    first, second = listed()

    assert first == {
        'uuid': ONE,
        'cell': 0,
        'node': 0,
        'size_kib': 2048,
        'base_mib': 1024,
        'held_mib': 1024,
        'has_mib': 1024,
        'ceiling_mib': 2048,
        # libvirt isn't asked with --root.
        'used_mib': None,
        'lent_mib': 0,
        'wanted_mib': None,
        'changed': None,
        'why': None,
        'waits_mib': None,
        'waits_since': None,
    }
    assert (second['node'], second['has_mib']) == (1, 512)


def test_what_is_used_inside_libvirt_says(host, capsys):
    stats = {
        'balloon.available': '1024000',
        'balloon.usable': '204800',
        'balloon.last-update': '1',
    }
    asked = []

    def ask(uri):
        asked.append(uri)
        return {'instance-1': stats}

    host.change(stats=ask, fs=host.kernel.fs)
    options = ['--ledger', str(host.ledger), '--config-file', str(host.conf)]
    assert host.call('elastic', '-f', 'json', *options) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row['used_mib'] for row in rows] == [800, 800]
    assert asked == ['qemu:///system']

    def fail(uri):
        raise exception.LibvirtError(uri, 'it is gone')

    host.change(stats=fail)
    assert host.call('elastic', '-f', 'json', *options) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)[0]['used_mib'] is None
    assert 'not known what is used inside: virsh' in err


def test_a_size_is_set_for_all_cells(host, listed):
    first, second = listed('--set', f'{ONE.upper()}=2816MiB')

    # Half of what is elastic.
    assert (first['wanted_mib'], second['wanted_mib']) == (1536, 1280)
    assert first['why'] == 'an operator set it'
    assert first['held_mib'] == 1024
    with host.pools() as pools:
        assert pools.sizes(ONE)[0].wanted_kib == 768 * 2048

    first, second = listed('--set', f'{ONE}=auto')
    assert (first['wanted_mib'], second['wanted_mib']) == (None, None)
    assert first['why'] == 'an operator let its use decide'


def test_host_show_tells_between_which_sizes_it_is(host, capsys):
    assert host.run('show') == 0
    assert 'elastic, from 1.5 to 4.0 GiB' in ' '.join(
        capsys.readouterr().out.split()
    )
    assert host.run('show', '-f', 'json') == 0
    rows = json.loads(capsys.readouterr().out)
    guest = rows[0]['guests'][0]
    assert (guest['base'], guest['held'], guest['ceiling']) == (512, 512, 1024)


def test_what_it_waits_for_is_shown(host, listed):
    with host.pools() as pools:
        pools.put_waits(ONE, {1: 256 * 1024})

    first, second = listed()

    assert (first['waits_mib'], second['waits_mib']) == (None, 256)
    assert second['waits_since'] is not None


def test_if_one_size_cannot_be_none_is_set(host, capsys):
    sizes = ['--set', f'{ONE}=2816MiB', '--set', f'{ONE}=1MiB']
    assert host.run('elastic', *sizes) == 2
    assert 'can have 1536 to' in capsys.readouterr().err
    with host.pools() as pools:
        assert pools.sizes(ONE) == {}


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        (ONE, 'expected the uuid of an instance, =, and a size'),
        ('guest=8GiB', 'expected the uuid of an instance, =, and a size'),
        (f'{ONE}=', 'expected a size such as 8GiB'),
        (f'{ONE}=much', 'expected a size such as 8GiB'),
        (f'{ONE}=8', 'expected a size such as 8GiB'),
        (f'{ONE}=-8GiB', 'expected a size such as 8GiB'),
        (f'{ONE}=1GiB', 'can have 1536 to 4096 MiB'),
        (f'{ONE}=5GiB', 'found 5120 MiB'),
        (f'{TWO}=8GiB', 'is no elastic instance of this host'),
        (f'{command_host.THREE}=8GiB', 'is no elastic instance'),
    ],
)
def test_a_size_that_cannot_be_changes_nothing(host, capsys, text, said):
    assert host.run('elastic', '--set', text) == 2

    assert said in ' '.join(capsys.readouterr().err.split())
    with host.pools() as pools:
        assert pools.sizes(ONE) == {}


def test_a_host_without_any(tmp_path, capsys):
    host = command_host.Host(tmp_path)
    with host.pools():
        pass

    assert host.run('elastic', '-f', 'json') == 0
    assert json.loads(capsys.readouterr().out) == []
