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

"""Each alarm of the package, raised and over."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.monitor import alarms
from nova_numa_hugepages.monitor import insight
from nova_numa_hugepages.monitor.thresholds import DEFAULTS
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched
from tests.unit.monitor.watched import A
from tests.unit.monitor.watched import B

HERE, THERE = page_host.pool(0), page_host.pool(1)


class Watch:
    """A host, and all alarms."""

    def __init__(
        self,
        root: pathlib.Path,
        *nodes: fake_kernel.FakeNode,
        **policy: object,
    ) -> None:
        self.host = watched.Watched(root, *nodes, **policy)
        self.ticks = 0.0
        self.analyst = self.host.analyst()
        self.book = alarms.AlarmBook(
            alarms.load(dataclasses.replace(DEFAULTS, free_percent=20)),
            ticks=lambda: self.ticks,
        )

    def look(self, after_s: float = 400.0) -> set[str]:
        """Look twice; return which alarms are raised."""
        for _ in range(2):
            self.step(after_s)
        return {one.alarm.name for one in self.book.raised}

    def step(self, after_s: float) -> None:
        """Look once. What the guest reports is as new as before."""
        self.host.now += after_s
        self.ticks += after_s
        stats = self.host.libvirt.values.get(watched.NAME)
        if stats is not None:
            self.host.libvirt.values[watched.NAME] = {
                **stats,
                'balloon.last-update': str(int(self.host.now)),
            }
        sample = self.host.look()
        self.book.update(sample, self.analyst.look(sample))

    def text(self, name: str) -> str:
        """Return what an alarm says."""
        (one,) = [x for x in self.book.raised if x.alarm.name == name]
        return one.finding.text

    def report(self, **values: int) -> None:
        """Have the guest report its memory, in KiB."""
        self.host.libvirt.values[watched.NAME] = {
            **watched.STATS,
            **{
                f'balloon.{name}': str(value) for name, value in values.items()
            },
        }


@pytest.fixture
def watch(tmp_path: pathlib.Path) -> Watch:
    return Watch(tmp_path, page_host.grown(40), page_host.grown(40))


def test_all_is_well(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    watch.report()
    assert watch.look() == set()


def test_memory_misplaced(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10), elsewhere=[(0, 7), (1, 3)])
    assert watch.look(40.0) == {'memory_misplaced'}
    assert watch.text('memory_misplaced') == (
        'it has 3 pages of 2 MiB on NUMA node 1, and is missing 3 pages of '
        '2 MiB on NUMA node 0.'
    )
    watch.host.kernel.stop_guest(A)
    watch.host.rig.run(A)
    assert watch.look(0.0) == set()


def test_memory_beyond(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10), elsewhere=[(0, 10), (1, 3)])
    assert watch.look(40.0) == {'memory_beyond'}
    watch.host.kernel.discard(A, THERE, 3)
    assert watch.look(0.0) == set()


def test_memory_absent(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    watch.host.kernel.discard(A, HERE, 4)
    assert watch.look(800.0) == set()
    assert watch.look(100.0) == {'memory_absent'}
    watch.host.kernel.touch(A)
    assert watch.look(0.0) == set()


def test_a_guest_that_starts_slowly(watch: Watch) -> None:
    needs = page_host.needs((0, 10))
    watch.host.libvirt.domains[A] = watched.domain(*needs)
    watch.host.rig.pools.hold(A, needs)
    watch.host.kernel.start_guest(A, {HERE: 10}, touch=False)
    assert watch.look(2000.0) == set()


def test_what_was_promised_is_not_known(
    watch: Watch, tmp_path: pathlib.Path
) -> None:
    # Neither is there a ledger, nor has libvirt said anything yet.
    watch.host.spawn(A, (0, 10))
    watch.host.collector = watch.host.watch(tmp_path / 'none.sqlite')
    watch.host.libvirt.hang_after = 0
    assert watch.look(2000.0) == {'libvirt_silent', 'node_exhausted'}


def test_a_ledger_that_cannot_be_read_ends_nothing(
    watch: Watch, tmp_path: pathlib.Path
) -> None:
    watch.host.rig.pools.hold(A, page_host.needs((0, 35)))
    watch.host.kernel.take({HERE: 10})
    assert watch.look(40.0) == {'pages_taken'}
    damaged = tmp_path / 'damaged.sqlite'
    damaged.write_text('something else, and longer than a header' * 9)
    watch.host.collector = watch.host.watch(damaged)
    assert watch.look(40.0) == {'pages_taken'}


def test_memory_used(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    watch.report(available=1000, usable=100)
    assert watch.look() == {'memory_used'}
    assert watch.text('memory_used') == (
        'it uses 90 % of its memory (the threshold is 90 %).'
    )
    watch.report(available=1000, usable=140)
    assert watch.look() == {'memory_used'}
    watch.report(available=1000, usable=150)
    assert watch.look(0.0) == set()


def test_memory_that_a_flavor_sets_a_threshold_for(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    spec = (
        '<nova:extraSpecs><nova:extraSpec '
        f'name="{extra_specs.ALARM_USED_PERCENT}">'
        '{}</nova:extraSpec></nova:extraSpecs>'
    )
    xml = watch.host.libvirt.domains[A]
    flavor = '<nova:flavor name="db.large"/>'
    assert flavor in xml

    def write(value: str) -> None:
        watch.host.libvirt.domains[A] = xml.replace(
            flavor,
            f'<nova:flavor name="db.large">{spec.format(value)}</nova:flavor>',
        )
        watch.host.kernel.stop_guest(A)
        watch.host.rig.run(A)

    watch.report(available=1000, usable=400)
    write('60')
    assert watch.look() == {'memory_used'}
    for odd in ('0', '101', 'much'):
        write(odd)
        assert watch.look() == set()


def test_an_instance_that_swaps(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    for number in range(40):
        # It reports each 10 seconds, and is looked at each 5.
        watch.report(swap_in=number // 2 * 4096)
        watch.step(5.0)
    assert watch.book.raised == []
    for number in range(40, 80):
        watch.report(swap_in=number // 2 * 4096)
        watch.step(5.0)
    assert 'read 48 MiB back from its swap in 120 s' in (
        watch.text('memory_used')
    )
    for _ in range(30):
        watch.step(5.0)
    assert watch.book.raised == []


def test_an_instance_that_swaps_a_little(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    for number in range(100):
        watch.report(swap_in=number * 100, swap_out=number * 100000)
        watch.step(10.0)
    assert watch.book.raised == []


def test_what_a_guest_said_long_ago(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    watch.report(available=1000, usable=0)
    watch.step(0.0)
    for _ in range(10):
        watch.host.now += 400.0
        watch.ticks += 400.0
        watch.book.update(watch.host.look(), insight.Insight())
    assert watch.book.raised == []


def test_memory_unused(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    watch.report(available=1000, usable=800)
    assert watch.look(40_000.0) == set()
    assert watch.look(40_000.0) == {'memory_unused'}
    assert 'left 80 % of its memory unused' in watch.text('memory_unused')


def test_what_a_guest_uses_is_not_known_for_a_while(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    watch.report(available=1000, usable=0)
    assert watch.look() == {'memory_used'}
    watch.host.libvirt.values.clear()
    assert watch.look() == {'memory_used'}


def test_memory_wanted(tmp_path: pathlib.Path) -> None:
    watch = Watch(
        tmp_path,
        page_host.grown(40),
        page_host.NODE,
        dynamic=False,
        lend_ratio=2.0,
    )
    watch.host.spawn_elastic(A, 10, 10, 40)
    watch.report(available=1000, usable=40)
    assert 'memory_wanted' not in watch.look()
    watch.host.rig.pools.put_waits(A, {0: 20 * 2048})
    assert 'memory_wanted' in watch.look()
    assert watch.text('memory_wanted') == (
        'it needs 40 MiB more, and there are no pages for it on NUMA node 0.'
    )
    watch.host.rig.pools.put_waits(A, {})
    assert 'memory_wanted' not in watch.look(0.0)


def test_node_exhausted(watch: Watch) -> None:
    # Of 1 GiB there are 80 MiB in pages, and the rest can be allocated.
    assert watch.look() == set()
    used = watch.host.kernel.use_memory(1, 800 * 1024)
    assert watch.look() == {'node_exhausted'}
    assert '% of its memory (the threshold is 20 %)' in (
        watch.text('node_exhausted')
    )
    watch.host.kernel.free_memory(1, used)
    watch.host.kernel.write_compact(1)
    assert watch.look(0.0) == set()


def test_a_pool_that_is_exhausted_beside_another_one(
    tmp_path: pathlib.Path,
) -> None:
    node = dataclasses.replace(
        page_host.NODE, total=4096, pools={2048: 600, 1 << 20: 1}
    )
    watch = Watch(tmp_path, node, dynamic=False)
    assert watch.look() == set()
    gigantic = model.PageNeed(0, 0, 1 << 20, 1)
    watch.host.rig.pools.hold(A, [gigantic])

    assert watch.look() == {'node_exhausted'}
    assert watch.text('node_exhausted') == (
        'instances can have 0 more pages of 1 GiB on NUMA node 0, 0.0 % of '
        'its pool (the threshold is 20 %).'
    )
    watch.host.rig.pools.release(A)
    assert watch.look(0.0) == set()


def test_pages_taken(watch: Watch) -> None:
    watch.host.rig.pools.hold(A, page_host.needs((0, 35)))
    other = watch.host.kernel.take({HERE: 10})
    assert watch.look(40.0) == {'pages_taken'}
    assert watch.text('pages_taken') == (
        '5 pages of 2 MiB on NUMA node 0 that are promised to instances are '
        'missing; others have pages: /system.slice/ovs-vswitchd.service.'
    )
    watch.host.kernel.give(other)
    assert watch.look(0.0) == set()


def test_memory_leaked(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    watch.host.rig.reconcile([A])
    watch.host.kernel.stop_guest(A)
    # Somebody has kept the file of its memory.
    keeper = watch.host.kernel.take({HERE: 4})
    watch.host.rig.pools.release(A)
    assert watch.look() == {'memory_leaked'}
    watch.host.kernel.give(keeper)
    watch.host.rig.reconcile([])
    assert watch.look(0.0) == set()


def test_cpus_off_plan(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    watch.host.libvirt.domains[A] = watched.domain(
        *page_host.needs((0, 10)), pins='<vcpupin vcpu="0" cpuset="1"/>'
    )
    pid = watch.host.kernel.pid(A)
    task = watch.host.kernel.fs.proc / f'{pid}/task/{pid}'
    task.mkdir(parents=True)
    (task / 'comm').write_text('CPU 0/KVM\n')
    status = task / 'status'
    status.write_text('Cpus_allowed_list:\t0-7\n')
    assert watch.look(40.0) == {'cpus_off_plan'}
    assert 'such as 0.' in watch.text('cpus_off_plan')
    text = status.read_text()
    status.write_text('')
    assert watch.look(0.0) == {'cpus_off_plan'}
    status.write_text(text)
    status.write_text('Cpus_allowed_list:\t1\n')
    assert watch.look(0.0) == set()


def test_libvirt_silent(watch: Watch) -> None:
    watch.host.spawn(A, (0, 10))
    watch.look()
    watch.host.libvirt.hang_after = 0
    assert watch.look(40.0) == {'libvirt_silent'}
    watch.host.libvirt.hang_after = None
    assert watch.look(0.0) == set()


def test_ledger_apart(watch: Watch) -> None:
    watch.host.kernel.operator_writes(HERE, 30)
    assert watch.look(70.0) == set()
    assert watch.look(70.0) == {'ledger_apart'}
    # The service is at work again.
    watch.host.rig.reconcile([])
    assert watch.look(0.0) == set()


def test_one_alarm_for_each_instance(watch: Watch) -> None:
    for uuid in (A, B):
        watch.host.spawn(uuid, (0, 10), elsewhere=[(1, 10)])
    watch.look(40.0)
    assert {one.finding.subject.resource for one in watch.book.raised} == {
        A,
        B,
    }
