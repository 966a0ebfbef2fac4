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

"""Options of the monitor."""

from oslo_config import cfg

alarm_opts = [
    cfg.IntOpt(
        'alarm_used_percent',
        default=90,
        min=1,
        max=100,
        help="""
Share of its memory, in percent, of which on an instance raises an alarm.

What an instance uses is what its kernel reports through its balloon: memory
that programs couldn't have without swapping. The alarm is over when the share
is a twentieth lower. An instance that reads more than 16 MiB back from its
swap in two minutes raises the alarm as well.

Possible values:

* An integer from 1 to 100.

For example, with the default an instance with 64 GiB raises the alarm when its
programs use more than 57.6 GiB.

Related options:

* ``[numa_hugepages] alarm_after``
* flavor extra spec ``numa_hugepages:alarm_used_percent``, which overrides it
""",
    ),
    cfg.IntOpt(
        'alarm_unused_percent',
        default=75,
        min=1,
        max=100,
        help="""
Share of its memory, in percent, that an instance has to leave unused for a day
before that is reported.

Possible values:

* An integer from 1 to 100; ``100`` reports none.

For example, with the default an instance with 64 GiB is reported if its
programs used less than 16 GiB for a day.

Related options:

* ``[numa_hugepages] alarm_used_percent``
""",
    ),
    cfg.IntOpt(
        'alarm_free_percent',
        default=5,
        min=0,
        max=100,
        help="""
Share of the memory of a NUMA node, in percent, below which what new instances
can have of it raises an alarm.

What they can have are huge pages of one size, free ones and those that can be
allocated. The alarm is over when they can have half as much again.

Possible values:

* An integer from 0 to 100; ``0`` raises none.

For example, with the default a NUMA node with 256 GiB raises the alarm when
instances can have less than 12.8 GiB of it.

Related options:

* ``[numa_hugepages] alarm_after``
""",
    ),
    cfg.IntOpt(
        'alarm_fragmented_percent',
        default=10,
        min=0,
        max=100,
        help="""
Share of the instances of a kind, in percent, that have to be lost to
fragmentation for an alarm.

The share is of those for which there would be room if free memory were in one
piece. At least one has to be lost in any case: on a host that has run for
long, some memory is always in pieces.

Possible values:

* An integer from 0 to 100; with ``0`` one instance is enough.

For example, with the default a host raises the alarm that has room for 17
instances of a flavor, and would have for 20.

Related options:

* ``[numa_hugepages] alarm_after``
* ``[numa_hugepages] slot_flavors``
""",
    ),
    cfg.IntOpt(
        'alarm_after',
        default=300,
        min=0,
        max=86400,
        help="""
Time, in seconds, for which something has to be wrong before an alarm is
raised.

Alarms on what can't be right even for a moment are raised after 30 seconds,
whatever this option says.

Possible values:

* An integer from 0 to 86400.

For example, with the default an instance that uses all of its memory for four
minutes raises no alarm.

Related options:

* ``[numa_hugepages] alarm_used_percent``
* ``[numa_hugepages] alarm_free_percent``
""",
    ),
]

slot_opts = [
    cfg.ListOpt(
        'slot_flavors',
        default=[],
        help="""
Flavors of which the monitor counts how many more instances there is room for.

Those of the instances that it has seen on this host are counted without being
named. The count goes by huge pages and, if ``[compute] cpu_dedicated_set`` is
set, by dedicated CPUs, less those of the instances that run. NUMA distances,
devices, networks and the CPUs of instances that are off don't count.

Possible values:

* A comma-separated list of flavors, each
  ``NAME:vcpus=V:ram=MIB:mem_page_size=SIZE``, optionally with
  ``:numa_nodes=N`` (default 1) and ``:cpu_policy=dedicated``. ``SIZE`` is in
  KiB, or has a unit.

For example::

  slot_flavors = db.large:vcpus=8:ram=65536:mem_page_size=1GB:numa_nodes=2

Related options:

* ``[compute] cpu_dedicated_set``
""",
    ),
]

ALL = (*alarm_opts, *slot_opts)
