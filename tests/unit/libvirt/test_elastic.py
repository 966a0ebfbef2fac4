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

"""Tests of the loop that gives elastic guests memory and takes it back."""

import contextlib
import itertools
import random
import threading
import time

from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import host as libvirt_host
import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import elastic as policy
from nova_numa_hugepages.hugepages import manager
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.libvirt import elastic
from nova_numa_hugepages.libvirt import resources
from tests.fixtures import elastic_guest
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host
from tests.unit.libvirt import fake_agent
from tests.unit.libvirt import fake_nova

A, B, C = map(page_host.guest, (1, 2, 3))
KEY = page_host.pool(0)
MARKS = policy.Marks(shrink_delay_s=60.0, pause_s=10.0)
# 128 MiB.
BLOCK = 64


@pytest.fixture(autouse=True)
def _libvirt(monkeypatch):
    monkeypatch.setattr(libvirt_host, 'libvirt', fakelibvirt)


def cell(base=8 * BLOCK, ceiling=16 * BLOCK, *, number=0, node=0):
    """An elastic cell; of 1 to 2 GiB."""
    return model.PageNeed(number, node, 2048, base, base, ceiling)


def size(pages):
    """A size that an operator has set."""
    return model.Size(pages * 2048, 1.0, 'an operator set it')


class Scene:
    """A host with elastic guests, and the loop.

    :ivar now: in seconds since the epoch
    """

    def __init__(self, path, pages=40 * BLOCK, **policy_options):
        self.rig = page_host.make(
            path,
            *(
                fake_kernel.FakeNode(total=16384, used=64, pools={2048: pages})
                for _ in (0, 1)
            ),
            **{'dynamic': False, **policy_options},
        )
        self.now = 5000.0
        self.manager = self.make_manager()
        self.libvirt = elastic_guest.Libvirt()
        self.moving = frozenset()
        self.guests = self.loop()

    def make_manager(self):
        """Make the manager of a service that starts."""
        return manager.HugePageManager(self.rig.pools, ticks=lambda: self.now)

    def loop(self, **options):
        """Start the service's loop."""
        return elastic.ElasticGuests(
            self.libvirt,
            self.manager,
            MARKS,
            migrating=lambda: self.moving,
            return_limit_s=100.0,
            clock=lambda: self.now,
            ticks=lambda: self.now,
            **options,
        )

    def boot(self, uuid, *cells):
        """Start a guest as the driver does."""
        guest = elastic_guest.ElasticGuest(
            self.rig.kernel, uuid, cells or (cell(),)
        )
        with self.manager.starting(
            uuid, guest.needs, is_defined=lambda: False
        ):
            guest.start()
            self.manager.started(uuid)
        self.libvirt.guests.append(guest)
        return guest

    def look(self, seconds=15.0):
        """Have the loop look, some time later."""
        self.now += seconds
        for guest in self.libvirt.guests:
            if guest.stats:
                guest.stats['last_update'] = int(self.now)
        self.guests.look()

    def held(self, uuid):
        """Return what a guest holds, in pages by cell."""
        return {hold.cell: hold.pages for hold in self.manager.held(uuid)}

    def check(self):
        """Check that each guest has no more than is held for it."""
        for guest in self.libvirt.guests:
            held = model.by_pool(self.manager.held(guest.uuid))
            for key, count in guest.pages().items():
                assert count <= held[key], guest.uuid
        for pool in self.rig.pools.usage().values():
            assert pool.pool.free >= 0
            assert pool.overdue == 0


@pytest.fixture
def scene(tmp_path):
    """A host with two nodes of 5 GiB of pages."""
    return Scene(tmp_path)


