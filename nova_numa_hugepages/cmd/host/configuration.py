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

"""What the configuration of ``nova-compute`` says of this host's pages.

Read with oslo.config, as the service does, but without Nova. A value that
isn't right is told with its file, its option, and what it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
from typing import Any

from oslo_config import cfg
from oslo_config import types
from oslo_utils import strutils

from nova_numa_hugepages import conf as own_conf
from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.policy import read

_DEFAULT = 'DEFAULT'
_GROUP = 'numa_hugepages'
_RESERVED = 'reserved_huge_pages'


class Configuration:
    """The configuration of ``nova-compute``.

    :param files: its files; of the values of an option the last one holds
    :raises problems.BadInput: if one of them can't be read, or has a value
        that is out of range
    """

    def __init__(self, files: Sequence[pathlib.Path]) -> None:
        self._sections = [(path, _sections(path)) for path in files]
        self._conf = conf = cfg.ConfigOpts()
        own_conf.register_opts(conf)
        # A default that isn't known here would be taken for a value.
        if self._raw(_DEFAULT, 'pybasedir'):
            conf.register_opt(cfg.StrOpt('pybasedir'))
        conf.register_opts(
            [
                cfg.StrOpt('state_path'),
                cfg.MultiOpt(_RESERVED, item_type=types.Dict()),
            ]
        )
        conf.register_opt(cfg.StrOpt('connection_uri'), group='libvirt')
        try:
            conf(
                args=[f'--config-file={path}' for path in files],
                default_config_files=[],
                default_config_dirs=[],
                # The environment of the service is another one.
                use_env=False,
            )
            own_conf.validate(conf)
        except exception.InvalidOption as error:
            raise self._bad(error.group, error.name, error) from error
        except cfg.Error as error:
            raise errors.BadInput(str(error)) from error

    def state_path(self) -> pathlib.Path | None:
        """Tell the folder of the ledger.

        :returns: None if it isn't set
        :raises problems.BadInput: if it can't be told
        """
        name = 'state_path'
        raw = self._raw(_DEFAULT, name)
        if raw is None:
            return None
        path, text = raw
        try:
            value = self._conf.state_path
        except cfg.Error as error:
            raise errors.BadInput(
                f'{path}: [{_DEFAULT}] {name}: found {text!r}, and '
                f'{_unknown_in(error)} is not known here. Name the folder '
                'with --state-path.'
            ) from error
        if not value:
            raise errors.BadInput(
                f'{path}: [{_DEFAULT}] {name}: found nothing, expected a '
                'folder'
            )
        return pathlib.Path(value)

    def libvirt_uri(self) -> str | None:
        """Tell how libvirt is reached, None if it isn't set."""
        uri: str | None = self._value('libvirt', 'connection_uri')
        return uri

    def policy(self) -> PoolPolicy:
        """Tell what the operator allows.

        :raises problems.BadInput: if it isn't what Nova takes
        """
        entries = self._value(_DEFAULT, _RESERVED) or ()
        return read(self._conf[_GROUP], dict(map(self._reserved, entries)))

    def _value(self, group: str, name: str) -> Any:
        try:
            where = self._conf if group == _DEFAULT else self._conf[group]
            return where[name]
        except cfg.Error as error:
            raise self._bad(group, name, error) from error

    def _reserved(self, entry: Mapping[str, str]) -> tuple[model.PoolKey, int]:
        """Read one ``reserved_huge_pages`` as Nova does."""
        try:
            key = model.PoolKey(int(entry['node']), _size_kib(entry['size']))
            count = int(entry['count'])
            if min(*key, count) < 0:
                raise ValueError('below 0')
            return key, count
        except (KeyError, ValueError) as error:
            text = ','.join(f'{name}:{entry[name]}' for name in entry)
            raise self._bad(_DEFAULT, _RESERVED, error, text) from error

    def _raw(self, group: str, name: str) -> tuple[pathlib.Path, str] | None:
        """Find the file with the value that holds, as it is written there."""
        for path, sections in reversed(self._sections):
            values = sections.get(group, {}).get(name)
            if values:
                return path, values[-1]
        return None

    def _bad(
        self, group: str, name: str, error: Exception, found: str | None = None
    ) -> errors.BadInput:
        """Tell of a value that isn't right."""
        path, text = self._raw(group, name) or ('the configuration', '')
        return errors.BadInput(
            f'{path}: [{group}] {name}: found {found or text!r}, expected '
            f'{_expected(name, error)}'
        )


def _sections(path: pathlib.Path) -> dict[str, dict[str, list[str]]]:
    """Read a file, to have all that is wrong with it told with its name."""
    found: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(str(path), found).parse()
    except OSError as error:
        raise errors.BadInput(
            f'{path}: expected a configuration file, found: '
            f'{error.strerror or error}'
        ) from error
    except UnicodeDecodeError as error:
        raise errors.BadInput(
            f'{path}: expected a text in UTF-8, found byte '
            f'{error.object[error.start]:#04x}'
        ) from error
    except cfg.ParseError as error:
        raise errors.BadInput(
            f'{path}: expected a configuration file, found in line '
            f'{error.lineno}: {error.line!r} ({error.msg})'
        ) from error
    return found


def _expected(name: str, error: Exception) -> str:
    """Tell what a value should be."""
    if name == _RESERVED:
        return 'for example node:0,size:2048,count:64'
    for group, opts in own_conf.list_opts():
        for opt in opts:
            if (group.name, opt.name) != (_GROUP, name):
                continue
            choices = getattr(opt.type, 'choices', None)
            if choices:
                return ' or '.join(map(str, choices))
            low = getattr(opt.type, 'min', None)
            high = getattr(opt.type, 'max', None)
            if low is not None and high is not None:
                return f'a number from {low} to {high}'
            if isinstance(opt.type, types.Boolean):
                return 'true or false'
    # What oslo.config says before that has its own objects in it.
    return f'another value ({str(error).rpartition("is not valid: ")[2]})'


def _unknown_in(error: BaseException) -> str:
    """Tell which name in a value stands for nothing.

    oslo.config names the option that has the value, and the other one only in
    what led to that.
    """
    name = 'one of its names'
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, cfg.NoSuchOptError):
            name = link.opt_name
        link = link.__cause__ or link.__context__
    return name


def _size_kib(text: str) -> int:
    if text.isdigit():
        return int(text)
    size: int = strutils.string_to_bytes(text, return_int=True)
    return size // 1024
