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

"""Runs the computes of simulated hosts: ``run_simulated_hosts FILE…``.

Everything but their libvirt and their disks is real.

FILE: the configuration files.
"""

from __future__ import annotations

import sys
import threading

# Has to come before anything else of Nova.
from tests.fixtures import cloud

# isort: split

from nova import config
from nova import objects
from nova import service
from nova.compute import rpcapi
from nova.conductor import rpcapi as conductor_rpcapi
import nova.conf
import nova.db.main.api
from nova.objects import base
import os_brick
import os_vif
from oslo_log import log as logging
from oslo_service import opts as service_opts

from tests.fixtures.cloud import computes
from tests.stack import simulated_hosts

# Enough for any page size, and nothing that would have to be made.
_PAGES = {2048: 1024, 1048576: 4}


class RemoteComputes(computes.ComputeHosts):
    """Computes that reach the other services through the broker."""

    def _serve(self, name: str) -> service.Service:
        found = service.Service.create(
            binary='nova-compute',
            host=name,
            topic=rpcapi.RPC_TOPIC,
            topic_alt=rpcapi.RPC_TOPIC_ALT,
        )
        found.start()
        return found


def main(files: list[str]) -> None:
    """Run it, until it is killed."""
    conf = nova.conf.CONF
    config.parse_args(
        [
            'nova-compute',
            *(word for file in files for word in ('--config-file', file)),
        ]
    )
    logging.setup(conf, 'nova')
    service_opts.register_service_opts(conf)
    objects.register_all()
    os_brick.setup(conf)
    os_vif.initialize()
    nova.db.main.api.DISABLE_DB_ACCESS = True
    base.NovaObject.indirection_api = conductor_rpcapi.ConductorAPI()
    objects.Service.enable_min_version_cache()
    specs = {
        name: cloud.HostSpec(
            name,
            tuple(
                cloud.NodeSpec(pages=_PAGES, shared_cores=1)
                for _ in range(nodes)
            ),
            runs_us=False,
        )
        for name, nodes in simulated_hosts.NODES.items()
    }
    with RemoteComputes(specs, None):
        threading.Event().wait()


if __name__ == '__main__':
    main(sys.argv[1:])
