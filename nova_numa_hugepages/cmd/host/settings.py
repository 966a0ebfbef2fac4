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

"""Settings of the ``host`` commands, from options and the configuration."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import pathlib
import shlex

from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host.inspect import host_root
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state import schema
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME
from nova_numa_hugepages.monitor import room
from nova_numa_hugepages.monitor import thresholds
from nova_numa_hugepages.monitor.thresholds import Thresholds

# Where nova-compute looks for its configuration, except for the home of its
# user, who is another one: of each name the first that exists counts.
CONFIG_FOLDERS = (pathlib.Path('/etc/nova'), pathlib.Path('/etc'))
CONFIG_NAMES = ('nova', 'nova-compute')

STATE_PATH = pathlib.Path('/var/lib/nova')
LIBVIRT_URI = 'qemu:///system'

_FILE = '--config-file'
_FOLDER = '--config-dir'

# An option and its value.
_Option = tuple[str, pathlib.Path]


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a command.

    :ivar ledger: where the ledger is, if there is one
    :ivar policy: the operator's policy for the pools
    :ivar libvirt_uri: how libvirt is reached; None with `--root`, as it may
        be that of another host
    :ivar thresholds: when the monitor raises alarms
    :ivar dedicated: the CPUs that pinned vCPUs may have; None if not known
    :ivar kinds: flavors whose slots the monitor counts
    :ivar notes: sentences about what could not be read
    :ivar files: the files of the configuration that were read
    :ivar unread: whether there are files that this user may not read
    :ivar configured: where the ledger is according to the configuration;
        empty if that does not say
    """

    ledger: pathlib.Path
    policy: PoolPolicy
    libvirt_uri: str | None = LIBVIRT_URI
    thresholds: Thresholds = thresholds.DEFAULTS
    dedicated: frozenset[int] | None = None
    kinds: tuple[room.Kind, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[pathlib.Path, ...] = ()
    unread: bool = False
    configured: tuple[pathlib.Path, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all commands have."""
    for option, metavar, help_text in (
        (
            _FILE,
            'FILE',
            'configuration file of nova-compute (can be given several times; '
            'default: nova.conf and nova-compute.conf in /etc/nova or /etc)',
        ),
        (
            _FOLDER,
            'FOLDER',
            'folder whose *.conf files are read as well (can be given several '
            'times; default: nova.conf.d and nova-compute.conf.d in /etc/nova '
            'or /etc)',
        ),
    ):
        # One list for both, as their order matters: the last value of an
        # option counts.
        parser.add_argument(
            option,
            action='append',
            dest='config',
            type=functools.partial(_option, option),
            default=[],
            metavar=metavar,
            help=help_text,
        )
    parser.add_argument(
        '--state-path',
        type=pathlib.Path,
        metavar='FOLDER',
        help=(
            'folder of the ledger (default: [DEFAULT] state_path of the '
            f'configuration, or {STATE_PATH}; with --root, below that)'
        ),
    )
    parser.add_argument(
        '--ledger',
        type=pathlib.Path,
        metavar='FILE',
        help='the ledger itself, whatever the configuration says',
    )
    parser.add_argument(
        '--root',
        type=pathlib.Path,
        metavar='FOLDER',
        help=(
            'folder with the sys and proc of the host, if not /: a mount in a '
            'container; or, for host show, a copy'
        ),
    )


def _option(option: str, text: str) -> _Option:
    return option, pathlib.Path(text)


def repeated(options: argparse.Namespace) -> str:
    """Write the options again, to be added to another command.

    :returns: each after a blank; empty if none was given
    """
    given: list[_Option] = list(options.config)
    for option, path in (
        ('--state-path', options.state_path),
        ('--ledger', options.ledger),
        ('--root', options.root),
    ):
        if path is not None:
            given.append((option, path))
    return ''.join(
        f' {option} {shlex.quote(str(path))}' for option, path in given
    )


def read(options: argparse.Namespace) -> Settings:
    """Read the settings.

    With `--root` nothing of this host is read, unless it is given.

    :raises errors.BadInput: if a given file cannot be read, or has a value
        that is out of range
    """
    notes: list[str] = []
    files = _files(options, notes)
    unread = bool(notes)
    ledger = _named_ledger(options)
    policy, limits, uri = PoolPolicy(), thresholds.DEFAULTS, LIBVIRT_URI
    configured: tuple[pathlib.Path, ...] = ()
    dedicated: frozenset[int] | None = None
    kinds: tuple[room.Kind, ...] = ()
    if files:
        # Loaded late, as it takes time.
        from nova_numa_hugepages.cmd.host import configuration

        conf = configuration.Configuration(files)
        policy = conf.policy()
        limits = conf.thresholds()
        dedicated, kinds = conf.dedicated_cpus(), conf.slot_flavors()
        notes += conf.unknown_names()
        uri = conf.libvirt_uri() or LIBVIRT_URI
        try:
            configured = _configured(options, conf.state_path())
        except errors.BadInput:
            if ledger is None:
                raise
        if ledger is None and not configured and not unread:
            notes.append(
                'No [DEFAULT] state_path is set in '
                f'{", ".join(map(str, files))}. nova-compute then keeps the '
                'ledger in $pybasedir, the folder that Nova is installed in; '
                f'this command looks in {STATE_PATH}. Set state_path, or name '
                'the folder with --state-path.'
            )
    elif not unread:
        notes.append(
            (
                'No configuration of nova-compute was found'
                if options.root is None
                else 'With --root no configuration is read by itself'
            )
            + ', so limits and reserved pages are those of the defaults. Name '
            'it with --config-file.'
        )
    if ledger is None:
        ledger = (*configured, _in(options.root, STATE_PATH))[0]
    return Settings(
        ledger,
        policy,
        uri if options.root is None else None,
        limits,
        dedicated,
        kinds,
        tuple(notes),
        tuple(files),
        unread,
        configured,
    )


def check(
    options: argparse.Namespace, found: Settings, *, forced: bool
) -> None:
    """Check that pools may be changed with these settings.

    :param forced: whether the ledger may be another one than that of the
        configuration
    :raises errors.Refused: if this user may not read all of them
    :raises errors.BadInput: if those of the service are not certain
    """
    if found.unread:
        raise errors.Refused(
            'Nothing is changed without all of the configuration. Run it as '
            'root.'
        )
    if not found.files:
        where = (
            f'no configuration was found in {CONFIG_FOLDERS[0]}'
            if options.root is None
            else f'--root {options.root}: no configuration is read from there'
        )
        raise errors.BadInput(
            f'{where}, and without it nothing is changed, as pools may have '
            'to stay as they are. Name the configuration of nova-compute '
            'with --config-file.'
        )
    named = options.ledger is not None or options.state_path is not None
    if not (found.configured or named):
        raise errors.BadInput(
            'Which ledger is that of nova-compute is not certain, so nothing '
            'is changed. Set [DEFAULT] state_path, or name the folder with '
            '--state-path.'
        )
    if (
        found.configured
        and not forced
        and not any(_same(found.ledger, path) for path in found.configured)
    ):
        raise errors.BadInput(
            f'The ledger {found.ledger} is not that of the configuration, '
            f'{found.configured[0]}, whose pages are in the same pools. '
            'Leave out --ledger and --state-path. Use --force to override.'
        )


def _configured(
    options: argparse.Namespace, folder: pathlib.Path | None
) -> tuple[pathlib.Path, ...]:
    """Return where the ledger is according to the configuration.

    :returns: with `--root` below that first, and then as it is, since a
        container has its own view of it
    """
    if folder is None:
        return ()
    path = folder / FILE_NAME
    if options.root is None:
        return (path,)
    return _in(options.root, folder), path


def _same(path: pathlib.Path, other: pathlib.Path) -> bool:
    """Check whether two paths are of one file, which need not exist."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return path.resolve() == other.resolve()


def _named_ledger(options: argparse.Namespace) -> pathlib.Path | None:
    """Return the ledger that the options name, None if they do not."""
    if options.ledger is not None:
        if options.ledger.is_dir():
            raise errors.BadInput(
                f'--ledger {options.ledger}: is a folder; did you mean '
                '--state-path?'
            )
        reason = _why_no_ledger(options.ledger)
        if reason is not None:
            raise errors.BadInput(
                f'--ledger {options.ledger}: is no ledger: it is {reason}. '
                f'The ledger is {FILE_NAME} in the state_path of nova-compute.'
            )
        return pathlib.Path(options.ledger)
    if options.state_path is not None:
        if options.state_path.is_file():
            raise errors.BadInput(
                f'--state-path {options.state_path}: is a file; did you mean '
                '--ledger?'
            )
        return pathlib.Path(options.state_path, FILE_NAME)
    return None


def _why_no_ledger(path: pathlib.Path) -> str | None:
    """Return what a file is if it has never been a ledger.

    One that is damaged is a ledger. The format: "The Database Header" in
    https://www.sqlite.org/fileformat.html

    :returns: None if it may be a ledger, is empty or missing, or cannot be
        read
    """
    if path.name == FILE_NAME:
        return None
    try:
        if path.exists() and not path.is_file():
            return 'not a regular file'
        with path.open('rb') as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if head and not head.startswith(_MAGIC):
        return 'not a SQLite database'
    # Until its log is written back the file itself need not have the number.
    if head and not path.with_name(f'{path.name}-wal').exists():
        number = int.from_bytes(head[_APPLICATION])
        if number != schema.APPLICATION_ID:
            return 'a database of something else'
    return None


# Of a SQLite database: its beginning, how long that is, and where it has the
# number of the application that it belongs to.
_MAGIC = b'SQLite format 3\0'
_HEAD = 100
_APPLICATION = slice(68, 72)


def _in(root: pathlib.Path | None, folder: pathlib.Path) -> pathlib.Path:
    """Return where the ledger in a folder of the host is."""
    path = folder / FILE_NAME
    return path if root is None else host_root.below(root, path)


def _files(
    options: argparse.Namespace, notes: list[str]
) -> list[pathlib.Path]:
    """List the files of the configuration, in the order of nova-compute.

    Given files replace the default files, and given folders the default
    folders.

    :param notes: takes a sentence for each that this user may not read
    """
    given = {option for option, _ in options.config}
    default: list[pathlib.Path] = []
    if options.root is None and _FILE not in given:
        default += _default('.conf')
    if options.root is None and _FOLDER not in given:
        for folder in _default('.conf.d'):
            readable = os.access(folder, os.R_OK | os.X_OK)
            default += sorted(folder.glob('*.conf')) if readable else [folder]
    found = []
    for path in dict.fromkeys(default):
        if path.is_dir() or not os.access(path, os.R_OK):
            notes.append(
                f'{path} cannot be read by this user, so the defaults of its '
                'options count.'
            )
        else:
            found.append(path)
    for option, path in options.config:
        if option == _FILE:
            found.append(path)
        elif path.is_dir():
            found += sorted(path.glob('*.conf'))
        else:
            raise errors.BadInput(
                f'{option} {path}: expected a folder, found '
                + ('a file' if path.exists() else 'nothing')
            )
    return found


def _default(suffix: str) -> list[pathlib.Path]:
    """List the files or folders that nova-compute reads by default.

    A folder that this user may not enter is returned in place of what it may
    have.
    """
    found = []
    for name in CONFIG_NAMES:
        for folder in CONFIG_FOLDERS:
            path = folder / f'{name}{suffix}'
            if folder.is_dir() and not os.access(folder, os.X_OK):
                path = folder
            if path.exists():
                found.append(path)
                break
    return found
