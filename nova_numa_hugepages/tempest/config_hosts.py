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

"""Options for tests that look into compute hosts."""

from __future__ import annotations

from oslo_config import cfg

whitebox_opts = [
    cfg.BoolOpt(
        'whitebox',
        default=False,
        help="""
Whether tests may look into compute hosts, which have to run
NUMAHugepagesDriver.

They run commands there and change nothing. They compare the pools before and
after, so nobody else should start servers on these hosts meanwhile.

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
  called with one more argument, which is a line for the shell of the compute
  host. ``{host}`` in it stands for the hypervisor hostname.
* No command behind the colon: the host is this machine.
* ``*`` as the hostname: all hosts that are not named.

Servers are created on the first host that is named. If only ``*`` is given,
that is up to the scheduler, and tests are skipped that have to see a host
before a server is on it, which are most. Braces other than ``{host}`` are left
alone.

For example, one host that is this machine, and one for SSH::

    computes = node-1:,node-2:ssh -i /etc/tempest/key root@10.0.0.2

All hosts by name, and this machine for a user who is not root::

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
Command on a compute host that is virsh.

Possible values:

* A part of a line for the shell, to which ``dumpxml`` and the uuid of a server
  are added.

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
Command on a compute host that shows its pools and who has their pages.

Possible values:

* A line for the shell, which prints what ``nova-numa-hugepages host show -f
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
Whether pools of huge pages grow when a server starts, as the option of that
name says on the compute hosts.

Only tests that look into the hosts ask for it.

Possible values:

* ``dynamic``: pools have to grow by the pages that lack, and to be back where
  they were after the server was deleted.
* ``static``: no pool may change its size.

For example, ``static`` for hosts that set up all of their pages on the kernel
command line and have ``page_pools = static`` in their ``nova.conf``.

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
Memory in idle huge pages, in MiB for each pool, that compute hosts keep when
servers are deleted, as the option of that name says there.

Only tests that look into the hosts ask for it.

Possible values:

* An integer from 0 to 16777216 (16 TiB): MiB. By so much at most a pool may be
  larger after a test than before.

For example, 4096 if ``warm_margin_mib = 4096`` is in the ``nova.conf`` of the
compute hosts.

Related options:

* ``[numa_hugepages] page_pools``
""",
    ),
]

ALL = (*whitebox_opts, *pool_opts)
