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

"""The flavors of the cloud as kinds of guests."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import logging as stdlib_logging
import math
import threading
import time

from nova import conf as nova_conf
from nova import context
from nova import exception as nova_exception
from nova import objects
from nova.virt import hardware as nova_hardware
from oslo_db import exception as db_exception
from oslo_log import log as logging
from sqlalchemy import exc as sqlalchemy_exc

from nova_numa_hugepages import conf
from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.nova_fit import translate

CONF = nova_conf.CONF
LOG = logging.getLogger(__name__)


def kind_of(flavor: objects.Flavor) -> guest_kinds.GuestKind | None:
    """Return the kind of the guests of a flavor.

    :returns: None if it asks for no cells, pages or dedicated CPUs, or is not
        plausible
    :raises nova.exception.NovaException: if Nova refuses its extra specs
    :raises exception.InvalidExtraSpec: if this package does
    :raises ValueError: if a number in them can't be read
    """
    topology = nova_hardware.numa_get_constraints(
        flavor, objects.ImageMeta(properties=objects.ImageMetaProps())
    )
    if topology is None:
        return None
    kind = guest_kinds.guest_kind(
        translate.request(topology),
        extra_specs.max_distance(translate.extra_specs(flavor)),
    )
    return kind if guest_kinds.plausible(kind) else None


class FlavorKinds:
    """Reads the flavors from Nova's API database, now and then.

    :param interval_s: seconds until they are read again; 0 to never read them
    :param clock: returns these seconds
    """

    def __init__(
        self, interval_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._next = -math.inf
        self._kinds: dict[str, guest_kinds.GuestKind] = {}
        self._warned: set[str] = set()

    def kinds(self) -> Mapping[str, guest_kinds.GuestKind]:
        """Return the kinds of the flavors that ask for cells, pages or CPUs.

        :returns: by the name of the flavor; none if there is no database, and
            the last that were read if it doesn't answer
        """
        if not self._interval_s or not CONF.api_database.connection:
            return {}
        # While one thread reads, the others go on with what was read last.
        if self._lock.acquire(blocking=False):
            try:
                now = self._clock()
                if now >= self._next:
                    # Also after an error: don't ask again with each request.
                    self._next = now + self._interval_s
                    self._read()
            finally:
                self._lock.release()
        return self._kinds

    def _read(self) -> None:
        try:
            listed = objects.FlavorList.get_all(
                context.get_admin_context(), filters={'disabled': False}
            )
        except (
            db_exception.DBError,
            db_exception.CantStartEngineError,
            nova_exception.NovaException,
            sqlalchemy_exc.SQLAlchemyError,
        ) as error:
            LOG.warning(
                'Could not read the flavors from the API database: %(error)s. '
                'The demand is learned from requests alone; will retry in '
                '%(seconds)d s.',
                {'error': error, 'seconds': self._interval_s},
            )
            return
        kinds = {}
        for flavor in listed:
            try:
                kind = kind_of(flavor)
            except (
                nova_exception.NovaException,
                exception.NUMAHugepagesError,
                ValueError,
            ) as error:
                self._log_ignored(flavor.name, error)
                continue
            if kind is not None:
                kinds[flavor.name] = kind
        self._kinds = kinds
        LOG.debug(
            '%d flavors ask for NUMA nodes, huge pages or dedicated CPUs',
            len(kinds),
        )

    def _log_ignored(self, name: str, error: Exception) -> None:
        level = stdlib_logging.DEBUG
        if name not in self._warned:
            self._warned.add(name)
            level = stdlib_logging.WARNING
        LOG.log(
            level,
            'Ignoring flavor %(name)s for the demand until its extra specs '
            'are corrected: %(error)s',
            {'name': name, 'error': error},
        )


class PinnedMix:
    """The demand that the operator has set.

    :param shares: the name of a flavor to how often it is asked for, as text
    :raises exception.InvalidOption: if a share is not a number above 0
    """

    def __init__(
        self, of_flavors: FlavorKinds, shares: Mapping[str, str]
    ) -> None:
        self._flavors = of_flavors
        self._shares = conf.demand_shares(shares)
        self._warned: set[str] = set()

    def mix(self) -> dict[guest_kinds.GuestKind, float]:
        """Return the demand.

        :returns: by kind; empty if none is set, or none of its flavors exists
        """
        if not self._shares:
            return {}
        kinds = self._flavors.kinds()
        mix: dict[guest_kinds.GuestKind, float] = {}
        for name, share in self._shares.items():
            if name in kinds:
                mix[kinds[name]] = mix.get(kinds[name], 0.0) + share
            elif name not in self._warned:
                self._warned.add(name)
                LOG.warning(
                    'Ignoring flavor %s of [numa_hugepages] demand_mix: no '
                    'flavor of that name asks for NUMA nodes, huge pages or '
                    'dedicated CPUs, or flavors are not read. Check the name, '
                    '[api_database] connection and [numa_hugepages] '
                    'demand_flavors_interval.',
                    name,
                )
        return mix
