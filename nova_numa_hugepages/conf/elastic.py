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

"""Options of elastic memory, which the compute driver carries out."""

from oslo_config import cfg

ALL = (
    cfg.FloatOpt(
        'elastic_lend_ratio',
        default=1.0,
        min=1.0,
        max=4.0,
        help="""
How far the memory of elastic instances may be promised beyond the pages that
there are.

An elastic instance (extra spec ``numa_hugepages:elastic_base_percent``) that
doesn't use all of its memory has pages that are idle. With a ratio above 1.0
they are offered to the scheduler, so that more instances fit. What an instance
uses is never taken from it, and each always has its base; but if all of them
want all of their memory at once, some have to wait.

Possible values:

* ``1.0``: nothing is lent. An instance can always have all of its memory.
* A number above 1.0, up to 4.0: the memory of all instances on a NUMA node may
  be as many times the pages of its pool. Only idle memory of elastic instances
  is lent, so less may be possible.

For example, with 1.25 and pools of 100 GiB that elastic instances of 100 GiB
use half of, instances with another 25 GiB can start.

Related options:

* ``[DEFAULT] ram_allocation_ratio``
* ``[numa_hugepages] elastic_interval``
""",
    ),
    cfg.IntOpt(
        'elastic_interval',
        default=5,
        min=1,
        max=60,
        help="""
Seconds between two looks at the memory of elastic instances.

Possible values:

* An integer from 1 to 60: seconds.

For example, with the default an instance that runs out of memory is given more
within five seconds and the time in which its kernel reports it.

Related options:

* ``[libvirt] mem_stats_period_seconds``, without which nothing is known of the
  memory inside
""",
    ),
    cfg.IntOpt(
        'elastic_grow_percent',
        default=10,
        min=1,
        max=90,
        help="""
Share of its memory below which an elastic instance is given more.

What counts is the memory that its programs can have without swapping
(``MemAvailable``), as its kernel reports it. One that swaps is given more at
once.

Possible values:

* An integer from 1 to 90: percent. It has to be below
  ``elastic_shrink_percent``.

For example, with the default an instance that has 10 GiB is given more when
less than 1 GiB of it is usable.

Related options:

* ``[numa_hugepages] elastic_shrink_percent``
""",
    ),
    cfg.IntOpt(
        'elastic_shrink_percent',
        default=25,
        min=2,
        max=95,
        help="""
Share of its memory above which an elastic instance gives some back.

Possible values:

* An integer from 2 to 95: percent of its memory that is usable. It has to be
  above ``elastic_grow_percent``.

For example, with the default an instance that has 10 GiB gives some back when
2.5 GiB of it have been usable for ``elastic_shrink_delay``.

Related options:

* ``[numa_hugepages] elastic_grow_percent``
* ``[numa_hugepages] elastic_shrink_delay``
""",
    ),
    cfg.IntOpt(
        'elastic_shrink_delay',
        default=300,
        min=0,
        max=86400,
        help="""
Seconds for which an elastic instance has more memory than it needs before it
gives some back.

Possible values:

* An integer from 0 to 86400: seconds.

For example, with the default an instance that is idle for less than five
minutes between two jobs keeps its memory.

Related options:

* ``[numa_hugepages] elastic_shrink_percent``
""",
    ),
    cfg.IntOpt(
        'elastic_pause',
        default=30,
        min=0,
        max=3600,
        help="""
Seconds after a change in which the memory of an elastic instance stays as it
is.

An instance that swaps doesn't wait.

Possible values:

* An integer from 0 to 3600: seconds.

For example, with the default an instance shrinks by at most an eighth of its
memory each half minute.

Related options:

* ``[numa_hugepages] elastic_interval``
""",
    ),
    cfg.BoolOpt(
        'elastic_guest_agent',
        default=False,
        help="""
Ask the guest agents of elastic instances how their NUMA nodes are used.

Without it only the use of the whole instance is known, and all of its NUMA
nodes get and give memory evenly. With it, a node whose programs need more gets
more, whatever the others do. QEMU's guest agent reads
``/sys/devices/system/node/node*/meminfo`` in the instance for it; nothing is
run there.

Possible values:

* ``False``: agents are not asked.
* ``True``: the agents of instances with more than one elastic NUMA node are
  asked every ``elastic_interval`` seconds. One that takes more than two
  seconds, or doesn't answer, which may take ten seconds to find out, is asked
  again after five minutes. Meanwhile its instance is treated as without this
  option. Other elastic instances wait as long. libvirt notes such instances as
  tainted (``custom-ga-command``).

For example, an instance with two NUMA nodes whose database is bound to the
second one gets memory on that one.

Related options:

* The image property ``hw_qemu_guest_agent``, which gives instances the device
  that agents need
* ``[numa_hugepages] elastic_interval``
""",
    ),
    cfg.IntOpt(
        'elastic_return_limit',
        default=600,
        min=30,
        max=86400,
        help="""
Seconds in which an elastic instance has to take the memory that it was given.

When it is reset, all memory beyond its base is taken from it until its new
kernel asks for it. Its pages stay reserved meanwhile. An instance that doesn't
take them in this time, for example because its kernel has no driver for them,
is left with what it has, and is asked again after as long.

Possible values:

* An integer from 30 to 86400: seconds.

For example, the default is enough for an instance that takes nine minutes to
boot.

Related options:

* ``[numa_hugepages] start_time_limit``
""",
    ),
)
