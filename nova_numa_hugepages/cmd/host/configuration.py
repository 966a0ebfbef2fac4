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

"""The options of ``nova-compute`` that matter to the pools of this host.

Read with oslo.config, as the service does, but without Nova. The error for a
bad value names its file, its option, and what it should be.
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
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.policy import PoolPolicy
from nova_numa_hugepages.hugepages.policy import read
from nova_numa_hugepages.monitor import named_kinds
from nova_numa_hugepages.monitor import room
from nova_numa_hugepages.monitor.thresholds import Thresholds

_DEFAULT = 'DEFAULT'
_GROUP = 'numa_hugepages'
_DEDICATED = 'cpu_dedicated_set'
_SLOTS = 'slot_flavors'
_RESERVED = 'reserved_huge_pages'

# Values by section and option, as they are written in a file.
_Sections = dict[str, dict[str, list[str]]]


class Configuration:
    """The configuration of ``nova-compute``.

    :param files: its files; the last value of an option counts
    :raises errors.BadInput: if one of them cannot be read, or has a value
        that is out of range
    """

    def __init__(self, files: Sequence[pathlib.Path]) -> None:
        self._sections = [(path, _sections(path)) for path in files]
        self._conf = conf = cfg.ConfigOpts()
        own_conf.register_opts(conf)
        # Registered without a value it would be substituted as empty.
        if self._raw(_DEFAULT, 'pybasedir'):
            conf.register_opt(cfg.StrOpt('pybasedir'))
        conf.register_opts(
            [
                cfg.StrOpt('state_path'),
                cfg.MultiOpt(_RESERVED, item_type=types.Dict()),
            ]
        )
        conf.register_opt(cfg.StrOpt('connection_uri'), group='libvirt')
        conf.register_opt(cfg.StrOpt(_DEDICATED), group='compute')
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
        """Return the folder of the ledger, None if it is not set.

        :raises errors.BadInput: if it has no value that can be used here
        """
        path, text = self._raw(_DEFAULT, 'state_path') or (None, '')
        if path is None:
            return None
        start = f'{path}: [{_DEFAULT}] state_path: found'
        try:
            value = self._conf.state_path
        except cfg.Error as error:
            raise errors.BadInput(
                f'{start} {text!r}, and {_unknown_in(error)} is not known '
                'here. Name the folder with --state-path.'
            ) from error
        if not value:
            raise errors.BadInput(f'{start} nothing, expected a folder')
        return pathlib.Path(value)

    def unknown_names(self) -> list[str]:
        """Find names that look like our options, and are none.

        :returns: a sentence each, with file and line
        """
        return own_conf.unknown_names(self._conf)

    def libvirt_uri(self) -> str | None:
        """Return how libvirt is reached, None if it is not set."""
        uri: str | None = self._value('libvirt', 'connection_uri')
        return uri

    def thresholds(self) -> Thresholds:
        """Return when the monitor raises alarms."""
        ours = self._conf[_GROUP]
        return Thresholds(
            ours.alarm_used_percent,
            ours.alarm_unused_percent,
            ours.alarm_free_percent,
            ours.alarm_fragmented_percent,
            float(ours.alarm_after),
        )

    def dedicated_cpus(self) -> frozenset[int] | None:
        """Return the CPUs that pinned vCPUs may have.

        :returns: None if they are not set
        :raises errors.BadInput: if it is no set of CPUs
        """
        text: str | None = self._value('compute', _DEDICATED)
        if not text:
            return None
        try:
            return frozenset(hostfs.parse_set(text))
        except ValueError as error:
            raise self._bad('compute', _DEDICATED, error) from error

    def slot_flavors(self) -> tuple[room.Kind, ...]:
        """Return the flavors whose slots are counted.

        :raises errors.BadInput: if one can't be read
        """
        try:
            return named_kinds.parse_all(self._conf[_GROUP][_SLOTS])
        except ValueError as error:
            raise self._bad(_GROUP, _SLOTS, error) from error

    def policy(self) -> PoolPolicy:
        """Return the operator's policy for the pools.

        :raises errors.BadInput: if Nova would not accept the values
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
        """Convert one ``reserved_huge_pages`` as Nova does."""
        try:
            size = entry['size']
            size_kib = (
                int(size)
                if size.isdigit()
                else strutils.string_to_bytes(size, return_int=True) // 1024
            )
            key = model.PoolKey(int(entry['node']), size_kib)
            count = int(entry['count'])
            if min(*key, count) < 0:
                raise ValueError('below 0')
            return key, count
        except (KeyError, ValueError) as error:
            text = ','.join(f'{name}:{entry[name]}' for name in entry)
            raise self._bad(_DEFAULT, _RESERVED, error, text) from error

    def _raw(self, group: str, name: str) -> tuple[pathlib.Path, str] | None:
        """Find the file with the value that counts, as it is written there."""
        for path, sections in reversed(self._sections):
            values = sections.get(group, {}).get(name)
            if values:
                return path, values[-1]
        return None

    def _bad(
        self, group: str, name: str, error: Exception, found: str | None = None
    ) -> errors.BadInput:
        """Make the error for a bad value."""
        path, text = self._raw(group, name) or ('the configuration', '')
        return errors.BadInput(
            f'{path}: [{group}] {name}: found {found or text!r}, expected '
            f'{_expected(group, name, error)}'
        )


def _sections(path: pathlib.Path) -> _Sections:
    """Parse a file.

    :raises errors.BadInput: if it is not a configuration file
    """
    found: _Sections = {}
    try:
        cfg.ConfigParser(str(path), found).parse()
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError as error:
        reason = f'byte {error.object[error.start]:#04x}, which is not UTF-8'
    except cfg.ParseError as error:
        reason = f'in line {error.lineno}: {error.line!r} ({error.msg})'
    else:
        return found
    raise errors.BadInput(
        f'{path}: expected a configuration file, found: {reason}'
    )


def _unknown_in(error: BaseException) -> str:
    """Return the unknown option that a value refers to.

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


def _expected(group: str, name: str, error: Exception) -> str:
    """Describe the values that an option may have."""
    if name == _RESERVED:
        return 'for example node:0,size:2048,count:64'
    if name == _SLOTS:
        return f'a list of flavors: {error}'
    ((own_group, opts),) = own_conf.list_opts()
    for opt in opts if group == own_group.name else ():
        if opt.name == name:
            return own_conf.expected(opt)
    # Before that, oslo.config names objects of its own.
    return f'another value ({str(error).rpartition("is not valid: ")[2]})'
