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

"""Settings from options and configuration, and errors if they are wrong."""

import os
import shutil

import pytest

from nova_numa_hugepages.cmd import main
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import TWO


@pytest.fixture
def host(tmp_path):
    return command_host.two_guests(tmp_path)


def hide(monkeypatch, secret):
    """Let this user not read a file."""
    access = os.access
    monkeypatch.setattr(
        os,
        'access',
        lambda path, *_, **__: path != secret and access(path, *_, **__),
    )


def write(path, text):
    """Write a file of the configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


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

    for path, said in (
        (tmp_path, 'Is a directory'),
        (tmp_path / 'none', 'No such file'),
        (latin, 'found: byte 0xfc, which is not UTF-8'),
        (plain, "found: in line 1: 'no section'"),
    ):
        assert host.run('show', '--config-file', str(path)) == 2
        err = capsys.readouterr().err
        assert str(path) in err
        assert said in err
    assert host.run('show', '--config-dir', str(plain)) == 2
    assert 'expected a folder, found a file' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('value', 'said'),
    [
        (
            '$nosuch/x',
            "found '$nosuch/x', which refers to an option that is not known "
            'here. Name the folder with --state-path.',
        ),
        ('$pybasedir/x', "found '$pybasedir/x', which refers to an option"),
        ('', 'found nothing, expected a folder'),
    ],
)
def test_a_state_path_that_has_no_value_here(capsys, tmp_path, value, said):
    path = write(tmp_path / 'nova.conf', f'[DEFAULT]\nstate_path = {value}\n')

    words = ['host', 'show', '--config-file', str(path)]
    assert main.run(words) == 2

    assert f'{path}: [DEFAULT] state_path: {said}' in capsys.readouterr().err


def test_a_state_path_that_refers_to_an_option(capsys, tmp_path):
    path = write(
        tmp_path / 'nova.conf',
        f'[DEFAULT]\npybasedir = {tmp_path}\nstate_path = $pybasedir/x\n',
    )

    words = ['host', 'reconcile', '--dry-run', '--config-file', str(path)]
    main.run(words)

    assert f'{tmp_path}/x/{FILE_NAME}' in (capsys.readouterr().err)


def test_a_configuration_without_a_state_path(host, capsys, tmp_path):
    path = write(tmp_path / 'nova.conf', '[DEFAULT]\n')
    words = ['host', 'show', '-f', 'json', '--config-file', str(path)]

    main.run(words)
    assert (
        f'No [DEFAULT] state_path is set in {path}. nova-compute then keeps '
        'the ledger in $pybasedir' in capsys.readouterr().err
    )

    main.run([*words, '--ledger', str(host.ledger)])
    assert '$pybasedir' not in capsys.readouterr().err


CHANGES = [('reconcile', '--force'), ('release', '--yes', '--force', TWO)]


def changed(host, words, *options):
    """Run a command that changes something, without naming a ledger."""
    before = host.ledger.read_bytes()
    code = host.call(*words, '--root', str(host.root), *options)
    if code:
        assert host.ledger.read_bytes() == before
        assert host.total(1) == 132
    return code


@pytest.mark.parametrize('words', CHANGES)
def test_nothing_is_changed_where_the_ledger_is_not_certain(
    host, capsys, tmp_path, monkeypatch, words
):
    # given: a configuration without a folder of the ledger
    monkeypatch.setattr(settings, 'STATE_PATH', host.state)
    path = write(tmp_path / 'nova.conf', '[DEFAULT]\n')

    # when, then
    assert changed(host, words, '--config-file', str(path)) == 2
    assert (
        'Set [DEFAULT] state_path, or name the folder with --state-path.'
        in capsys.readouterr().err
    )


@pytest.mark.parametrize('words', CHANGES)
def test_nothing_is_changed_without_a_configuration(host, capsys, words):
    assert changed(host, words, '--ledger', str(host.ledger)) == 2

    assert (
        f'--root {host.root}: no configuration is read from there, and '
        'without it nothing is changed' in capsys.readouterr().err
    )


@pytest.mark.parametrize('option', ['--ledger', '--state-path'])
def test_a_ledger_that_is_not_that_of_the_service(
    host, capsys, tmp_path, option
):
    # given: a copy of the ledger
    copy = tmp_path / 'backup'
    shutil.copytree(host.state, copy)
    given = copy / host.ledger.name if option == '--ledger' else copy
    words = (option, str(given), '--config-file', str(host.conf))

    # when, then
    assert changed(host, ('release', '--yes', TWO), *words) == 2
    err = capsys.readouterr().err
    assert f'{copy / host.ledger.name} is not that of the configuration' in err
    assert str(host.ledger) in err
    assert changed(host, CHANGES[1], *words) == 0
    assert host.holders()[TWO] == 100


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, which is where oslo.config looks first."""
    monkeypatch.setenv('HOME', str(tmp_path))
    return tmp_path


