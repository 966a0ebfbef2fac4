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

"""Options about the servers that the tests create."""

from __future__ import annotations

from oslo_config import cfg

server_opts = [
    cfg.IntOpt(
        'page_size_kib',
        default=2048,
        min=64,
        help="""
Page size in KiB on which the test servers run.

Possible values:

* An integer: a size of huge pages that all compute hosts can provide, 2048 and
  1048576 on x86.

For example, with ``page_size_kib = 1048576`` and ``cell_memory_mib = 1024``
each cell of a server takes one page of 1 GiB.

Related options:

* ``[numa_hugepages] cell_memory_mib``
""",
    ),
    cfg.IntOpt(
        'cell_memory_mib',
        default=128,
        min=1,
        help="""
Memory of each cell of a test server, in MiB.

Possible values:

* An integer from 1: MiB, a multiple of ``page_size_kib``. The image has to
  boot with it. Servers that are resized get cells of twice that size, and a
  host may have to hold both at the same time.

For example, with the default a server of two cells takes 64 pages of 2 MiB on
each of two nodes.

Related options:

* ``[numa_hugepages] page_size_kib``
* ``[compute] image_ref``
""",
    ),
    cfg.IntOpt(
        'cell_vcpus',
        default=1,
        min=1,
        help="""
vCPUs of each cell of a test server.

Possible values:

* An integer from 1. Each node needs that many free dedicated CPUs for each
  server that runs at the same time.

For example, with ``cell_vcpus = 2`` a server of two cells has four vCPUs.

Related options:

* ``[numa_hugepages] dedicated_cpus``
""",
    ),
    cfg.BoolOpt(
        'dedicated_cpus',
        default=True,
        help="""
Whether the test servers have dedicated CPUs.

Possible values:

* ``True``: they have, and the tests compare the CPUs of the host that they are
  pinned to. Compute hosts need ``cpu_dedicated_set``.
* ``False``: they share the CPUs of the node.

For example, ``False`` for a cloud whose hosts have ``cpu_shared_set`` only.
""",
    ),
    cfg.IntOpt(
        'flavor_disk_gib',
        default=1,
        min=0,
        help="""
Disk of the test servers, in GiB.

Possible values:

* An integer from 0: GiB, large enough for ``[compute] image_ref``. With 0 the
  disk is as large as the image, which by default is for administrators only.

For example, the default is enough for an image of 112 MiB.

Related options:

* ``[compute] image_ref``
""",
    ),
    cfg.StrOpt(
        'availability_zone',
        help="""
Availability zone in which the test servers are created.

Possible values:

* The name of a zone. The other options describe the compute hosts in it.
* Not set: the cloud decides.

For example, ``hugepages`` if only the hosts in that zone have huge pages.
""",
    ),
]

load_opts = [
    cfg.IntOpt(
        'servers_at_once',
        default=4,
        min=2,
        max=100,
        help="""
Number of servers that one test requests at once.

Possible values:

* An integer from 2 to 100. Some of them may be refused if there is no room;
  they must not leave anything behind.

For example, 10 in a cloud that has room for seven, with ``fill_servers = 7``.

Related options:

* ``[numa_hugepages] fill_servers``
""",
    ),
    cfg.IntOpt(
        'fill_cell_memory_mib',
        default=0,
        min=0,
        help="""
Memory, in MiB, of servers of one cell that fill the cloud.

The tests that use it need a cloud without other users.

Possible values:

* ``0``: no test fills the cloud.
* An integer from 1: MiB, a multiple of ``page_size_kib``. Choose a size with
  which few servers fill the cloud: a little more than half of a node.

For example, ``fill_cell_memory_mib = 640`` and ``fill_servers = 4`` for a
cloud of one host with four nodes, each of which can have 1 GiB in pages.

Related options:

* ``[numa_hugepages] fill_servers``
* ``[numa_hugepages] servers_at_once``
""",
    ),
    cfg.IntOpt(
        'fill_servers',
        default=0,
        min=0,
        max=100,
        help="""
Number of servers with ``fill_cell_memory_mib`` that fit in the empty cloud, or
in the availability zone.

Possible values:

* ``0``: no test fills the cloud.
* An integer from 1 to 100. The test expects exactly that many to fit.

For example, 7 for a cloud with memory for seven cells of that size, on nodes
with ``cell_vcpus`` free CPUs for each.

Related options:

* ``[numa_hugepages] fill_cell_memory_mib``
* ``[numa_hugepages] cell_vcpus``
""",
    ),
]

ALL = (*server_opts, *load_opts)
