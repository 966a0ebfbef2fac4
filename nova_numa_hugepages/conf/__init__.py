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

import math

from oslo_config import cfg

from nova_numa_hugepages import exception
from nova_numa_hugepages.conf import compute
from nova_numa_hugepages.conf import group
from nova_numa_hugepages.conf import scheduler

demand_shares = scheduler.demand_shares

_ALL = (*scheduler.ALL, *compute.ALL)


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

    oslo.config checks the range of an option only when it is read, which may
    be hours after the start of the service.

    :param conf: a configuration object on which :func:`register_opts` was
        called
    :raises: :class:`nova_numa_hugepages.exception.InvalidOption` if a value is
        out of range or of the wrong type
    """
    for opt in _ALL:
        try:
            value = conf[group.NAME][opt.dest]
        except cfg.Error as error:
            # oslo.config names the option but not its group.
            raise exception.InvalidOption(
                group.NAME, opt.name, str(error)
            ) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise exception.InvalidOption(
                group.NAME, opt.name, f'{value} is not a finite number'
            )
    demand_shares(conf[group.NAME].demand_mix)
