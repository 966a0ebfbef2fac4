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

"""What the ``host`` commands have to know: where the ledger is, and so on."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
import dataclasses
import functools
import os
import pathlib
import shlex

from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host.inspect import host_root
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.state.ledger import FILE_NAME

# Where nova-compute looks for its configuration, but for the home of its
# user: of each name the first one that is there.
CONFIG_FOLDERS = (pathlib.Path('/etc/nova'), pathlib.Path('/etc'))
CONFIG_NAMES = ('nova', 'nova-compute')

STATE_PATH = pathlib.Path('/var/lib/nova')
LIBVIRT_URI = 'qemu:///system'

_FILE = '--config-file'
_FOLDER = '--config-dir'

# An option and what it names.
_Given = tuple[str, pathlib.Path]


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What the commands have to know.

    :ivar ledger: where the ledger is, if there is one
    :ivar policy: what the operator allows
    :ivar libvirt_uri: how libvirt is reached; None if it isn't that of the
        host that is looked at
    :ivar notes: sentences on what could not be read
    :ivar files: the files of the configuration that were read
    :ivar unread: whether there are files that this user may not read
    :ivar configured: where the ledger is as the configuration says; empty if
        it doesn't
    """

    ledger: pathlib.Path
    policy: PoolPolicy
    libvirt_uri: str | None = LIBVIRT_URI
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
            'default: nova.conf and nova-compute.conf in /etc/nova, or in '
            '/etc, if they are there)',
        ),
        (
            _FOLDER,
            'FOLDER',
            'folder whose *.conf files are read as well (can be given several '
            'times; default: nova.conf.d and nova-compute.conf.d in /etc/nova '
            'or in /etc, if they are there)',
        ),
    ):
        # One list for both, as the order counts: the last value of an option
        # is the one that holds.
        parser.add_argument(
            option,
            action='append',
            dest='config',
            type=functools.partial(_given, option),
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
            'where the sys and proc of the host are, if not at /: a mount in '
            'a container; or, for host show, a copy'
        ),
    )


def _given(option: str, text: str) -> _Given:
    return option, pathlib.Path(text)


def as_given(options: argparse.Namespace) -> str:
    """Write the options anew, to be added to another command.

    :returns: each after a blank; empty if none was given
    """
    given: list[_Given] = list(options.config)
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
    """Put together what options and configuration say.

    With `--root` nothing of this host is read, unless it is given.

    :raises problems.BadInput: if a file that was asked for can't be read, or
        has a value that is out of range
    """
    own = options.root is None
    notes: list[str] = []
    files = _files(options, notes)
    settings = Settings(
        _ledger(options),
        PoolPolicy(),
        LIBVIRT_URI if own else None,
        files=tuple(files),
        unread=bool(notes),
    )
    if files:
        # Slow to load, and not needed where there is no configuration.
        from nova_numa_hugepages.cmd.host import configuration

        found = configuration.Configuration(files)
        settings = dataclasses.replace(
            settings,
            policy=found.policy(),
            libvirt_uri=(found.libvirt_uri() or LIBVIRT_URI) if own else None,
        )
        try:
            configured = _configured(options, found.state_path())
        except errors.BadInput:
            if not _named(options):
                raise
            configured = ()
        settings = dataclasses.replace(settings, configured=configured)
        if configured and not _named(options):
            settings = dataclasses.replace(settings, ledger=configured[0])
        elif not _named(options) and not notes:
            # Nothing was left out in which it may be set.
            notes.append(_unset(files))
    return dataclasses.replace(settings, notes=tuple(notes))


def check(
    options: argparse.Namespace, found: Settings, *, forced: bool
) -> None:
    """See that pools may be changed by what was found.

    :param forced: whether the ledger may be another one than that of the
        configuration
    :raises problems.BadInput: if it isn't certain what the service goes by
    """
    if found.unread:
        raise errors.NotAllowed(
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
    if not (found.configured or _named(options)):
        raise errors.BadInput(
            'Which ledger is that of nova-compute is not certain, so nothing '
            'is changed. Set [DEFAULT] state_path, or name the folder with '
            '--state-path.'
        )
    if (
        found.configured
        and not forced
        and not any(_same(found.ledger, one) for one in found.configured)
    ):
        raise errors.BadInput(
            f'The ledger {found.ledger} is not that of the configuration, '
            f'{found.configured[0]}, whose pages are in the same pools. '
            'Leave out --ledger and --state-path; or, if you know better, '
            'add --force.'
        )


def _named(options: argparse.Namespace) -> bool:
    """Tell whether the ledger is given."""
    return options.ledger is not None or options.state_path is not None


def _configured(
    options: argparse.Namespace, folder: pathlib.Path | None
) -> tuple[pathlib.Path, ...]:
    """Tell where the ledger is as the configuration says.

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
    """Tell whether two paths are of one file, whether it is there or not."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return path.resolve() == other.resolve()


def _ledger(options: argparse.Namespace) -> pathlib.Path:
    """Tell where the ledger is, unless the configuration says otherwise."""
    if options.ledger is not None:
        if options.ledger.is_dir():
            raise errors.BadInput(
                f'--ledger {options.ledger}: is a folder; did you mean '
                '--state-path?'
            )
        return pathlib.Path(options.ledger)
    if options.state_path is not None:
        if options.state_path.is_file():
            raise errors.BadInput(
                f'--state-path {options.state_path}: is a file; did you mean '
                '--ledger?'
            )
        return pathlib.Path(options.state_path, FILE_NAME)
    return _in(options.root, STATE_PATH)


def _in(root: pathlib.Path | None, folder: pathlib.Path) -> pathlib.Path:
    """Tell where the ledger in a folder of the host is."""
    path = folder / FILE_NAME
    return path if root is None else host_root.below(root, path)


def _unset(files: Iterable[pathlib.Path]) -> str:
    return (
        f'No [DEFAULT] state_path is set in {", ".join(map(str, files))}. '
        'nova-compute then keeps the ledger in $pybasedir, the folder that '
        f'Nova is installed in; this command looks in {STATE_PATH}. Set '
        'state_path, or name the folder with --state-path.'
    )


def _files(
    options: argparse.Namespace, notes: list[str]
) -> list[pathlib.Path]:
    """List the files of the configuration, as nova-compute reads them.

    What is given takes the place of the usual files, or folders.
    """
    kinds = {option for option, _ in options.config}
    found: list[pathlib.Path] = []
    if options.root is None:
        if _FILE not in kinds:
            found += _usual('.conf')
        if _FOLDER not in kinds:
            for folder in _usual('.conf.d'):
                if os.access(folder, os.R_OK | os.X_OK):
                    found += sorted(folder.glob('*.conf'))
                else:
                    notes.append(_unread(folder))
        for path in [path for path in found if not os.access(path, os.R_OK)]:
            notes.append(_unread(path))
            found.remove(path)
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


def _usual(suffix: str) -> list[pathlib.Path]:
    """Find what nova-compute reads without being told."""
    found = []
    for name in CONFIG_NAMES:
        for folder in CONFIG_FOLDERS:
            path = folder / f'{name}{suffix}'
            try:
                there = path.exists()
            except PermissionError:
                there = True
            if there:
                found.append(path)
                break
    return found


def _unread(path: pathlib.Path) -> str:
    return (
        f'{path} cannot be read by this user, so the defaults of its options '
        'count.'
    )
