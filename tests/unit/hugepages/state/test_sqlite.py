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

"""Tests of opening the ledger: its file, its owner, and damage."""

import os
import pathlib
import random
import shutil
import tempfile

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.state import sqlite
from nova_numa_hugepages.hugepages.state.ledger import Ledger
from tests.unit.hugepages.state.ledgers import files
from tests.unit.hugepages.state.ledgers import filled
from tests.unit.hugepages.state.ledgers import hold
from tests.unit.hugepages.state.ledgers import KILLED
from tests.unit.hugepages.state.ledgers import run

NOBODY = 65534

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason='only root can act for others'
)


@pytest.fixture
def path(tmp_path):
    """Where the ledger is."""
    return tmp_path / 'ledger.sqlite'


@pytest.fixture
def others():
    """A folder of another user, who may be anybody."""
    folder = pathlib.Path(tempfile.mkdtemp(dir='/var/tmp'))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def unprivileged():
    """Let the process be a user who isn't root, for the test."""
    if os.geteuid():
        yield os.geteuid()
        return
    os.seteuid(NOBODY)
    try:
        yield NOBODY
    finally:
        os.seteuid(0)


class TestNew:
    def test_is_made_once(self, path):
        filled(path)

        with Ledger.open(path) as ledger:
            assert ledger.holds() == [hold('guest 0')]

    def test_is_for_the_user_of_the_service_only(self, path):
        before = os.umask(0)
        try:
            with Ledger.open(path):
                modes = {
                    file.name: oct(file.stat().st_mode & 0o777)
                    for file in path.parent.iterdir()
                }
        finally:
            os.umask(before)

        assert modes == {
            'ledger.sqlite': '0o600',
            'ledger.sqlite-shm': '0o600',
            'ledger.sqlite-wal': '0o600',
        }

    def test_is_synced_at_every_commit(self, path):
        connection = sqlite.connect(path, create=True)
        sqlite.secure(path, connection)

        (mode,) = connection.execute('PRAGMA journal_mode').fetchone()
        (sync,) = connection.execute('PRAGMA synchronous').fetchone()
        (wait,) = connection.execute('PRAGMA busy_timeout').fetchone()
        connection.close()

        assert (mode, sync, wait) == ('wal', 2, 10000)

    def test_takes_an_empty_file_for_none(self, path):
        path.touch(0o644)

        with Ledger.open(path) as ledger:
            assert ledger.holds() == []
        assert path.stat().st_mode & 0o777 == 0o600

    def test_does_not_take_up_the_log_of_the_one_before(self, path):
        assert run(path.parent, KILLED)[0] == -9
        path.unlink()

        with Ledger.open(path) as ledger:
            assert ledger.holds() == []

    def test_needs_its_folder(self, path):
        with pytest.raises(exception.LedgerError) as raised:
            Ledger.open(path / 'deeper')

        assert str(raised.value) == (
            f'the ledger of huge pages {path}/deeper cannot be created: '
            f'{path} is no folder. Create it, owned by the user of '
            'nova-compute.'
        )

    @pytest.mark.parametrize('there', [False, True])
    @pytest.mark.parametrize('how', ['create', 'read_only'])
    def test_is_not_made_if_it_should_not(self, path, there, how):
        if there:
            path.touch(0o600)
        before = files(path.parent)

        with pytest.raises(exception.LedgerMissing) as raised:
            Ledger.open(
                path, create=how == 'read_only', read_only=how == 'read_only'
            )

        assert str(raised.value) == (
            f'the ledger of huge pages {path} is not there, or is empty. '
            'nova-compute makes it when it starts.'
        )
        assert files(path.parent) == before

    @as_root
    def test_is_the_service_users_if_root_makes_it(self, path):
        os.chown(path.parent, NOBODY, NOBODY)

        with Ledger.open(path):
            owners = {
                file.name: file.stat().st_uid for file in path.parent.iterdir()
            }

        assert owners == {
            'ledger.sqlite': NOBODY,
            'ledger.sqlite-shm': NOBODY,
            'ledger.sqlite-wal': NOBODY,
        }

    def test_is_made_private_again(self, path):
        filled(path)
        path.chmod(0o644)

        Ledger.open(path).close()

        assert path.stat().st_mode & 0o777 == 0o600


