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

"""Options of the tests that run commands on compute hosts."""

from __future__ import annotations

from oslo_config import cfg

whitebox_opts = [
    cfg.BoolOpt(
        'whitebox',
        default=False,
        help="""
Whether tests may run commands on compute hosts. The hosts have to run
NUMAHugepagesDriver.

The commands change nothing. The tests compare the pools before and after, so
no other servers should be started on these hosts at the same time.

Possible values:

* ``True``: these tests run.
* ``False``: they are skipped.

For example, set it to ``True`` in a continuous integration whose compute hosts
take SSH from where Tempest runs.

Related options:

* ``[numa_hugepages] computes``
""",
    ),
    cfg.DictOpt(
        'computes',
        default={},
        help="""
How to run commands on compute hosts, as root.

Possible values:

* Pairs of a hypervisor hostname, as ``openstack hypervisor list`` prints it,
  and a command, separated by colons, the pairs by commas. The command is
  called with one more argument, a shell command line for the compute host.
  ``{host}`` in it stands for the hypervisor hostname.
* No command behind the colon: the host is this machine.
* ``*`` as the hostname: all hosts that are not named.

Servers are created on the first host that is named. If only ``*`` is given,
the scheduler chooses the host, and tests that have to read a host before a
server is on it, which are most, are skipped. Braces other than ``{host}`` are
kept.

For example, one host that is this machine, and one for SSH::

    computes = node-1:,node-2:ssh -i /etc/tempest/key root@10.0.0.2

All hosts by name, and this machine for a user other than root::

    computes = *:ssh root@{host}
    computes = node-1:sudo sh -c

Related options:

* ``[numa_hugepages] whitebox``
* ``[numa_hugepages] virsh_command``
* ``[numa_hugepages] host_command``
""",
    ),
    cfg.StrOpt(
        'virsh_command',
        default='virsh --connect qemu:///system',
        help="""
The virsh command on a compute host.

Possible values:

* The start of a shell command line, to which ``dumpxml`` and the uuid of a
  server are added.

For example, ``podman exec nova_libvirt virsh`` where libvirt is in a
container.

Related options:

* ``[numa_hugepages] computes``
""",
    ),
    cfg.StrOpt(
        'host_command',
        default='nova-numa-hugepages host show -f json',
        help="""
Command on a compute host that shows its pools and the instances that hold
pages.

Possible values:

* A shell command line that prints what ``nova-numa-hugepages host show -f
  json`` prints.

For example, ``/opt/nova/bin/nova-numa-hugepages host show -f json
--state-path /srv/nova`` where Nova is in an environment of its own.

Related options:

* ``[numa_hugepages] computes``
""",
    ),
    cfg.IntOpt(
        'command_timeout',
        default=60,
        min=1,
        help="""
Seconds that a command on a compute host may take.

Possible values:

* An integer from 1: seconds, after which the test fails.

For example, 180 for a compute host that is itself an emulated machine.

Related options:

* ``[numa_hugepages] computes``
""",
    ),
]

pool_opts = [
    cfg.StrOpt(
        'page_pools',
        default='dynamic',
        choices=[
            ('dynamic', 'Pools grow when a server starts.'),
            ('static', 'Pools stay as the operator has set them up.'),
        ],
        help="""
How huge page pools are managed on the compute hosts; the value of the option
of the same name there.

Only tests that run commands on the hosts use it.

Possible values:

* ``dynamic``: pools have to grow by the missing pages, and to have their old
  size after the server is deleted.
* ``static``: no pool may change its size.

For example, ``static`` for hosts that allocate all of their pages on the
kernel command line and have ``page_pools = static`` in their ``nova.conf``.

Related options:

* ``[numa_hugepages] whitebox``
* ``[numa_hugepages] warm_margin_mib``
""",
    ),
    cfg.IntOpt(
        'warm_margin_mib',
        default=0,
        min=0,
        max=16777216,
        help="""
Idle huge page memory, in MiB per pool, that compute hosts keep allocated when
servers are deleted; the value of the option of the same name there.

Only tests that run commands on the hosts use it.

Possible values:

* An integer from 0 to 16777216 (16 TiB): MiB. After a test, a pool may be that
  much larger than before.

For example, 4096 if ``warm_margin_mib = 4096`` is in the ``nova.conf`` of the
compute hosts.

Related options:

* ``[numa_hugepages] page_pools``
""",
    ),
]

ALL = (*whitebox_opts, *pool_opts)
