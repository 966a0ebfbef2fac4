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

"""The configuration of ``nova-compute``, and errors in it."""

import pytest

from nova_numa_hugepages.cmd import main
from nova_numa_hugepages.hugepages.kernel import fragmentation
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import write


@pytest.fixture
def host(tmp_path):
    return command_host.two_guests(tmp_path)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (
            '[numa_hugepages]\npage_pools = foo\n',
            "[numa_hugepages] page_pools: found 'foo', expected dynamic or "
            'static',
        ),
        (
            '[numa_hugepages]\nnode_ceiling_percent = 900\n',
            "[numa_hugepages] node_ceiling_percent: found '900', expected a "
            'number from 0 to 100',
        ),
        (
            '[numa_hugepages]\ngrow_time_limit = soon\n',
            "[numa_hugepages] grow_time_limit: found 'soon', expected a "
            'number from 1 to 600',
        ),
        (
            '[numa_hugepages]\ndemote_pages = perhaps\n',
            "[numa_hugepages] demote_pages: found 'perhaps', expected true "
            'or false',
        ),
        (
            '[DEFAULT]\nreserved_huge_pages = node:0,size:2XB,count:1\n',
            "[DEFAULT] reserved_huge_pages: found 'node:0,size:2XB,count:1', "
            'expected for example node:0,size:2048,count:64',
        ),
        (
            '[DEFAULT]\nreserved_huge_pages = node:0,size:4,count:-1\n',
            "[DEFAULT] reserved_huge_pages: found 'node:0,size:4,count:-1', "
            'expected for example node:0,size:2048,count:64',
        ),
        (
            '[DEFAULT]\nreserved_huge_pages = all\n',
            "[DEFAULT] reserved_huge_pages: found 'all', expected for "
            'example node:0,size:2048,count:64',
        ),
    ],
)
def test_a_bad_value_is_shown_with_file_and_option(
    host, capsys, tmp_path, text, expected
):
    path = write(tmp_path / 'nova.conf', text)

    assert host.run('show', '--config-file', str(path)) == 2

    assert capsys.readouterr().err == f'{path}: {expected}\n'


def test_the_file_whose_value_counts_is_named(host, capsys, tmp_path):
    good = write(tmp_path / 'a', '[numa_hugepages]\npage_pools = static\n')
    bad = write(tmp_path / 'b', '[numa_hugepages]\npage_pools = x\n')

    assert (
        host.run(
            'show', '--config-file', str(good), '--config-file', str(bad)
        )
        == 2
    )  # fmt: skip

    assert capsys.readouterr().err.startswith(f'{bad}: ')


def test_what_is_no_configuration_is_named(host, capsys, tmp_path):
    latin = tmp_path / 'latin.conf'
    latin.write_bytes(b'[DEFAULT]\nstate_path = /srv/\xfcber\n')
    plain = write(tmp_path / 'plain.conf', 'no section\n')

    for path, expected in (
        (tmp_path, 'Is a directory'),
        (tmp_path / 'none', 'No such file'),
        (latin, 'found: byte 0xfc, which is not UTF-8'),
        (plain, "found: in line 1: 'no section'"),
    ):
        assert host.run('show', '--config-file', str(path)) == 2
        err = capsys.readouterr().err
        assert str(path) in err
        assert expected in err
    assert host.run('show', '--config-dir', str(plain)) == 2
    assert 'expected a folder, found a file' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (
            '$nosuch/x',
            "found '$nosuch/x', and nosuch is not known here. Name the "
            'folder with --state-path.',
        ),
        ('$pybasedir/x', "found '$pybasedir/x', and pybasedir is not known"),
        ('', 'found nothing, expected a folder'),
    ],
)
def test_a_state_path_that_has_no_value_here(
    capsys, tmp_path, value, expected
):
    path = write(tmp_path / 'nova.conf', f'[DEFAULT]\nstate_path = {value}\n')

    words = ['host', 'show', '--config-file', str(path)]
    assert main.run(words) == 2

    assert (
        f'{path}: [DEFAULT] state_path: {expected}' in capsys.readouterr().err
    )


def test_a_state_path_that_refers_to_an_option(capsys, tmp_path):
    path = write(
        tmp_path / 'nova.conf',
        f'[DEFAULT]\npybasedir = {tmp_path}\nstate_path = $pybasedir/x\n',
    )

    words = ['host', 'reconcile', '--dry-run', '--config-file', str(path)]
    main.run(words)

    assert f'{tmp_path}/x/{FILE_NAME}' in (capsys.readouterr().err)


@pytest.mark.parametrize('command', ['show', 'reconcile'])
def test_pages_reserved_where_there_are_none(host, capsys, tmp_path, command):
    small_kib = fragmentation.BASE_KIB
    path = write(
        tmp_path / 'nova.conf',
        '[DEFAULT]\n'
        'reserved_huge_pages = node:7,size:2048,count:1\n'
        'reserved_huge_pages = node:1,size:64,count:1\n'
        # Small pages are in no pool, and Nova takes them.
        f'reserved_huge_pages = node:0,size:{small_kib},count:1\n'
        f'reserved_huge_pages = node:8,size:{small_kib},count:1\n',
    )

    host.run(command, '--config-file', str(path))

    err = capsys.readouterr().err
    assert (
        'reserved_huge_pages names 2 MiB on NUMA node 7, which this host does '
        'not have; its pools are: 2 MiB on NUMA node 0, 1 GiB on NUMA node 0, '
        '2 MiB on NUMA node 1, 1 GiB on NUMA node 1.\n' in err
    )
    assert 'reserved_huge_pages names 64 KiB on NUMA node 1, which' in err
    assert 'KiB on NUMA node 0, which' not in err
    assert 'KiB on NUMA node 8, which' in err