def test_a_full_guest_grows_and_an_idle_one_shrinks(scene, caplog):
    caplog.set_level('INFO', elastic.__name__)
    guest = scene.boot(A)
    guest.says(1000, 20, scene.now)

    scene.look()

    # What it is asked to take is held by then.
    assert guest.requested == {0: 2 * BLOCK}
    assert scene.held(A) == {0: 10 * BLOCK}
    guest.follow()
    scene.check()
    size = scene.manager.sizes(A)[0]
    assert size == model.Size(None, scene.now, '2 % of its memory is usable')
    assert caplog.messages == [
        'Elastic memory of guest NUMA node 0: from 1024 to 1280 MiB, as 2 % '
        'of its memory is usable.'
    ]

    guest.says(1250, 1000, scene.now)
    scene.look()
    assert guest.requested == {0: 2 * BLOCK}
    scene.look(60)
    assert guest.requested == {0: BLOCK}
    # What it has is its own until it has given it back.
    assert scene.held(A) == {0: 10 * BLOCK}
    scene.look()
    assert scene.held(A) == {0: 10 * BLOCK}
    guest.follow()
    scene.look()
    assert scene.held(A) == {0: 9 * BLOCK}
    scene.check()


def test_cells_grow_on_their_nodes(scene):
    guest = scene.boot(A, cell(), cell(number=1, node=1))
    guest.says(2000, 0, scene.now)

    scene.look()
    guest.follow()

    assert scene.held(A) == {0: 10 * BLOCK, 1: 10 * BLOCK}
    assert guest.pages() == {
        page_host.pool(0): 10 * BLOCK,
        page_host.pool(1): 10 * BLOCK,
    }
    scene.check()


def test_a_reset_keeps_what_it_had(scene):
    guest = scene.boot(A)
    guest.says(1000, 20, scene.now)
    scene.look()
    guest.follow()
    guest.says(1250, 400, scene.now)
    scene.look()

    guest.reset()
    scene.look()

    assert scene.held(A) == {0: 10 * BLOCK}
    guest.follow()
    scene.look()
    assert scene.held(A) == {0: 10 * BLOCK}
    assert guest.pages() == {KEY: 10 * BLOCK}


def test_one_that_never_takes_it_is_told_once_and_left(scene, caplog):
    guest = scene.boot(A)
    guest.says(1000, 20, scene.now)
    scene.look()
    assert guest.requested == {0: 2 * BLOCK}

    for _ in range(7):
        scene.look()

    assert guest.requested == {0: 2 * BLOCK}
    scene.look()
    assert guest.requested == {0: 0}
    scene.look()
    assert scene.held(A) == {0: 8 * BLOCK}
    told = fake_nova.warnings(caplog)
    assert len(told) == 1
    assert 'has not taken the memory that it was given for 105 s' in told[0]
    assert 'virtio_mem' in told[0]
    # It is asked again later, but not told again.
    for _ in range(8):
        scene.look()
    assert guest.requested == {0: 2 * BLOCK}


