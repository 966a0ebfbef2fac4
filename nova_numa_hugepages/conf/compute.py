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

"""Options of the compute driver."""

from oslo_config import cfg

pool_opts = [
    cfg.StrOpt(
        'page_pools',
        default='dynamic',
        choices=[
            (
                'dynamic',
                'Missing pages are allocated when an instance starts and '
                'freed when it is deleted.',
            ),
            (
                'static',
                'Pools keep the size that the operator gave them. Pages are '
                'reserved for instances, and their placement is checked.',
            ),
        ],
        help="""
How huge page pools are managed on this host.

Possible values:

* ``dynamic``: missing pages are allocated on the right NUMA node when an
  instance starts, and freed when it is deleted. Pages that existed before,
  from the kernel command line or the operator, are never freed.
* ``static``: no page is allocated. An instance for which there are too few
  pages is refused before it starts, with the numbers. Pages that were
  allocated while this option was ``dynamic`` are still freed when their
  instances are deleted.

Once a host has run for a while, pages of 1 GiB can rarely be allocated. In
both modes they are best set up on the kernel command line, or memory for them
is set aside there with ``hugetlb_cma``.

For example, a host that boots with ``hugepagesz=1G hugepages=64`` and has
``page_pools = dynamic`` keeps its 64 pages of 1 GiB, and allocates pages of
2 MiB from the rest of its memory as instances need them.

Related options:

* ``[numa_hugepages] node_free_memory_mib``
* ``[numa_hugepages] node_ceiling_percent``
* ``[DEFAULT] reserved_huge_pages``
""",
    ),
    cfg.IntOpt(
        'node_free_memory_mib',
        default=1024,
        min=0,
        max=16777216,
        help="""
Free memory, in MiB per NUMA node, to preserve when huge pages are allocated.

The kernel, the services of the host and QEMU itself need memory in small
pages. Huge pages are only allocated from free memory above this value.

Possible values:

* An integer from 0 to 16777216 (16 TiB): MiB on each NUMA node.

For example, with the default at most 8 GiB of huge pages are allocated on a
NUMA node with 9 GiB of free memory.

Related options:

* ``[numa_hugepages] page_pools``
* ``[numa_hugepages] node_ceiling_percent``
* ``[DEFAULT] reserved_host_memory_mb``
""",
    ),
    cfg.IntOpt(
        'node_ceiling_percent',
        default=90,
        min=0,
        max=100,
        help="""
Maximum share of a NUMA node's memory, in percent, to use for huge pages.

All pools of the NUMA node count together. A pool that the operator made larger
is left as it is.

Possible values:

* An integer from 0 to 100: percent of all memory of the NUMA node.

For example, with the default the pools of a NUMA node of 256 GiB are never
enlarged to more than 230 GiB.

Related options:

* ``[numa_hugepages] page_pools``
* ``[numa_hugepages] node_free_memory_mib``
""",
    ),
    cfg.IntOpt(
        'page_cache_percent',
        default=50,
        min=0,
        max=100,
        help="""
Share of a NUMA node's page cache, in percent, that counts as free memory.

The kernel keeps files that were read in free memory, and takes that memory
back when huge pages are allocated. What counts is offered to the scheduler,
and may be taken for an instance. Not all of it comes back in blocks that are
large enough, and files that are in use are read again.

Possible values:

* An integer from 0 to 100: percent of the page cache of a NUMA node, without
  what has to be written to disk first. With ``compact_memory = False`` nothing
  of it counts.

For example, a NUMA node of 256 GiB with 4 GiB free and 200 GiB of page cache
offers 3 GiB of huge pages with 0, and 103 GiB with the default.

Related options:

* ``[numa_hugepages] node_free_memory_mib``
* ``[numa_hugepages] compact_memory``
""",
    ),
    cfg.IntOpt(
        'warm_margin_mib',
        default=0,
        min=0,
        max=16777216,
        help="""
Idle huge page memory, in MiB per pool, to keep allocated when instances are
deleted.

Allocating pages takes time, and takes longer the longer a host has run. Where
instances are created and deleted often, a margin of idle pages lets the next
one start without delay.

Possible values:

* An integer from 0 to 16777216 (16 TiB): MiB for each page size on each NUMA
  node. Only pages that were allocated for instances are kept; the margin is
  never allocated in advance.

For example, with ``warm_margin_mib = 4096`` a NUMA node on which an instance
of 16 GiB is deleted keeps 2048 pages of 2 MiB and frees 6144.

Related options:

* ``[numa_hugepages] page_pools``
""",
    ),
    cfg.FloatOpt(
        'ready_risk_percent',
        default=1.0,
        min=0.0,
        max=50.0,
        help="""
Share of the starts of instances, in percent, that may find that their huge
pages have to be allocated first.

For the others idle pages are kept ready, by what starts have needed in the
same hour of the last weeks: many when many instances start, few at night. They
are allocated in advance, once a minute, and count as free for the scheduler. A
host keeps none ready before it has counted for a day.

Possible values:

* A number above 0, up to 50: percent.
* ``0``: nothing is allocated in advance, and only ``warm_margin_mib`` is kept.

For example, with the default a host on which a batch of instances starts each
night at two has the pages for it at two, and frees them at three.

Related options:

* ``[numa_hugepages] ready_limit_percent``
* ``[numa_hugepages] warm_margin_mib``
* ``[numa_hugepages] page_pools``
""",
    ),
    cfg.IntOpt(
        'ready_limit_percent',
        default=10,
        min=0,
        max=90,
        help="""
How much of the memory of a NUMA node may be idle pages that are kept ready for
starts, for each page size.

Where others need the memory, so that less than ``node_free_memory_mib`` is
free, less is kept.

Possible values:

* An integer from 0 to 90: percent.

For example, with the default a NUMA node of 256 GiB keeps at most 25 GiB of
2 MiB pages ready.

Related options:

* ``[numa_hugepages] ready_risk_percent``
* ``[numa_hugepages] node_free_memory_mib``
""",
    ),
    cfg.BoolOpt(
        'compact_memory',
        default=True,
        help="""
Compact the memory of a NUMA node when huge pages cannot be allocated.

Free memory in small blocks cannot become huge pages. Compaction makes the
kernel move used memory together, which costs CPU time of one core.

Possible values:

* ``True``: if an allocation falls short, the memory of the NUMA node is
  compacted and the allocation repeated.
* ``False``: memory is not compacted. Hosts that have run for long refuse
  instances earlier.

For example, set it to ``False`` on hosts with latency-sensitive instances
whose pools are large enough from the start.

Related options:

* ``[numa_hugepages] grow_time_limit``
""",
    ),
    cfg.BoolOpt(
        'demote_pages',
        default=False,
        help="""
Allow splitting idle larger pages when pages of 2 MiB cannot be allocated.

This is irreversible for pages allocated at boot: the kernel does not join
pages, so pages of 1 GiB that were split are lost until the host is rebooted.

Possible values:

* ``True``: idle pages of 1 GiB are split if that is enough for the instance.
* ``False``: pages are never split.

For example, set it to ``True`` on hosts whose pages of 1 GiB are a reserve for
any page size.

Related options:

* ``[numa_hugepages] page_pools``
* ``[numa_hugepages] hand_over_pages``
""",
    ),
    cfg.BoolOpt(
        'hand_over_pages',
        default=True,
        help="""
Allow freeing idle pages that were allocated for instances, to allocate pages
of another size.

Possible values:

* ``True``: pages of the margin that ``warm_margin_mib`` keeps, and pages that
  could not be freed before, are freed for pages of another size.
* ``False``: they are kept.

For example, with a margin of 2 MiB pages an instance on 1 GiB pages can still
use the memory of the margin.

Related options:

* ``[numa_hugepages] warm_margin_mib``
* ``[numa_hugepages] demote_pages``
""",
    ),
    cfg.IntOpt(
        'grow_time_limit',
        default=30,
        min=1,
        max=600,
        help="""
Seconds to spend on allocating huge pages for an instance.

When the time is over, pages allocated so far are freed, and Nova tries the
next host. It is also the longest time to wait until another instance that is
starting has its pages, where it cannot be told before whether there are
enough.

Possible values:

* An integer from 1 to 600: seconds. A write to a pool that has begun is not
  interrupted, so it may take longer.

For example, with the default an instance is refused after half a minute of
compaction on a NUMA node whose free memory is in small blocks.

Related options:

* ``[numa_hugepages] compact_memory``
""",
    ),
]

