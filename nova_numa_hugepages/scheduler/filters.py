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

"""The scheduler filter for guests with NUMA cells, huge pages, pinned CPUs.

Enable it in place of Nova's ``NUMATopologyFilter``::

    [filter_scheduler]
    available_filters = nova.scheduler.filters.all_filters
    available_filters = \
nova_numa_hugepages.scheduler.filters.NUMAHugepagesFilter
    enabled_filters = ...,NUMAHugepagesFilter

It takes the same decisions where Nova's are right, for all hosts of a request
at a time, and logs in one line why hosts are rejected.
"""

from __future__ import annotations

from collections.abc import Iterable
import logging as stdlib_logging

from nova import conf as nova_conf
from nova.objects import request_spec
from nova.scheduler import filters
from nova.scheduler import host_manager
from nova.scheduler import utils
from oslo_log import log as logging

from nova_numa_hugepages import conf
from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.core.rejection import Rejection
from nova_numa_hugepages.core.rejection import summarize
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.nova_fit import translate
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import host_check
from nova_numa_hugepages.scheduler import request_cache

CONF = nova_conf.CONF
LOG = logging.getLogger(__name__)


class NUMAHugepagesFilter(filters.BaseHostFilter):
    """Pass hosts on whose NUMA topology the guest fits.

    Puts the fit of this package in place of Nova's when it is loaded, so that
    the scheduler consumes what this filter chose.

    :param learned: the demand that is learned; the one that a weigher of this
        process has started if None
    :raises exception.InvalidOption: at start, if an option of
        ``[numa_hugepages]`` is out of range
    :raises exception.SignatureMismatch: at start, if the installed Nova
        calls its fit in a way that is not known
    """

    # The API refuses a rebuild that would change the NUMA topology, and the
    # guest stays where it is: there is nothing to check.
    RUN_ON_REBUILD = False

    def __init__(self, learned: demand.Demand | None = None) -> None:
        super().__init__()
        conf.register_opts(CONF)
        conf.validate(CONF)
        conf.warn_of_unknown_names(CONF)
        numa_fit.install()
        self._stats = host_check.StatsReader()
        self._demand = learned

    def host_passes(
        self,
        host_state: host_manager.HostState,
        filter_properties: request_spec.RequestSpec,
    ) -> bool:
        """Check one host, as `filter_all` does."""
        return bool(self._passing([host_state], filter_properties))

    def filter_all(
        self,
        filter_obj_list: Iterable[host_manager.HostState],
        spec_obj: request_spec.RequestSpec,
    ) -> Iterable[host_manager.HostState]:
        """Check all hosts of a request.

        Of the hosts that pass, the allocation candidates that don't fit are
        taken away, and ``limits['numa_topology']`` is set for the claim.
        """
        hosts = list(filter_obj_list)
        if not self.RUN_ON_REBUILD and utils.request_is_rebuild(spec_obj):
            return hosts
        return self._passing(hosts, spec_obj)

    def _passing(
        self,
        hosts: list[host_manager.HostState],
        spec: request_spec.RequestSpec,
    ) -> list[host_manager.HostState]:
        rejections: list[Rejection] = []
        passing = []
        uuid = translate.instance_uuid(spec)
        log_each = LOG.isEnabledFor(stdlib_logging.DEBUG)
        check = host_check.HostCheck(spec, self._stats)
        self._learn(check, spec)
        for host in hosts:
            rejection = check.check(host)
            if rejection is None:
                passing.append(host)
                continue
            rejections.append(rejection)
            if log_each:
                LOG.debug(
                    'NUMAHugepagesFilter rejected %(host)s, %(node)s: '
                    '%(reason)s',
                    {
                        'host': host.host,
                        'node': host.nodename,
                        'reason': rejection,
                    },
                    instance_uuid=uuid,
                )
        request_cache.of(spec).fill(check.fitter, check.farthest, check.hosts)
        if rejections:
            reasons = summarize(
                rejections, at_most=CONF.numa_hugepages.rejection_reasons
            )
            LOG.info(
                'NUMAHugepagesFilter rejected %(rejected)d of %(all)d hosts: '
                '%(reasons)s',
                {
                    'rejected': len(rejections),
                    'all': len(hosts),
                    'reasons': '; '.join(reasons),
                },
                instance_uuid=uuid,
            )
        return passing

    def _learn(
        self, check: host_check.HostCheck, spec: request_spec.RequestSpec
    ) -> None:
        """Count a guest for the demand that the weigher goes by.

        That can't be left to the weigher, which is not called for guests for
        which there is no host, or only one.
        """
        learned = self._demand or demand.current()
        if (
            learned is not None
            and check.fitter is not None
            and not check.refused
        ):
            kind = guest_kinds.guest_kind(check.fitter.request, check.farthest)
            learned.observe(spec, kind)
