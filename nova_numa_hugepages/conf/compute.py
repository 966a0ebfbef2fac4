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
                'Pages that lack are made when a guest starts, and given back '
                'when it is gone.',
            ),
            (
                'static',
                'Pools are left as the operator set them up. Pages are held '
                'for guests, and where they got them is checked.',
            ),
        ],
        help="""
Whether the pools of huge pages of this host may change their size.

Possible values:

* ``dynamic``: pages that lack are made on the right NUMA node when a guest
  starts, and given back when it is gone. Pages that were there before, because
  the kernel command line or the operator made them, are never taken away.
* ``static``: no page is made. A guest that finds too few pages is refused
  before it starts, with the numbers. Pages that were made while this option
  was ``dynamic`` are still given back when their guests are gone.

Pages of 1 GiB can hardly ever be made once a host has run for a while. In both
modes they are best set up on the kernel command line, or memory for them is
set aside there with ``hugetlb_cma``.

For example, a host that boots with ``hugepagesz=1G hugepages=64`` and has
``page_pools = dynamic`` keeps its 64 pages of 1 GiB for good, and makes pages
of 2 MiB out of the rest of its memory as guests ask for them.

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
Memory of each NUMA node in MiB that is left free when pages are made.

The kernel, the services of the host and QEMU itself need memory in small
pages. What is free below this value is never turned into huge pages.

Possible values:

* An integer from 0 to 16777216 (16 TiB): MiB on each node.

For example, with the default a node with 9 GiB of free memory gives at most 8
GiB of it to huge pages.

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
Share of each NUMA node's memory, in percent, up to which pools may be
enlarged.

All pools of a node count together. A pool that the operator made larger stays
as it is.

Possible values:

* An integer from 0 to 100: percent of all memory of the node.

For example, with the default the pools of a node of 256 GiB are never enlarged
to more than 230 GiB.

Related options:

* ``[numa_hugepages] page_pools``
* ``[numa_hugepages] node_free_memory_mib``
""",
    ),
    cfg.IntOpt(
        'warm_margin_mib',
        default=0,
        min=0,
        max=16777216,
        help="""
Memory in idle huge pages, in MiB for each pool, that is not given back when
guests go.

Making pages takes time, and the longer a host runs the more of it. Where
guests come and go often, a margin of pages that are ready lets the next one
start without waiting.

Possible values:

* An integer from 0 to 16777216 (16 TiB): MiB for each page size on each node.
  Only pages that were made for guests are kept; the margin itself is never
  made ahead.

For example, with ``warm_margin_mib = 4096`` a node on which a guest of 16 GiB
is deleted keeps 2048 pages of 2 MiB and gives 6144 back.

Related options:

* ``[numa_hugepages] page_pools``
""",
    ),
    cfg.BoolOpt(
        'compact_memory',
        default=True,
        help="""
Whether a NUMA node's memory is compacted when pages can't be made.

Free memory that is in small pieces can't become huge pages. The kernel moves
what is in use together if it is told to, which costs CPU time of one core.

Possible values:

* ``True``: the node is compacted when pages fall short, and then it is tried
  again.
* ``False``: it is not, and hosts that have run long refuse guests earlier.

For example, set it to ``False`` on hosts with latency-sensitive guests whose
pools are large enough from the start.

Related options:

* ``[numa_hugepages] grow_time_limit``
""",
    ),
    cfg.BoolOpt(
        'demote_pages',
        default=False,
        help="""
Whether idle larger pages may be split when pages of 2 MiB can't be made.

There is no way back for pages that were made when the host booted: the kernel
joins no pages, so pages of 1 GiB that were split are lost until it boots anew.

Possible values:

* ``True``: idle pages of 1 GiB are split if that is enough for the guest.
* ``False``: pages stay what they are.

For example, set it to ``True`` on hosts whose pages of 1 GiB are a reserve for
whatever size is asked for.

Related options:

* ``[numa_hugepages] page_pools``
* ``[numa_hugepages] hand_over_pages``
""",
    ),
    cfg.BoolOpt(
        'hand_over_pages',
        default=True,
        help="""
Whether idle pages that were made for guests may be given back to make pages of
another size.

Possible values:

* ``True``: pages of the margin that ``warm_margin_mib`` keeps, and such that
  could not be given back before, make room for pages of another size.
* ``False``: they stay.

For example, with a margin of 2 MiB pages a guest on 1 GiB pages can still use
the memory that the margin takes.

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
Seconds after which making pages for a guest is given up.

Pages that were made until then are given back, and Nova tries the next host.

Possible values:

* An integer from 1 to 600: seconds. A write to a pool that is under way is
  not cut off, so it may take longer.

For example, with the default a guest on a node whose memory is in small pieces
is refused after half a minute of compaction.

Related options:

* ``[numa_hugepages] compact_memory``
""",
    ),
]

guest_opts = [
    cfg.IntOpt(
        'start_time_limit',
        default=600,
        min=60,
        max=86400,
        help="""
Seconds that a guest may take to start after its pages were held.

Pages that are held for a guest that is neither running nor defined in libvirt
after that time are given back.

Possible values:

* An integer from 60 to 86400: seconds. Longer than the longest start of a
  guest, of which the kernel's clearing of its memory is the largest part.

For example, the default is enough for a guest of 1 TiB whose memory is
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
                'A guest that is powered off keeps its pages, as Nova '
                'accounts them.',
            ),
            (
                'release',
                'Its pages are given back, and held again at power on.',
            ),
        ],
        help="""
What becomes of the pages of a guest that is powered off or suspended.

Possible values:

* ``keep``: they stay promised to it, so that it can be powered on. Nova, too,
  goes on accounting them.
* ``release``: they are given back, and other uses of the host's memory have
  them. Powering on fails if they can't be had again. The scheduler sends no
  more guests than with ``keep``, as Nova accounts guests that are off.

For example, ``release`` suits a host that runs containers beside guests.

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
Threads with which QEMU takes the huge pages of a guest's cell when it starts.

Possible values:

* An integer from 1 to 64: so many threads. It takes libvirt 8.2; with an older
  one the option has no effect. QEMU uses 16 threads at most, and no more than
  the host has CPUs.
* ``0``: it is left to libvirt and QEMU, which take one thread.

For example, 256 GiB of 2 MiB pages took two minutes with one thread, and 19
seconds with eight.

Related options:

* ``[numa_hugepages] start_time_limit``
""",
    ),
]

ALL = (*pool_opts, *guest_opts)