def test_nothing_is_changed_without_files_that_this_user_may_not_read(
    host, capsys, home, monkeypatch
):
    write(home / '.nova/nova-compute.conf', '[DEFAULT]\nstate_path = /x\n')
    hide(monkeypatch, write(home / '.nova/nova.conf', '[DEFAULT]\n'))
    host.change(fs=host.kernel.fs)

    assert host.call('reconcile') == 1

    assert 'without all of the configuration' in capsys.readouterr().err


def test_a_file_that_this_user_may_not_read_may_have_a_state_path(
    host, capsys, home, monkeypatch
):
    write(home / '.nova/nova-compute.conf', '[DEFAULT]\n')
    secret = home / '.nova/nova.conf'
    hide(monkeypatch, write(secret, '[DEFAULT]\nstate_path = /secret\n'))
    host.change(fs=host.kernel.fs)

    host.call('show', '-f', 'json')

    err = capsys.readouterr().err
    assert f'{secret} cannot be read by this user, so the defaults' in err
    assert '/secret' not in err
    assert '$pybasedir' not in err


def test_a_folder_that_this_user_may_not_enter_may_have_files(
    host, capsys, home, monkeypatch
):
    monkeypatch.setattr(settings, 'CONFIG_FOLDER', home)
    hide(monkeypatch, home)
    host.change(fs=host.kernel.fs)

    host.call('show', '-f', 'json')

    assert f'{home} cannot be read by this user' in capsys.readouterr().err


def found_ledger(host, capsys, *words):
    """Get the folder in which the ledger is looked for."""
    host.call('show', '-f', 'json', *words)
    err = capsys.readouterr().err
    return err.partition('There is no ledger ')[2].partition('/nova-numa')[0]


def test_the_configuration_is_put_together_as_the_service_does(
    host, capsys, home
):
    # given: files and folders in two places, the first of each name
    host.change(fs=host.kernel.fs)
    first, second = home / '.nova', home
    write(first / 'nova.conf', '[DEFAULT]\nstate_path = /none/file\n')
    write(second / 'nova.conf', '[DEFAULT]\nstate_path = /none/second\n')
    assert found_ledger(host, capsys) == '/none/file'

    # then: what comes later counts
    write(second / 'nova-compute.conf', '[DEFAULT]\nstate_path = /none/own\n')
    assert found_ledger(host, capsys) == '/none/own'
    write(first / 'nova.conf.d/1.conf', '[DEFAULT]\nstate_path = /none/1\n')
    assert found_ledger(host, capsys) == '/none/1'
    folder = second / 'nova-compute.conf.d'
    write(folder / '2.conf', '[DEFAULT]\nstate_path = /none/2\n')
    write(folder / '3.txt', '[DEFAULT]\nstate_path = /none/3\n')
    assert found_ledger(host, capsys) == '/none/2'

    # then: what is given comes last, and in its order
    file = write(home / 'given', '[DEFAULT]\nstate_path = /none/given\n')
    own = home / 'own'
    write(own / 'a.conf', '[DEFAULT]\nstate_path = /none/a\n')
    of_file = ['--config-file', str(file)]
    of_folder = ['--config-dir', str(own)]
    assert found_ledger(host, capsys, *of_file) == '/none/given'
    assert found_ledger(host, capsys, *of_folder) == '/none/a'
    assert found_ledger(host, capsys, *of_folder, *of_file) == '/none/given'
    assert found_ledger(host, capsys, *of_file, *of_folder) == '/none/a'


def test_a_folder_for_a_file_and_a_file_for_a_folder(host, capsys):
    assert host.run('show', '--ledger', str(host.state)) == 2
    assert capsys.readouterr().err == (
        f'--ledger {host.state}: is a folder; did you mean --state-path?\n'
    )

    assert host.call('show', '--state-path', str(host.ledger)) == 2
    assert 'is a file; did you mean --ledger?' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['show', 'reconcile'])
def test_pages_reserved_where_there_are_none(host, capsys, tmp_path, command):
    path = write(
        tmp_path / 'nova.conf',
        '[DEFAULT]\n'
        'reserved_huge_pages = node:7,size:2048,count:1\n'
        'reserved_huge_pages = node:1,size:64,count:1\n',
    )

    host.run(command, '--config-file', str(path))

    err = capsys.readouterr().err
    assert (
        'reserved_huge_pages names 2 MiB on NUMA node 7, which this host does '
        'not have; its pools are: 2 MiB on NUMA node 0, 1 GiB on NUMA node 0, '
        '2 MiB on NUMA node 1, 1 GiB on NUMA node 1.\n' in err
    )
    assert 'reserved_huge_pages names 64 KiB on NUMA node 1, which' in err
