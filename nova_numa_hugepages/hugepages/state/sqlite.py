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

"""The database file of the ledger, and other files of the state folder.

They are private to the user of the service, also if a command that root runs
makes them. Errors say what to do about a file that can't be used.

A database is opened by SQLite alone: a process that closes any descriptor of
a file loses all POSIX locks that it has on it.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib
import sqlite3
import stat
import time

from nova_numa_hugepages import exception

# Seconds to wait for a transaction of another process.
BUSY_TIMEOUT_S = 10.0

# How often a reader looks again when a file comes or goes while it opens it.
_ATTEMPTS = 5

ACCESS = (
    'Make sure that the user of nova-compute owns the file and its folder, '
    'and that the file system is mounted and can be written to.'
)

# What SQLite keeps beside a database.
_LOG = '-wal'
_INDEX = '-shm'


def make_private(path: pathlib.Path) -> None:
    """Make an empty file that only the user of the service can use.

    That is the owner of its folder, if root makes it. Idempotent: a file that
    is there is left as it is, and is not opened.

    :raises OSError: if it can't be made
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    try:
        if os.geteuid() == 0:
            folder = os.stat(path.parent)
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    finally:
        os.close(descriptor)


def check_folder(path: pathlib.Path) -> None:
    """Check that a database has a folder.

    :raises exception.LedgerError: if it has none
    """
    with _explained(path):
        if not path.parent.is_dir():
            raise exception.LedgerError(
                path,
                f'cannot be created: {path.parent} is no folder',
                'Create it, owned by the user of nova-compute.',
            )


def connect(path: pathlib.Path, *, create: bool) -> sqlite3.Connection:
    """Open a database to read and write it.

    :param create: whether to make the file if there is none
    :raises exception.LedgerMissing: if there is none, or nothing in it, and
        none is to be made
    :raises exception.LedgerDamaged: if it is no regular file, or no database
    :raises exception.LedgerError: if it can't be used
    """
    with _explained(path):
        if create:
            check_folder(path)
            make_private(path)
        if not _size(path) and not create:
            raise exception.LedgerMissing(path)
        # SQLite would fall back to reading only.
        if not os.access(path, os.W_OK, effective_ids=True):
            raise PermissionError('no permission to write to it')
        return _connection(path, 'mode=rw')


def identity(path: pathlib.Path) -> tuple[int, int] | None:
    """Return what a file has in common with no other.

    :returns: None if there is none
    :raises exception.LedgerError: if that can't be found out
    """
    try:
        with _explained(path):
            status = path.stat()
    except exception.LedgerMissing:
        return None
    return status.st_dev, status.st_ino


def secure(path: pathlib.Path, connection: sqlite3.Connection) -> None:
    """Make a database private, and sync what is written to it. Idempotent.

    :raises exception.LedgerError: if it can't be done
    """
    with _explained(path):
        for file in (path, _beside(path, _LOG), _beside(path, _INDEX)):
            # What is beside it goes when another process closes it.
            with contextlib.suppress(FileNotFoundError):
                if stat.S_IMODE(file.lstat().st_mode) != 0o600:
                    file.chmod(0o600)
        _use_log(path, connection)
        connection.execute('PRAGMA synchronous = FULL')
        # A log that is cut or changed is no log to SQLite, without a word. So
        # the database doesn't need it for longer than a transaction takes.
        connection.execute('PRAGMA wal_autocheckpoint = 1')


def connect_read_only(path: pathlib.Path) -> sqlite3.Connection:
    """Open a database to read it, and change no file nor make one.

    What others write later is seen if one of them has it open now.

    :raises: as for `connect`
    """
    for _ in range(_ATTEMPTS):
        with _explained(path):
            before = path.lstat()
            if not _size(path):
                raise exception.LedgerMissing(path)
            if _beside(path, _INDEX).exists():
                # Without it SQLite makes the files that it doesn't find.
                connection = _connection(path, 'mode=ro&readonly_shm=1')
                try:
                    connection.execute('PRAGMA user_version').fetchone()
                except sqlite3.OperationalError as error:
                    connection.close()
                    if _kind(error) != sqlite3.SQLITE_CANTOPEN:
                        raise
                    continue
                except BaseException:
                    connection.close()
                    raise
                return connection
            if not _has_log(path):
                copy = _copy(path)
                if not _has_log(path) and _same(before, path.lstat()):
                    return copy
                copy.close()
    raise exception.LedgerError(
        path,
        'cannot be read without changing files: it has a log without an '
        'index, or is opened and closed all the time',
        'Start nova-compute, which repairs it, and try again.',
    )


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
    """Raise what the system or SQLite says as an error of ours."""
    try:
        with translated(path):
            yield
    except FileNotFoundError as error:
        raise exception.LedgerMissing(path) from error
    except OSError as error:
        raise exception.LedgerError(
            path, f'cannot be used: {error.strerror or error}', ACCESS
        ) from error


