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

"""What is a leak, and what is none."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import random

import pytest

from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages.kernel import cgroups
from nova_numa_hugepages.hugepages.kernel import hugetlbfs
from nova_numa_hugepages.monitor import history
from nova_numa_hugepages.monitor import leaks
from nova_numa_hugepages.monitor import room
from nova_numa_hugepages.monitor.labels import Subject
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched
from tests.unit.monitor.watched import A
from tests.unit.monitor.watched import B
from tests.unit.monitor.watched import C

HERE = page_host.pool(0)
GIB = 1024 * 1024
HOUR_S = 3600.0


class Life:
    """A host that lives on, and what is kept of it."""

    def __init__(
        self,
        root: pathlib.Path,
        node: fake_kernel.FakeNode | None = None,
    ) -> None:
        self.host = watched.Watched(root, node or page_host.grown(40))
        self.host.now = 1_000_000 * HOUR_S
        self.past = history.History(None, clock=lambda: self.host.now)

    def look(self) -> sample.HostSample:
        """Take a sample."""
        return self.host.look()

    def live(
        self, found: sample.HostSample, hours: float, step_s: float = 60.0
    ) -> None:
        """Let time go by, in which a host stays as it is."""
        for _ in range(int(hours * HOUR_S / step_s)):
            self.past.add(self.host.now, leaks.values(found))
            self.host.now += step_s
        # The last minute is written when the next one begins.
        self.past.add(self.host.now, leaks.values(found))

    def find(
        self, found: sample.HostSample, *kinds: room.Kind
    ) -> list[leaks.Leak]:
        """Find leaks."""
        now = dataclasses.replace(found, time=self.host.now)
        return [*leaks.left(now, kinds), *leaks.find(now, self.past, kinds)]

    def kinds(self, found: sample.HostSample) -> list[str]:
        """Find the kinds of leaks."""
        return [leak.kind for leak in self.find(found)]


@pytest.fixture
def life(tmp_path: pathlib.Path) -> Life:
    return Life(tmp_path)


def inside(used_kib: float) -> sample.MemoryInside:
    """Say what a guest with 4 GiB uses."""
    total = 4 * GIB
    usable = total - int(used_kib)
    return sample.MemoryInside(total, usable, 0, 0, 0, 0, 0, 1, 0.0)


def test_a_host_that_is_all_right(life: Life) -> None:
    life.host.spawn(A, (0, 10))
    found = life.look()
    life.live(found, 4)
    assert life.find(found) == []


def test_files_that_were_left(life: Life) -> None:
    found = dataclasses.replace(
        life.look(),
        files=[
            hugetlbfs.HugeFile('/dev/hugepages/rtemap_0', 2048, 6),
            hugetlbfs.HugeFile('/dev/hugepages/rtemap_1', 2048, 4),
        ],
    )
    life.live(found, 8 / 60)
    assert life.kinds(found) == []
    since = life.host.now - 8 * 60
    life.live(found, 3 / 60)
    (leak,) = life.find(
        found, room.Kind('small', (room.Cell(0, 5 * 2048, 2048),))
    )
    assert leak.kind == 'file'
    assert leak.sure == 'certain'
    assert leak.kib == 20 * 1024
    assert leak.subject == Subject(page_size='2MiB')
    assert since - 60 <= leak.since <= since + 120
    assert leak.slots == {'small': 2.0}
    assert leak.text == (
        'files that no process has hold 20 MiB of huge pages: '
        '/dev/hugepages/rtemap_0, /dev/hugepages/rtemap_1.'
    )


def test_it_is_none_if_it_went_away_meanwhile(life: Life) -> None:
    found = dataclasses.replace(
        life.look(), files=[hugetlbfs.HugeFile('/a', 2048, 6)]
    )
    life.live(found, 8 / 60)
    life.live(dataclasses.replace(found, files=[]), 1 / 60)
    life.live(found, 8 / 60)
    assert life.kinds(found) == []
    # Nor if it is gone now.
    life.live(found, 8 / 60)
    assert life.kinds(found) == ['file']
    assert life.kinds(dataclasses.replace(found, files=[])) == []


def test_it_is_none_if_too_little_is_known(life: Life) -> None:
    found = dataclasses.replace(
        life.look(), files=[hugetlbfs.HugeFile('/a', 2048, 6)]
    )
    life.live(found, 3 / 60)
    life.host.now += 300
    life.live(found, 3 / 60)
    assert life.kinds(found) == []


def test_pages_that_nobody_has(life: Life) -> None:
    life.host.kernel.take({HERE: 10}, cgroup='/')
    found = life.look()
    assert found.others[HERE] == {'/': 10}
    unknown = {HERE: {cgroups.UNKNOWN: 10}}
    had = dataclasses.replace(found, others=unknown)
    life.live(had, 1.1)
    assert life.kinds(had) == []
    lost = dataclasses.replace(found, others=unknown, mapped_kib=3 * 2048)
    life.live(lost, 1.1)
    (leak,) = life.find(lost)
    assert (leak.kind, leak.kib, leak.sure) == ('unowned', 7 * 2048, 'likely')
    assert leak.subject == Subject()


def test_pages_of_a_guest_that_cannot_be_read_have_an_owner(
    life: Life,
) -> None:
    life.host.spawn(A, (0, 10))
    found = life.look()
    instance = dataclasses.replace(found.instances[A], in_place=None)
    found = dataclasses.replace(
        found,
        instances={A: instance},
        others={HERE: {cgroups.UNKNOWN: 10}},
        mapped_kib=0,
    )
    life.live(found, 1.1)
    assert life.kinds(found) == []


def test_pages_that_are_reserved_and_never_touched(life: Life) -> None:
    life.host.kernel.take({HERE: 10}, touch=False)
    found = life.look()
    assert found.reserved[2048] == 10
    life.live(found, 20, 600)
    assert life.kinds(found) == []
    life.live(found, 6, 600)
    (leak,) = life.find(found)
    assert (leak.kind, leak.kib) == ('reserved', 10 * 2048)
    assert leak.since == 1_000_000 * HOUR_S


def test_surplus_that_stays(life: Life) -> None:
    found = life.look()
    pool = found.snapshot.pools[HERE]
    used = dataclasses.replace(
        pool.usage, pool=pool.usage.pool._replace(surplus=5)
    )
    snapshot = dataclasses.replace(
        found.snapshot,
        pools={HERE: dataclasses.replace(pool, usage=used)},
    )
    found = dataclasses.replace(found, snapshot=snapshot)
    life.live(found, 26, 600)
    assert life.kinds(found) == ['surplus']


def test_a_hold_without_a_domain(life: Life) -> None:
    life.host.spawn(A, (0, 10))
    life.host.spawn(B, (0, 5))
    life.host.kernel.stop_guest(A)
    # It is off.
    found = life.look()
    assert found.defined == {A, B}
    life.live(found, 1.1)
    assert life.kinds(found) == []
    del life.host.libvirt.domains[A]
    found = life.look()
    life.live(found, 1.1)
    (leak,) = life.find(found)
    assert leak.kind == 'no_domain'
    assert leak.subject == Subject(A, '0', '2MiB')
    assert '20 MiB of 2MiB pages on NUMA node 0' in leak.text


def test_pages_of_a_resize_wait_for_its_confirmation(life: Life) -> None:
    life.host.rig.pools.hold(
        A, page_host.needs((0, 5)), purpose=model.Purpose.RESIZE
    )
    found = life.look()
    assert found.defined == frozenset()
    life.live(found, 1.1)
    assert life.kinds(found) == []


def test_no_hold_is_without_a_domain_while_libvirt_is_down(
    life: Life,
) -> None:
    life.host.spawn(A, (0, 10))
    life.host.kernel.stop_guest(A)
    life.host.libvirt.hang_after = 0
    found = life.look()
    life.live(found, 1.1)
    assert life.kinds(found) == []


def test_pages_that_were_allocated_and_stay_idle(
    tmp_path: pathlib.Path,
) -> None:
    life = Life(tmp_path, page_host.NODE)
    life.host.rig.pools.hold(A, page_host.needs((0, 10)))
    life.host.kernel.refuse_shrink(HERE)
    life.host.rig.pools.release(A)
    found = life.look()
    assert found.snapshot.pools[HERE].account.grown == 10
    life.live(found, 26, 600)
    assert life.kinds(found) == ['idle']
    kept = leaks.values(found, warm_kib=10 * 2048)
    assert kept[history.Series(leaks.IDLE, '', '0', '2MiB')] == 0


def test_pages_that_instances_left(life: Life) -> None:
    found = life.look()
    pool = found.snapshot.pools[HERE]
    snapshot = dataclasses.replace(
        found.snapshot,
        pools={
            HERE: dataclasses.replace(
                pool, usage=dataclasses.replace(pool.usage, leaked=4)
            )
        },
    )
    (leak,) = life.find(dataclasses.replace(found, snapshot=snapshot))
    assert (leak.kind, leak.sure, leak.kib) == ('left', 'certain', 4 * 2048)


def grow(life: Life, hours: int, **used: object) -> sample.HostSample:
    """Let guests run that use memory as functions of the hour say."""
    found = life.look()
    for hour in range(hours):
        instances = dict(found.instances)
        for uuid, (what, value) in used.items():
            amount = value(hour)  # type: ignore[operator]
            part = (
                {'inside': inside(amount)}
                if what == 'used'
                else {'small': sample.SmallMemory({0: int(amount)}, 0.0)}
            )
            key = {'a': A, 'b': B, 'c': C}[uuid]
            instances[key] = dataclasses.replace(instances[key], **part)
        found = dataclasses.replace(found, instances=instances)
        life.live(found, 1, 900)
    return found


def test_the_own_memory_of_qemu_that_only_grows(life: Life) -> None:
    life.host.spawn(A, (0, 10))
    found = grow(life, 47, a=('small', lambda hour: GIB / 2 + hour * GIB / 80))
    (leak,) = life.find(found)
    assert leak.kind == 'own_memory'
    assert leak.subject == Subject(A)
    assert leak.slots == {}


@pytest.mark.parametrize(
    'course',
    [
        pytest.param(lambda hour: GIB, id='stays'),
        pytest.param(lambda hour: GIB / 2 + hour * 1024, id='little'),
        pytest.param(
            lambda hour: GIB * (2 - math.exp(-hour / 5)), id='settles'
        ),
        pytest.param(lambda hour: GIB * (1 + hour % 24), id='each day'),
        pytest.param(lambda hour: GIB * (1 + (hour > 20)), id='a step'),
    ],
)
def test_memory_of_qemu_that_does_something_else(
    life: Life, course: object
) -> None:
    life.host.spawn(A, (0, 10))
    assert life.kinds(grow(life, 47, a=('small', course))) == []


def test_a_guest_whose_use_only_rises(life: Life) -> None:
    for uuid in (A, B, C):
        life.host.spawn(uuid, (0, 10))
    rises = 'used', lambda hour: GIB + hour * GIB / 40
    stays = 'used', lambda hour: GIB + hour % 3
    found = grow(life, 47, a=rises, b=stays, c=stays)
    (leak,) = life.find(found)
    assert (leak.kind, leak.sure) == ('guest_use', 'possible')
    assert leak.subject == Subject(A)


def test_guests_that_all_rise_have_more_to_do(life: Life) -> None:
    for uuid in (A, B, C):
        life.host.spawn(uuid, (0, 10))
    rises = 'used', lambda hour: GIB + hour * GIB / 40
    assert life.kinds(grow(life, 47, a=rises, b=rises, c=rises)) == []


def test_a_guest_without_peers_is_not_judged(life: Life) -> None:
    for uuid in (A, B):
        life.host.spawn(uuid, (0, 10))
    rises = 'used', lambda hour: GIB + hour * GIB / 40
    stays = 'used', lambda hour: GIB
    assert life.kinds(grow(life, 47, a=rises, b=stays)) == []


@pytest.mark.parametrize('seed', range(3))
def test_a_week_of_churn_has_no_leak(life: Life, seed: int) -> None:
    """Guests come and go, and use memory as guests do; nothing is lost."""
    source = random.Random(seed)
    for uuid in (A, B, C):
        life.host.spawn(uuid, (0, 10))
    base = life.look()
    false: list[leaks.Leak] = []
    guests = {
        f'{number}': [source.uniform(0.5, 3), source.uniform(0, 24), 0.0]
        for number in range(60)
    }
    for quarter in range(7 * 24 * 4):
        if source.random() < 0.2:
            # One is replaced; its uuid is never used again.
            del guests[source.choice([*guests])]
            guests[f'new {quarter}'] = [
                source.uniform(0.5, 3),
                source.uniform(0, 24),
                0.0,
            ]
        instances = {}
        for uuid, guest in guests.items():
            size, phase, walk = guest
            guest[2] = walk = max(-0.4, min(0.9, walk + source.gauss(0, 0.02)))
            day = 0.2 * math.sin((quarter / 4 + phase) / 24 * 2 * math.pi)
            instances[uuid] = dataclasses.replace(
                base.instances[A],
                inside=inside(max(0.1, size + day + walk) * GIB),
                small=sample.SmallMemory(
                    {0: int((1 + walk / 4) * GIB / 2)}, 0.0
                ),
            )
        now = dataclasses.replace(
            base,
            time=life.host.now,
            instances=instances,
            # A build that leaves a file for a few minutes.
            files=[hugetlbfs.HugeFile('/a', 2048, 9)]
            if source.random() < 0.3
            else [],
        )
        life.past.add(life.host.now, leaks.values(now))
        life.host.now += 900
        if quarter % 4 == 3:
            false += leaks.find(now, life.past)
    assert false == []
