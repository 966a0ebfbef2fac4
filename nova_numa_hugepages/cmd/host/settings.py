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
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
import pathlib
import sys

from nova_numa_hugepages import exception
from nova_numa_hugepages.virt import hostfs
from nova_numa_hugepages.virt import ledger as ledger_module
from nova_numa_hugepages.virt import pages
from nova_numa_hugepages.virt import policy as policy_module

# Where distributions have them.
CONFIG_FILES = (
    pathlib.Path('/etc/nova/nova.conf'),
    pathlib.Path('/etc/nova/nova-compute.conf'),
)
STATE_PATH = pathlib.Path('/var/lib/nova')
LIBVIRT_URI = 'qemu:///system'

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2


class BadInput(exception.NUMAHugepagesError):
    """Options, or the configuration, are not right."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What the commands have to know.

    :ivar ledger: where the ledger is, if there is one
    :ivar policy: what the operator allows
    :ivar libvirt_uri: how libvirt is reached; None if it isn't that of the
        host that is looked at
    :ivar notes: sentences on what could not be read
    """

    ledger: pathlib.Path
    policy: policy_module.Policy
    libvirt_uri: str | None = LIBVIRT_URI
    notes: tuple[str, ...] = ()


def fail(error: exception.NUMAHugepagesError) -> int:
    """Say what went wrong.

    :returns: the exit code
    """
    print(sentence(error), file=sys.stderr)
    return EXIT_BAD_INPUT if isinstance(error, BadInput) else EXIT_FAILED


def sentence(error: exception.NUMAHugepagesError) -> str:
    """Begin what an error says with a capital, as it stands by itself."""
    text = str(error)
    return text[:1].upper() + text[1:]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that all commands have."""
    parser.add_argument(
        '--config-file',
        action='append',
        type=pathlib.Path,
        default=[],
        metavar='FILE',
        help=(
            'configuration file of nova-compute (can be given several times; '
            f'default: {" and ".join(map(str, CONFIG_FILES))}, if they are '
            'there)'
        ),
    )
    parser.add_argument(
        '--state-path',
        type=pathlib.Path,
        metavar='FOLDER',
        help=(
            'folder of the ledger (default: [DEFAULT] state_path of the '
            f'configuration, or {STATE_PATH})'
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
            'a container, or an unpacked report'
        ),
    )


def host_fs(options: argparse.Namespace) -> hostfs.HostFS:
    """Tell where the files of the kernel are.

    :raises BadInput: if there are none
    """
    if options.root is None:
        return hostfs.HostFS()
    nodes = options.root / 'sys' / 'devices' / 'system' / 'node'
    if not nodes.is_dir():
        raise BadInput(
            f'--root {options.root}: found no {nodes}, expected the folder in '
            'which the sys and proc of a host are'
        )
    return hostfs.HostFS(options.root / 'sys', options.root / 'proc')


def read(options: argparse.Namespace) -> Settings:
    """Put together what options and configuration say.

    :raises BadInput: if a file that was asked for can't be read, or has a
        value that is out of range
    """
    notes: list[str] = []
    files = options.config_file
    if not files and options.root is None:
        files = [path for path in CONFIG_FILES if _readable(path, notes)]
    settings = Settings(
        pathlib.Path(),
        policy_module.Policy(),
        LIBVIRT_URI if options.root is None else None,
        tuple(notes),
    )
    state_path = STATE_PATH
    if files:
        state_path, settings = _configured(files, settings)
    if options.state_path is not None:
        state_path = options.state_path
    return dataclasses.replace(
        settings, ledger=options.ledger or state_path / ledger_module.FILE_NAME
    )


def _readable(path: pathlib.Path, notes: list[str]) -> bool:
    try:
        there = path.exists()
    except PermissionError:
        there = True
    if there and not os.access(path, os.R_OK):
        notes.append(
            f'{path} cannot be read by this user, so the defaults of its '
            'options count.'
        )
        return False
    return there


def _configured(
    files: Sequence[pathlib.Path], settings: Settings
) -> tuple[pathlib.Path, Settings]:
    """Read what the configuration of nova-compute says.

    :returns: the state path, and settings with what was read
    """
    # Slow to load, and not needed where there is no configuration.
    from oslo_config import cfg
    from oslo_config import types

    from nova_numa_hugepages import conf as own_conf

    conf = cfg.ConfigOpts()
    own_conf.register_opts(conf)
    conf.register_opts(
        [
            cfg.StrOpt('pybasedir', default=str(STATE_PATH)),
            cfg.StrOpt('state_path', default=str(STATE_PATH)),
            cfg.MultiOpt('reserved_huge_pages', item_type=types.Dict()),
        ]
    )
    conf.register_opt(
        cfg.StrOpt('connection_uri', default=''), group='libvirt'
    )
    try:
        conf(
            args=[],
            default_config_files=[str(path) for path in files],
            default_config_dirs=[],
        )
        own_conf.validate(conf)
        found = dataclasses.replace(
            settings,
            policy=policy_module.read(
                conf.numa_hugepages, _reserved(conf.reserved_huge_pages or ())
            ),
            libvirt_uri=settings.libvirt_uri
            and (conf.libvirt.connection_uri or LIBVIRT_URI),
        )
        return pathlib.Path(conf.state_path), found
    except (cfg.Error, ValueError) as error:
        raise BadInput(str(error)) from error


def _reserved(
    entries: Sequence[Mapping[str, str]],
) -> dict[pages.PoolKey, int]:
    """Read ``reserved_huge_pages`` as Nova does.

    :raises BadInput: if it isn't what Nova takes
    """
    found = {}
    for entry in entries:
        try:
            key = pages.PoolKey(int(entry['node']), _size_kib(entry['size']))
            found[key] = int(entry['count'])
        except (KeyError, ValueError) as error:
            raise BadInput(
                f'[DEFAULT] reserved_huge_pages: found {dict(entry)}, '
                'expected for example node:0,size:2048,count:64'
            ) from error
    return found


def _size_kib(text: str) -> int:
    if text.isdigit():
        return int(text)
    from oslo_utils import strutils

    size: int = strutils.string_to_bytes(text, return_int=True)
    return size // 1024