@contextlib.contextmanager
def translated(path: pathlib.Path) -> Iterator[None]:
    """Raise what SQLite says of a ledger as an error of ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translation(path, error) from error


def _translation(path: pathlib.Path, error: sqlite3.Error) -> Exception:
    kind = _kind(error)
    match kind:
        case (
            sqlite3.SQLITE_BUSY
            | sqlite3.SQLITE_LOCKED
            # Others opened and closed it all the time.
            | sqlite3.SQLITE_PROTOCOL
        ):
            return exception.LedgerError(
                path,
                f'is locked: another process has been writing to it for '
                f'{BUSY_TIMEOUT_S:g} s ({error})',
                f'See which one has it open (fuser -v {path}), and try again.',
            )
        case sqlite3.SQLITE_FULL:
            return exception.LedgerError(
                path,
                f'cannot be written to: the disk is full ({error})',
                'Free some space; nothing of the change was kept.',
            )
        case (
            sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_PERM
            | sqlite3.SQLITE_READONLY
            | sqlite3.SQLITE_IOERR
            | sqlite3.SQLITE_NOLFS
            | sqlite3.SQLITE_NOMEM
        ):
            name = error.sqlite_errorname
            return exception.LedgerError(
                path, f'cannot be used: {error} ({name})', ACCESS
            )
        case (
            sqlite3.SQLITE_CORRUPT
            | sqlite3.SQLITE_NOTADB
            # Our statements are sound, so the tables aren't.
            | sqlite3.SQLITE_ERROR
            | sqlite3.SQLITE_SCHEMA
            # What is written was checked, so what is there isn't right.
            | sqlite3.SQLITE_CONSTRAINT
        ):
            pass
        case None if isinstance(error, sqlite3.OperationalError):
            # A text that is not UTF-8.
            pass
        case _:
            # What only a defect of ours can be.
            return error
    return exception.LedgerDamaged(path, f'is damaged: {error}')


def _kind(error: sqlite3.Error) -> int | None:
    """Get the code of an error, without what refines it."""
    code: int | None = getattr(error, 'sqlite_errorcode', None)
    return None if code is None else code & 0xFF


def _connection(path: pathlib.Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f'{path.absolute().as_uri()}?{how}',
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        # Transactions begin and end where we say so.
        isolation_level=None,
        check_same_thread=False,
    )


def _use_log(path: pathlib.Path, connection: sqlite3.Connection) -> None:
    """Switch to a log that is written ahead."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            (mode,) = connection.execute(
                'PRAGMA journal_mode = WAL'
            ).fetchone()
            break
        except sqlite3.OperationalError as error:
            # SQLite doesn't wait for others that switch at the same time.
            if (
                _kind(error) != sqlite3.SQLITE_BUSY
                or time.monotonic() > deadline
            ):
                raise
            time.sleep(0.01)
    if mode != 'wal':
        raise exception.LedgerError(
            path,
            'is on a file system that cannot hold it: no shared memory',
            'Put it on a local disk.',
        )


def _copy(path: pathlib.Path) -> sqlite3.Connection:
    """Copy a database that no process has open into memory."""
    with contextlib.closing(_connection(path, 'mode=ro&immutable=1')) as file:
        memory = sqlite3.connect(
            ':memory:', isolation_level=None, check_same_thread=False
        )
        try:
            file.backup(memory)
            # What is written to the copy would be lost.
            memory.execute('PRAGMA query_only = ON')
        except BaseException:
            memory.close()
            raise
    return memory


def _size(path: pathlib.Path) -> int:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise exception.LedgerDamaged(path, 'is not a regular file')
    return status.st_size


def _beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    return path.with_name(path.name + suffix)


def _has_log(path: pathlib.Path) -> bool:
    log = _beside(path, _LOG)
    return log.exists() and log.lstat().st_size > 0


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
    )
