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

"""Settings of the host commands: configuration files, and the ledger."""

import contextlib
import os
import shutil
import sqlite3

import pytest

from nova_numa_hugepages.cmd import main
from nova_numa_hugepages.cmd.host import settings
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import TWO
from tests.unit.cmd.host.command_host import write


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
def etc(tmp_path, monkeypatch):
    """The folder in place of ``/etc``, with one of Nova in it."""
    folders = (tmp_path / 'etc/nova', tmp_path / 'etc')
    folders[0].mkdir(parents=True)
    monkeypatch.setattr(settings, 'CONFIG_FOLDERS', folders)
    return folders[1]


def test_nothing_is_changed_without_files_that_this_user_may_not_read(
    host, capsys, etc, monkeypatch
):
    write(etc / 'nova/nova-compute.conf', '[DEFAULT]\nstate_path = /x\n')
    hide(monkeypatch, write(etc / 'nova/nova.conf', '[DEFAULT]\n'))
    host.change(fs=host.kernel.fs)

    assert host.call('reconcile') == 1

    assert 'without all of the configuration' in capsys.readouterr().err


def test_a_file_that_this_user_may_not_read_may_have_a_state_path(
    host, capsys, etc, monkeypatch
):
    write(etc / 'nova/nova-compute.conf', '[DEFAULT]\n')
    secret = etc / 'nova/nova.conf'
    hide(monkeypatch, write(secret, '[DEFAULT]\nstate_path = /secret\n'))
    host.change(fs=host.kernel.fs)

    host.call('show', '-f', 'json')

    err = capsys.readouterr().err
    assert f'{secret} cannot be read by this user, so the defaults' in err
    assert '/secret' not in err
    assert '$pybasedir' not in err


@pytest.mark.parametrize(
    'words', [(), ('--config-file', 'given'), ('--config-dir', 'given.d')]
)
def test_a_folder_that_this_user_may_not_enter_may_have_files(
    host, capsys, etc, monkeypatch, words
):
    monkeypatch.chdir(etc)
    write(etc / 'given', '[DEFAULT]\n')
    (etc / 'given.d').mkdir()
    hide(monkeypatch, etc / 'nova')
    host.change(fs=host.kernel.fs)

    host.call('show', '-f', 'json', *words)

    note = f'{etc / "nova"} cannot be read by this user'
    assert capsys.readouterr().err.count(note) == 1


def found_ledger(host, capsys, *words):
    """Get the folder in which the ledger is looked for."""
    host.call('show', '-f', 'json', *words)
    err = capsys.readouterr().err
    return err.partition('There is no ledger ')[2].partition('/nova-numa')[0]


def test_the_configuration_is_put_together_as_the_service_does(
    host, capsys, etc
):
    # given: files and folders in two places, the first of each name
    host.change(fs=host.kernel.fs)
    first, second = etc / 'nova', etc
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
    file = write(etc / 'given', '[DEFAULT]\nstate_path = /none/given\n')
    own = etc / 'own'
    write(own / 'a.conf', '[DEFAULT]\nstate_path = /none/a\n')
    of_file = ['--config-file', str(file)]
    of_folder = ['--config-dir', str(own)]
    assert found_ledger(host, capsys, *of_file) == '/none/given'
    assert found_ledger(host, capsys, *of_folder) == '/none/a'
    assert found_ledger(host, capsys, *of_folder, *of_file) == '/none/given'
    assert found_ledger(host, capsys, *of_file, *of_folder) == '/none/a'


def test_the_home_of_the_user_has_no_configuration_of_the_service(
    host, capsys, etc, tmp_path, monkeypatch
):
    # given: copies in the home of the user
    monkeypatch.setenv('HOME', str(tmp_path))
    for folder in (tmp_path / '.nova', tmp_path):
        write(folder / 'nova.conf', '[DEFAULT]\nstate_path = /none/home\n')
        write(folder / 'nova.conf.d/1', '[DEFAULT]\nstate_path = /none/1\n')
    host.change(fs=host.kernel.fs)

    # when, then
    assert host.call('reconcile') == 2
    assert f'No configuration was found in {etc / "nova"}' in (
        capsys.readouterr().err
    )
    write(etc / 'nova/nova.conf', '[DEFAULT]\nstate_path = /none/etc\n')
    assert found_ledger(host, capsys) == '/none/etc'


def test_without_a_configuration_the_limits_are_the_defaults(
    host, capsys, etc
):
    host.change(fs=host.kernel.fs)

    host.call('show', '--ledger', str(host.ledger))
    alone = capsys.readouterr().err
    write(etc / 'nova/nova.conf', '[DEFAULT]\nstate_path = /none/etc\n')
    host.call('show', '--ledger', str(host.ledger))

    note = (
        'No configuration of nova-compute was found, so limits and reserved '
        'pages are those of the defaults. Name it with --config-file.\n'
    )
    assert note in alone
    assert note not in capsys.readouterr().err


def test_with_a_root_the_limits_are_the_defaults_too(host, capsys):
    note = (
        'With --root no configuration is read by itself, so limits and '
        'reserved pages are those of the defaults. Name it with '
        '--config-file.\n'
    )

    assert host.run('show') == 0
    assert note in capsys.readouterr().err

    assert host.run('show', '--config-file', str(host.conf)) == 0
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        pytest.param('root:x:0:0', 'not a SQLite database', id='text'),
        pytest.param(
            ('CREATE TABLE instances (uuid)',),
            'a database of something else',
            id='database',
        ),
        pytest.param(None, 'not a regular file', id='FIFO'),
    ],
)
@pytest.mark.parametrize('command', ['show', 'reconcile'])
def test_a_file_that_is_no_ledger_is_not_to_be_moved(
    host, capsys, tmp_path, command, content, reason
):
    path = tmp_path / 'file'
    if content is None:
        os.mkfifo(path)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for statement in content:
                connection.execute(statement)

    assert host.run(command, '--ledger', str(path)) == 2

    assert capsys.readouterr().err == (
        f'--ledger {path}: is no ledger: it is {reason}. The ledger is '
        'nova-numa-hugepages-ledger.sqlite in the state_path of '
        'nova-compute.\n'
    )


def test_a_copy_of_a_ledger_may_have_another_name(host, capsys, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copy(host.ledger, copy)

    words = '-f', 'value', '-c', 'held', '--ledger', str(copy)
    assert host.run('show', *words) == 0

    assert capsys.readouterr().out.split() == ['64', '0', '132', '0']


def test_a_folder_for_a_file_and_a_file_for_a_folder(host, capsys):
    assert host.run('show', '--ledger', str(host.state)) == 2
    assert capsys.readouterr().err == (
        f'--ledger {host.state}: is a folder; did you mean --state-path?\n'
    )

    assert host.call('show', '--state-path', str(host.ledger)) == 2
    assert 'is a file; did you mean --ledger?' in capsys.readouterr().err