instance_opts = [
    cfg.IntOpt(
        'start_time_limit',
        default=600,
        min=60,
        max=86400,
        help="""
Seconds to keep pages reserved for an instance that has not started yet.

Pages that are reserved for an instance that is neither running nor defined in
libvirt after that time are released.

Possible values:

* An integer from 60 to 86400: seconds. It has to be longer than the longest
  start of an instance, most of which the kernel spends on clearing memory.

For example, the default is enough for an instance of 1 TiB whose memory is
cleared at 2 GiB/s.

Related options:

* ``[numa_hugepages] prealloc_threads``
""",
    ),
    cfg.StrOpt(
        'powered_off_pages',
        default='keep',
        choices=[
            (
                'keep',
                'A powered off instance keeps its pages, as Nova accounts '
                'for them.',
            ),
            (
                'release',
                'Its pages are released, and reserved again at power on.',
            ),
        ],
        help="""
Whether a powered off or suspended instance keeps its huge pages.

Possible values:

* ``keep``: its pages stay reserved, so that it can be powered on. Nova also
  continues to account for them.
* ``release``: its pages are released, for other uses of the host's memory.
  Powering on fails if they cannot be reserved again. The scheduler sends no
  more instances than with ``keep``, as Nova accounts for instances that are
  powered off.

For example, ``release`` suits a host that runs containers beside instances.

Related options:

* ``[numa_hugepages] page_pools``
""",
    ),
    cfg.IntOpt(
        'prealloc_threads',
        default=8,
        min=0,
        max=64,
        help="""
Threads with which QEMU allocates the huge pages of each NUMA node of an
instance at its start.

Possible values:

* An integer from 1 to 64: the number of threads. It requires libvirt 8.2 and
  has no effect with an older one. QEMU uses 16 threads at most, and no more
  than the host has CPUs.
* ``0``: the default of libvirt and QEMU, which is one thread.

For example, 256 GiB of 2 MiB pages took two minutes with one thread, and 19
seconds with eight.

Related options:

* ``[numa_hugepages] start_time_limit``
""",
    ),
]

ALL = (*pool_opts, *instance_opts)