def test_it_waits_where_others_have_its_pages(tmp_path, caplog):
    scene = Scene(tmp_path, pages=20 * BLOCK, lend_ratio=2.0)
    first, second = scene.boot(A), scene.boot(B)
    for guest in (first, second):
        guest.says(1000, 20, scene.now)

    scene.look()
    for guest in (first, second):
        guest.follow()
        scene.check()
    assert first.requested == {0: 2 * BLOCK}
    assert second.requested == {0: 2 * BLOCK}
    for guest in (first, second):
        guest.says(1250, 20, scene.now)
    scene.look()
    scene.look()

    # 20 blocks are there, and both have 10.
    assert scene.held(A) == scene.held(B) == {0: 10 * BLOCK}
    told = fake_nova.warnings(caplog)
    assert len(told) == 2
    assert (
        'cannot be given more memory (1 % of its memory is usable)'
        in (told[0])
    )
    assert 'not enough huge pages' in told[0]

    waits = scene.rig.pools.snapshot().waits
    assert {wait.holder for wait in waits} == {A, B}
    stats = resources.build_stats(scene.rig.pools.snapshot(), [0, 1])
    assert stats.waiting == {wait.holder: wait.kib // 1024 for wait in waits}
    assert min(stats.waiting.values()) > 100

    # What one doesn't need it gives back at once, and the other gets it.
    first.says(1250, 1000, scene.now)
    for _ in range(3):
        scene.look()
        first.follow()
        scene.check()
    assert first.requested[0] < 2 * BLOCK
    for _ in range(3):
        scene.look()
        first.follow()
        scene.check()
    assert second.requested[0] > 2 * BLOCK
    second.follow()
    second.says(1400, 300, scene.now)
    scene.look()
    assert scene.rig.pools.snapshot().waits == ()
    second.follow()
    scene.check()


def test_cells_by_what_the_agent_says(scene, caplog):
    caplog.set_level('INFO', elastic.__name__)
    guest = scene.boot(A, cell(), cell(number=1, node=1))
    guest.says(2000, 600, scene.now)
    agent = fake_agent.Agent(
        node0=fake_agent.meminfo(0, 1000, 20),
        node1=fake_agent.meminfo(1, 1000, 580),
    )
    scene.guests = scene.loop(ask_agent=agent)

    scene.look()
    assert guest.requested == {0: 2 * BLOCK, 1: 0}
    guest.follow()

    # Silent, it is asked less often, and told of once.
    agent.answers = {'guest-file-open': '{"error": "no"}'}
    agent.asked.clear()
    guest.says(2000, 10, scene.now)
    for _ in range(5):
        scene.look()
        guest.follow()
    assert guest.requested[1] > 0
    assert len(agent.asked) == 1
    assert caplog.text.count('get and give memory evenly') == 1
    scene.look(300.0)
    assert len(agent.asked) == 2


def test_the_agent_of_one_with_one_cell_is_not_asked(scene):
    guest = scene.boot(A)
    guest.says(1000, 20, scene.now)
    agent = fake_agent.Agent(node0=fake_agent.meminfo(0, 1000, 580))
    scene.guests = scene.loop(ask_agent=agent)

    scene.look()

    assert guest.requested == {0: 2 * BLOCK}
    assert agent.asked == []


def test_one_that_is_off_waits_for_nothing(tmp_path):
    scene = Scene(tmp_path, pages=16 * BLOCK, lend_ratio=2.0)
    guest = scene.boot(A)
    scene.boot(B)
    guest.says(1000, 20, scene.now)
    scene.look()
    assert scene.rig.pools.waits()

    scene.libvirt.guests.remove(guest)
    # Also in the eyes of a service that starts again.
    scene.guests = scene.loop()
    scene.look()

    assert scene.rig.pools.waits() == []


def short(tmp_path, *needs):
    """A host on which guest A wants more than there is."""
    scene = Scene(tmp_path, pages=16 * BLOCK, lend_ratio=2.0)
    guest = scene.boot(A, *needs)
    scene.boot(B)
    guest.says(1000, 20, scene.now)
    scene.look()
    assert [wait.holder for wait in scene.rig.pools.waits()] == [A]
    return scene, guest


def test_it_waits_as_long_as_it_is_not_known_that_it_has_enough(tmp_path):
    scene, guest = short(tmp_path)
    [wait] = scene.rig.pools.waits()
    # In a pause, and when it says nothing.
    scene.look(1.0)
    guest.stats = {}
    scene.look(100.0)
    assert scene.rig.pools.waits() == [wait]
    guest.says(1000, 200, scene.now)
    scene.look()
    assert scene.rig.pools.waits() == []


def test_one_that_swaps_waits_between_its_statistics(tmp_path):
    scene = Scene(tmp_path, pages=16 * BLOCK, lend_ratio=2.0)
    guest = scene.boot(A)
    scene.boot(B)
    for number in range(12):
        if number % 2 == 0:
            guest.says(1000, 180, scene.now)
            guest.stats['swap_in'] = 100 * number
        # As often as they are looked at, and half as often they say it.
        scene.now += 5
        scene.guests.look()
        if number > 2:
            assert scene.rig.pools.waits(), number


def test_one_that_is_elastic_no_more_waits_for_nothing(tmp_path):
    scene, guest = short(tmp_path)
    guest.needs = [need._replace(base=0, ceiling=0) for need in guest.needs]
    guest.id += 1000
    scene.look()
    assert scene.rig.pools.waits() == []


def test_what_it_still_gives_back_is_no_wait(tmp_path):
    scene = Scene(tmp_path, pages=16 * BLOCK, lend_ratio=2.0)
    guest = scene.boot(A, cell(), cell(number=1, node=1))
    scene.boot(B)
    scene.rig.pools.put_size(A, 1, size(14 * BLOCK))
    scene.look()
    guest.follow()
    scene.rig.pools.put_size(A, 1, size(8 * BLOCK))
    scene.look()
    # It gives nothing back yet, and both are to have 12 blocks.
    for number in (0, 1):
        scene.rig.pools.put_size(A, number, size(12 * BLOCK))
    scene.look()
    assert {wait.cell for wait in scene.rig.pools.waits()} == {0}
    scene.check()


def test_only_where_others_wait_it_gives_back_at_once(tmp_path):
    scene = Scene(tmp_path, pages=20 * BLOCK, lend_ratio=2.0)
    waits = scene.boot(A)
    scene.boot(B)
    roomy = scene.boot(
        C,
        cell(BLOCK, 8 * BLOCK),
        cell(BLOCK, 8 * BLOCK, number=1, node=1),
    )
    for wanted in (size(4 * BLOCK), model.Size(None, 1.0, 'auto')):
        for number in (0, 1):
            scene.rig.pools.put_size(C, number, wanted)
        scene.look()
        roomy.follow()
    waits.says(1000, 20, scene.now)
    roomy.says(1000, 800, scene.now)
    scene.look()
    assert [wait.holder for wait in scene.rig.pools.waits()] == [A]

    scene.look()

    assert roomy.requested[0] < roomy.requested[1] == 3 * BLOCK


def test_a_little_is_given_where_there_is_not_enough(tmp_path):
    scene = Scene(tmp_path, pages=17 * BLOCK, lend_ratio=2.0)
    guest = scene.boot(A)
    scene.boot(B)
    guest.says(1000, 20, scene.now)

    scene.look()

    assert guest.requested == {0: BLOCK}
    assert scene.held(A) == {0: 9 * BLOCK}


def test_an_operator_sets_the_size(scene):
    guest = scene.boot(A)
    guest.says(1000, 500, scene.now)
    wanted = size(12 * BLOCK - 1)
    scene.rig.pools.put_size(A, 0, wanted)

    scene.look()
    assert guest.requested == {0: 4 * BLOCK}
    guest.follow()
    # Whatever it uses.
    guest.says(1500, 10, scene.now)
    scene.look()
    assert guest.requested == {0: 4 * BLOCK}
    assert scene.manager.sizes(A)[0].wanted_kib == wanted.wanted_kib

    scene.rig.pools.put_size(A, 0, wanted._replace(wanted_kib=10**9))
    scene.look()
    assert guest.requested == {0: 8 * BLOCK}
    scene.rig.pools.put_size(A, 0, wanted._replace(wanted_kib=None))
    guest.follow()
    scene.look()
    assert guest.requested == {0: 8 * BLOCK}


def test_one_that_is_moved_or_saved_stays_as_it_is(scene):
    guest = scene.boot(A)
    guest.says(1000, 20, scene.now)
    guest.job = fakelibvirt.VIR_DOMAIN_JOB_UNBOUNDED
    scene.look()
    assert guest.requested == {0: 0}

    guest.job = fakelibvirt.VIR_DOMAIN_JOB_NONE
    with scene.manager.at_work(A):
        scene.look()
    assert guest.requested == {0: 0}
    scene.look()
    assert guest.requested == {0: 2 * BLOCK}


def test_a_change_that_libvirt_refuses_is_undone(scene, caplog):
    guest = scene.boot(A)
    other = scene.boot(B)
    for one in (guest, other):
        one.says(1000, 20, scene.now)
    guest.error = fakelibvirt.libvirtError('device is busy')

    scene.look()

    # The others go on.
    assert other.requested == {0: 2 * BLOCK}
    assert guest.requested == {0: 0}
    assert 'device is busy' in fake_nova.warnings(caplog)[0]
    scene.look()
    assert guest.requested == {0: 2 * BLOCK}


def test_libvirt_that_does_not_answer(scene, caplog):
    scene.boot(A)
    scene.libvirt.error = fakelibvirt.libvirtError('it is gone')

    scene.look()

    assert 'Could not list libvirt domains' in fake_nova.warnings(caplog)[0]


def test_one_that_says_nothing_stays_as_it_is(scene):
    guest = scene.boot(A)

    scene.look()

    assert guest.requested == {0: 0}
    assert scene.held(A) == {0: 8 * BLOCK}


def test_started_again_it_has_what_it_had(scene):
    guest = scene.boot(A)
    guest.says(1000, 20, scene.now)
    scene.look()
    guest.follow()
    guest.says(1250, 400, scene.now)
    scene.look()
    guest.stop()
    scene.libvirt.guests.clear()

    # Its domain may say what it had at its first start.
    again = scene.boot(A)

    assert scene.held(A) == {0: 10 * BLOCK}
    scene.look()
    # It is asked to have that only if its XML says so, and holds no more.
    assert scene.held(A) == {0: 8 * BLOCK}
    again.says(1000, 20, scene.now)
    scene.look()
    assert again.requested == {0: 2 * BLOCK}


def test_a_guest_that_holds_nothing_yet_does_not_keep_others_from_it(scene):
    arriving = scene.boot(A)
    other = scene.boot(B)
    for guest in (arriving, other):
        guest.says(1000, 20, scene.now)
    scene.rig.pools.move(A, model.Purpose.GUEST, model.Purpose.INCOMING)

    scene.look()

    assert arriving.requested == {0: 0}
    assert other.requested == {0: 2 * BLOCK}


def test_a_frozen_guest_stays_until_its_migration_is_over(scene):
    guest = scene.boot(A)
    guest.says(1000, 20, scene.now)
    scene.manager.freeze(A)
    scene.moving = frozenset({A})
    for _ in range(100):
        scene.rig.now += 30
        scene.look(30)
    assert guest.requested == {0: 0}

    # Whether anything has told the driver or not.
    scene.moving = frozenset()
    scene.look()
    assert guest.requested == {0: 2 * BLOCK}


def test_if_it_is_not_known_what_moves_it_stays_frozen(tmp_path):
    scene = Scene(tmp_path)
    guest = scene.boot(A)
    guest.says(1000, 20, scene.now)
    scene.manager.freeze(A)
    scene.moving = None
    scene.rig.now += 1000
    scene.look()
    assert guest.requested == {0: 0}


def test_the_service_waits_until_a_look_is_over(scene):
    began, ended = threading.Event(), []
    guest = scene.boot(A)
    guest.says(1000, 20, scene.now)
    ask = guest.updateDeviceFlags

    def slow(*args):
        began.set()
        time.sleep(0.2)
        ended.append('look')
        ask(*args)

    guest.updateDeviceFlags = slow
    looking = threading.Thread(target=scene.look)
    looking.start()
    assert began.wait(10)
    with scene.manager.at_work(A):
        ended.append('service')
    looking.join()

    assert ended == ['look', 'service']


def test_where_nothing_is_to_be_had_it_is_tried_more_and_more_rarely(
    tmp_path, monkeypatch
):
    scene = Scene(tmp_path, pages=16 * BLOCK, lend_ratio=2.0)
    guest = scene.boot(A)
    scene.boot(B)
    guest.says(1000, 20, scene.now)
    tried = []
    resize = scene.rig.pools.resize

    def count(*args, **named):
        tried.append(scene.now)
        resize(*args, **named)

    monkeypatch.setattr(scene.rig.pools, 'resize', count)
    for _ in range(120):
        scene.look(5)

    waits = [
        later - before
        for before, later in itertools.pairwise(sorted(set(tried)))
    ]
    assert waits == [15, 30, 60, 120, 120, 120, 120]


def test_what_is_given_back_comes_first(scene):
    guest = scene.boot(A, cell(), cell(number=1))
    for number, pages in ((0, 10 * BLOCK), (1, 10 * BLOCK)):
        scene.rig.pools.put_size(A, number, size(pages))
    scene.look()
    guest.follow()
    scene.look()
    # The first is to grow by more than there is.
    scene.rig.kernel.take({KEY: scene.rig.kernel.pool(KEY).free})
    scene.rig.pools.put_size(A, 0, size(16 * BLOCK))
    scene.rig.pools.put_size(A, 1, size(8 * BLOCK))

    scene.look()

    assert guest.requested[1] == 0


def test_one_that_takes_some_and_no_more_is_told_once(scene, caplog):
    guest = scene.boot(A)
    for _ in range(200):
        guest.says(1000, 20, scene.now)
        scene.look()
        # No more than one block ever.
        if not guest.current[0]:
            guest.follow(BLOCK)

    assert guest.current == {0: BLOCK}
    assert len(fake_nova.warnings(caplog)) == 1


@pytest.mark.parametrize('seed', range(4))
def test_whatever_happens_no_page_is_promised_twice(tmp_path, seed):
    """Guests fill, idle, reset, stop; the service is killed at any write."""
    dice = random.Random(seed)
    scene = Scene(
        tmp_path,
        pages=40 * BLOCK,
        lend_ratio=dice.choice([1.0, 1.5, 2.0]),
    )
    uuids = [page_host.guest(number) for number in range(5)]
    for _ in range(400):
        uuid = dice.choice(uuids)
        here = {guest.uuid: guest for guest in scene.libvirt.guests}
        guest = here.get(uuid)
        act = dice.choice(
            ['use', 'use', 'look', 'look', 'reset', 'end', 'kill']
        )
        if guest is None:
            base, more = dice.randint(2, 10), dice.randint(1, 8)
            with contextlib.suppress(exception.NotEnoughPages):
                scene.boot(
                    uuid,
                    cell(
                        base * BLOCK,
                        (base + more) * BLOCK,
                        node=dice.randint(0, 1),
                    ),
                )
        elif act == 'use':
            mib = sum(guest.pages().values()) * 2
            guest.says(mib, dice.randint(0, mib), scene.now)
        elif act == 'reset':
            guest.reset()
        elif act == 'end':
            guest.stop()
            scene.libvirt.guests.remove(guest)
            scene.manager.gone(uuid)
        elif act == 'kill':
            scene.rig.steps.kill_at = scene.rig.steps.count + dice.randint(
                0, 3
            )
            with contextlib.suppress(page_host.Killed):
                scene.look(dice.randint(1, 90))
            scene.rig.start()
            scene.manager = scene.make_manager()
            scene.guests = scene.loop()
            scene.rig.reconcile(list(here), starting=True)
        else:
            scene.look(dice.randint(1, 90))
        for one in scene.libvirt.guests:
            if dice.random() < 0.6:
                one.follow(dice.choice([None, BLOCK, 10]))
        scene.check()
    for one in scene.libvirt.guests:
        one.stop()
    scene.libvirt.guests.clear()
    scene.rig.reconcile([], starting=True)
    assert scene.rig.pools.holds() == []
    assert scene.rig.total() == 40 * BLOCK
