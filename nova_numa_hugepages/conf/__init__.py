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

"""Options of the ``[numa_hugepages]`` group.

The group is in the configuration file of the Nova service that loads this
package. Importing this module registers nothing: a user of the options calls
:func:`register_opts` with its own configuration object, as
``nova_fit/numa_fit.py`` does with Nova's when it is loaded.
"""

from collections.abc import Iterator
import math

from oslo_config import cfg
from oslo_config import types
from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.conf import compute
from nova_numa_hugepages.conf import elastic
from nova_numa_hugepages.conf import group
from nova_numa_hugepages.conf import monitor
from nova_numa_hugepages.conf import scheduler
from nova_numa_hugepages.conf import spelling

LOG = logging.getLogger(__name__)

demand_shares = scheduler.demand_shares
written = spelling.written

_ALL = (*scheduler.ALL, *compute.ALL, *elastic.ALL, *monitor.ALL)
_NAMES = frozenset(opt.dest for opt in _ALL)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of the group. Idempotent.

    :param conf: the configuration object of the service
    """
    conf.register_group(group.numa_hugepages_group)
    conf.register_opts(_ALL, group=group.numa_hugepages_group)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """Return the options for ``oslo-config-generator`` and the documentation.

    :returns: pairs of a group and its options
    """
    return [(group.numa_hugepages_group, list(_ALL))]


def validate(conf: cfg.ConfigOpts) -> None:
    """Check every option of the group, so that the service refuses to start.

    :param conf: a configuration object on which :func:`register_opts` was
        called
    :raises: :class:`nova_numa_hugepages.exception.InvalidOption` if a value is
        out of range or of the wrong type
    """
    for problem in problems(conf):
        raise problem


def problems(conf: cfg.ConfigOpts) -> Iterator[exception.InvalidOption]:
    """Find all options that :func:`validate` refuses.

    oslo.config checks the range of an option only when it is read, which may
    be hours after the start of the service.
    """
    for opt in _ALL:
        try:
            value = conf[group.NAME][opt.dest]
            if opt.dest == 'demand_mix':
                demand_shares(value)
            if value is None:
                # oslo.config takes a number that is left empty for none.
                raise exception.InvalidOption(
                    group.NAME,
                    opt.name,
                    f"found '', expected {expected(opt)}; without it the "
                    f'default is {opt.default}',
                )
        except cfg.Error as error:
            # oslo.config names objects of its own, and not always the value.
            problem = exception.InvalidOption(
                group.NAME,
                opt.name,
                f'{written(conf, group.NAME, opt.name)}, expected '
                f'{expected(opt)}',
            )
            problem.__cause__ = error
            yield problem
        except exception.InvalidOption as error:
            yield error
        else:
            if isinstance(value, float) and not math.isfinite(value):
                yield exception.InvalidOption(
                    group.NAME, opt.name, f'{value} is not a finite number'
                )
    try:
        low = conf[group.NAME].elastic_grow_percent
        high = conf[group.NAME].elastic_shrink_percent
    except cfg.Error:
        # It was told above.
        return
    if None not in (low, high) and low >= high:
        yield exception.InvalidOption(
            group.NAME,
            'elastic_grow_percent',
            f'found {low}, expected less than the {high} of '
            'elastic_shrink_percent',
        )


def expected(opt: cfg.Opt) -> str:
    """Return what values an option of the group may have, in words."""
    kind = opt.type
    if isinstance(kind, types.Boolean):
        return 'true or false'
    if isinstance(kind, types.Integer):
        return f'a number from {kind.min} to {kind.max}'
    if isinstance(kind, types.Float):
        if kind.min is None:
            return 'a finite number'
        return f'a number from {kind.min} to {kind.max}'
    if isinstance(kind, types.Dict):
        return 'for example small:2,large:1, with numbers above 0'
    return ' or '.join(map(str, kind.choices or ('text',)))


def unknown_names(conf: cfg.ConfigOpts) -> list[str]:
    """Find names in the configuration files that look like ours, and aren't.

    :returns: a sentence each, with file and line
    """
    return spelling.unknown_names(conf, _NAMES)


def warn_of_unknown_names(conf: cfg.ConfigOpts) -> None:
    """Log what :func:`unknown_names` finds, when a service starts."""
    for name in unknown_names(conf):
        LOG.warning('Unknown name in the configuration: %s', name)
