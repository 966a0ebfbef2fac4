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
    life.host.kernel.take({HERE: 10})
    found = life.look()
    assert sum(found.others[HERE].values()) == 10
    assert found.mapped_kib == 10 * 2048
    life.live(found, 1.1)
    assert life.kinds(found) == []
    # More are in use than processes have, in whatever control group.
    unknown = {HERE: {**found.others[HERE], cgroups.UNKNOWN: 7}}
    lost = dataclasses.replace(found, others=unknown)
    life.live(lost, 1.1)
    (leak,) = life.find(lost, room.Kind('a', (room.Cell(0, 2048, 2048),)))
    assert (leak.kind, leak.kib, leak.sure) == ('unowned', 7 * 2048, 'likely')
    assert leak.subject == Subject()
    # Of which size they are isn't known.
    assert leak.slots == {}


@pytest.mark.parametrize(
    'unread',
    [{'mapped_kib': None}, {'files': None}],
    ids=lambda one: next(iter(one)),
)
def test_nothing_is_concluded_from_what_cannot_be_read(
    life: Life, unread: dict[str, None]
) -> None:
    file = hugetlbfs.HugeFile('/a', 2048, 7)
    found = dataclasses.replace(
        life.look(), others={HERE: {cgroups.UNKNOWN: 7}}, files=[file]
    )
    life.live(dataclasses.replace(found, **unread), 1.1)
    found = dataclasses.replace(found, files=[])
    assert life.kinds(found) == []


def test_a_leak_stays_one_while_it_cannot_be_read_for_a_moment(
    life: Life,
) -> None:
    found = dataclasses.replace(
        life.look(), files=[hugetlbfs.HugeFile('/a', 2048, 6)]
    )
    life.live(found, 11 / 60)
    life.past.add(
        life.host.now,
        leaks.values(dataclasses.replace(found, files=None)),
    )
    assert life.kinds(found) == ['file']


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
    assert leak.subject == Subject(page_size='2MiB')


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
    # Unless they are kept on purpose.
    life.host.rig.ledger.set_ready({HERE: 10})
    kept = leaks.values(life.look())
    assert kept[history.Series(leaks.IDLE, '', '0', '2MiB')] == 0
    assert kept[history.Series(leaks.IDLE)] == 0


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
        pytest.param(
            lambda hour: GIB / 2 + (hour < 46) * hour * GIB / 80, id='falls'
        ),
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


class Churn:
    """Guests that come and go, and programs; nothing is lost.

    :param base: what the host is like
    """

    def __init__(self, base: sample.HostSample, seed: int) -> None:
        self._base = base
        self._source = random.Random(seed)
        self._count = 0
        self._guests = {f'{self._new()}': self._guest() for _ in range(60)}
        # Until when there is one of each, in seconds.
        self._until = dict.fromkeys(('file', 'hold', 'pages'), 0.0)

    def look(self, now: float) -> sample.HostSample:
        """Return what it is like some time later."""
        source = self._source
        if source.random() < 0.05:
            # One is replaced; its uuid is never used again.
            del self._guests[source.choice([*self._guests])]
            self._guests[f'{self._new()}'] = self._guest()
        for name, longest in (
            ('file', 8 * 60),
            ('hold', 50 * 60),
            ('pages', 22 * HOUR_S),
        ):
            # Some time goes by between one and the next.
            if now > self._until[name] + 120 and source.random() < 0.1:
                self._until[name] = now + source.uniform(60, longest)
        pool = self._base.snapshot.pools[HERE]
        on = {name: now < until for name, until in self._until.items()}
        usage = dataclasses.replace(
            pool.usage,
            awaited=5 * on['pages'],
            pool=pool.usage.pool._replace(surplus=3 * on['pages']),
        )
        hold = model.Hold('gone', model.Purpose.GUEST, 0, 0, 2048, 4)
        snapshot = dataclasses.replace(
            self._base.snapshot,
            pools={
                HERE: dataclasses.replace(
                    pool, usage=usage, holds=(hold,) if on['hold'] else ()
                )
            },
        )
        file = hugetlbfs.HugeFile('/a', 2048, 9)
        return dataclasses.replace(
            self._base,
            time=now,
            snapshot=snapshot,
            instances={
                uuid: self._used(guest, now)
                for uuid, guest in self._guests.items()
            },
            files=[file] if on['file'] else [],
            defined=frozenset(),
        )

    def _new(self) -> int:
        self._count += 1
        return self._count

    def _guest(self) -> list[float]:
        """Make a guest: its size, its time of day, and how it wanders."""
        return [self._source.uniform(0.5, 3), self._source.uniform(0, 24), 0.0]

    def _used(self, guest: list[float], now: float) -> sample.InstanceSample:
        size, phase, walk = guest
        step = self._source.gauss(0, 0.01)
        guest[2] = walk = max(-0.4, min(0.9, walk + step))
        day = 0.2 * math.sin((now / HOUR_S + phase) / 24 * 2 * math.pi)
        return dataclasses.replace(
            self._base.instances[A],
            inside=inside(max(0.1, size + day + walk) * GIB),
            small=sample.SmallMemory({0: int((1 + walk / 4) * GIB / 2)}, 0.0),
        )


def churn(life: Life, seed: int) -> list[leaks.Leak]:
    """Let a week go by; return the leaks that were found."""
    life.host.spawn(A, (0, 10))
    host = Churn(life.look(), seed)
    false: list[leaks.Leak] = []
    # The last hours minute by minute, as short leaks need it.
    for step_s, hours in ((900, 6.75 * 24), (60, 6)):
        for step in range(int(hours * HOUR_S / step_s)):
            now = host.look(life.host.now)
            life.past.add(life.host.now, leaks.values(now))
            life.host.now += step_s
            if step % 5 == 0:
                false += leaks.find(now, life.past)
    return false


def test_a_week_of_churn_has_no_leak(life: Life) -> None:
    assert churn(life, 1) == []