class TestNotAllowed:
    def test_a_folder_that_cannot_be_written_to(self, others, unprivileged):
        if unprivileged != NOBODY:
            others.chmod(0o555)

        with pytest.raises(exception.LedgerError) as raised:
            Ledger.open(others / 'ledger.sqlite')

        assert str(raised.value) == (
            f'the ledger of huge pages {others}/ledger.sqlite cannot be '
            'used: Permission denied. Make sure that the user of nova-compute '
            'owns the file and its folder, and that the file system is '
            'mounted and can be written to.'
        )

    @as_root
    def test_a_folder_without_room_for_the_log(self, others, unprivileged):
        path = others / 'ledger.sqlite'
        os.seteuid(0)
        filled(path)
        os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)

        with pytest.raises(exception.LedgerError, match='cannot be used'):
            Ledger.open(path)

    @as_root
    @pytest.mark.parametrize('read_only', [False, True])
    def test_a_file_of_another_user(self, others, unprivileged, read_only):
        path = others / 'ledger.sqlite'
        os.seteuid(0)
        filled(path)
        os.seteuid(NOBODY)

        with pytest.raises(exception.LedgerError, match='cannot be used'):
            Ledger.open(path, read_only=read_only)

    @as_root
    def test_a_file_that_can_only_be_read(self, others, unprivileged):
        path = others / 'ledger.sqlite'
        os.seteuid(0)
        filled(path)
        path.chmod(0o644)
        os.seteuid(NOBODY)

        with pytest.raises(exception.LedgerError, match='no permission'):
            Ledger.open(path)
        with Ledger.open(path, read_only=True) as ledger:
            assert ledger.holds() == [hold('guest 0')]

    def test_a_folder_is_not_written_to_by_a_reader(
        self, others, unprivileged
    ):
        path = others / 'ledger.sqlite'
        if unprivileged == NOBODY:
            os.seteuid(0)
        filled(path)
        path.chmod(0o644)
        others.chmod(0o555)
        if unprivileged == NOBODY:
            os.seteuid(NOBODY)

        with Ledger.open(path, read_only=True) as ledger:
            assert ledger.holds() == [hold('guest 0')]

    @pytest.mark.parametrize('read_only', [False, True])
    @pytest.mark.parametrize('kind', ['folder', 'link', 'pipe'])
    def test_what_is_no_file(self, path, kind, read_only):
        if kind == 'folder':
            path.mkdir()
        elif kind == 'link':
            filled(path.with_name('elsewhere'))
            path.symlink_to('elsewhere')
        else:
            os.mkfifo(path)

        with pytest.raises(
            exception.LedgerDamaged, match='is not a regular file'
        ):
            Ledger.open(path, read_only=read_only)


class TestDamaged:
    @pytest.mark.parametrize('read_only', [False, True])
    @pytest.mark.parametrize('content', [b'xy', b'[DEFAULT]\n' * 1000])
    def test_something_else(self, path, content, read_only):
        path.write_bytes(content)

        with pytest.raises(
            exception.LedgerDamaged, match='is damaged: file is not a data'
        ) as raised:
            Ledger.open(path, read_only=read_only)

        assert 'makes another ledger from the running domains' in str(
            raised.value
        )
        assert path.read_bytes() == content

    @pytest.mark.parametrize('read_only', [False, True])
    @pytest.mark.parametrize('rest', [2, 99, 100, 4096, 10000, 16384])
    def test_cut_off(self, path, rest, read_only):
        filled(path, 200)
        os.truncate(path, rest)

        with pytest.raises(exception.LedgerDamaged, match='is damaged'):
            Ledger.open(path, read_only=read_only)

    @pytest.mark.parametrize('read_only', [False, True])
    def test_any_page_overwritten(self, path, read_only):
        filled(path, 200)
        sound = path.read_bytes()
        dice = random.Random(4)
        for start in range(0, len(sound), 4096):
            path.write_bytes(
                sound[:start] + dice.randbytes(4096) + sound[start + 4096 :]
            )

            with pytest.raises(exception.LedgerDamaged):
                Ledger.open(path, read_only=read_only)

    def test_any_bytes_overwritten(self, path):
        # given a ledger with a few random bytes somewhere in it
        filled(path, 200)
        sound = path.read_bytes()
        dice = random.Random(4)
        found = 0
        for _ in range(150):
            start = dice.randrange(len(sound) - 16)
            path.write_bytes(
                sound[:start] + dice.randbytes(16) + sound[start + 16 :]
            )
            for beside in ('-wal', '-shm'):
                path.with_name(path.name + beside).unlink(missing_ok=True)

            # when it is opened, then it is damaged or nothing can be seen
            try:
                with Ledger.open(path) as ledger:
                    ledger.holds()
            except (exception.LedgerDamaged, exception.LedgerTooNew):
                found += 1

        assert found > 20
