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


"""The demand that the weigher goes by: learned, from flavors, or pinned."""

import threading

from nova import objects
import pytest

from nova_numa_hugepages.core.capacity import guest_kinds
from nova_numa_hugepages.scheduler import demand
from nova_numa_hugepages.scheduler import demand_store
from nova_numa_hugepages.scheduler.demand import Demand
from tests.unit import nova_builders
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import request

HALF_LIFE_S = 1000.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now=1e9):
        self.now = now

    def __call__(self):
        return self.now


def kind(vcpus, memory_mib=4):
    return guest_kinds.guest_kind(request(pinned_cell(vcpus, memory_mib)))


SMALL, MEDIUM, LARGE = kind(1), kind(2), kind(4)


@pytest.fixture
def clock():
    return Clock()


def learning(clock, at_most=10, **others):
    return Demand(
        half_life_s=HALF_LIFE_S, at_most=at_most, clock=clock, **others
    )


def shares(learned):
    kinds, found = learned.mix()
    return dict(zip(kinds, found, strict=True))


def spec(uuid=nova_builders.UUID, **others):
    found = nova_builders.spec(nova_builders.guest(pinned_cell(1)))
    found.instance_uuid = uuid
    for name, value in others.items():
        setattr(found, name, value)
    return found


def kept(folder, counts, at):
    """Make a store in which some demand was kept."""
    path = folder / 'demand.json'
    demand_store.DemandFile(path).save(counts, at)
    return demand_store.DemandFile(path)


class TestDecay:
    def test_nothing_is_known_at_first(self, clock):
        assert learning(clock).mix() == ((), [])

    def test_what_came_a_half_life_ago_counts_half(self, clock):
        learned = learning(clock)
        learned.count(SMALL)
        clock.now += HALF_LIFE_S
        learned.count(LARGE)

        assert shares(learned) == {SMALL: 0.5 / 1.5, LARGE: 1.0 / 1.5}

    def test_time_in_small_steps_is_the_same_time(self, clock):
        learned = learning(clock)
        learned.count(SMALL)
        for _ in range(100):
            clock.now += HALF_LIFE_S / 100
            learned.mix()
        learned.count(LARGE)

        assert shares(learned) == pytest.approx(
            {SMALL: 0.5 / 1.5, LARGE: 1.0 / 1.5}
        )

    def test_a_clock_that_is_put_back_changes_nothing(self, clock):
        learned = learning(clock)
        learned.count(SMALL)
        learned.count(SMALL)
        clock.now -= 5 * HALF_LIFE_S
        learned.count(LARGE)

        assert shares(learned) == {SMALL: 2 / 3, LARGE: 1 / 3}

        # And time goes on from there.
        clock.now += HALF_LIFE_S
        learned.count(LARGE)
        assert shares(learned) == {SMALL: 1 / 2.5, LARGE: 1.5 / 2.5}

    def test_what_is_long_ago_is_forgotten(self, clock):
        learned = learning(clock)
        learned.count(SMALL)
        clock.now += 1e6 * HALF_LIFE_S

        assert learned.mix() == ((), [])


class TestBounds:
    def test_only_the_kinds_asked_for_most_count(self, clock):
        learned = learning(clock, at_most=2)
        for each in (SMALL, MEDIUM, LARGE, LARGE, MEDIUM, MEDIUM):
            learned.count(each)

        assert shares(learned) == {MEDIUM: 0.6, LARGE: 0.4}

    def test_among_equals_the_first_ones_count(self, clock):
        learned = learning(clock, at_most=2)
        for each in (SMALL, MEDIUM, LARGE):
            learned.count(each)

        assert learned.mix() == ((SMALL, MEDIUM), [0.5, 0.5])

    def test_the_order_of_kinds_stays(self, clock):
        learned = learning(clock, at_most=3)
        for each in (LARGE, SMALL, MEDIUM):
            learned.count(each)
        for each in (MEDIUM, MEDIUM, SMALL):
            learned.count(each)
            clock.now += 10.0
            assert learned.mix()[0] == (LARGE, SMALL, MEDIUM)

    def test_a_thousand_kinds_are_remembered(self, clock):
        learned = learning(clock, at_most=5000)
        learned.count(SMALL)
        for memory_mib in range(1, 2000):
            learned.count(SMALL)
            learned.count(kind(8, memory_mib))

        kinds, _ = learned.mix()

        assert len(kinds) == 1000
        # What is asked for often is not forgotten for what is asked for once,
        # and what came last is known.
        assert kinds[0] == SMALL
        assert kinds[-1] == kind(8, 1999)

    def test_a_store_of_many_kinds_is_cut(self, clock, tmp_path):
        many = {kind(1, memory_mib): 1.0 for memory_mib in range(1, 1501)}
        store = kept(tmp_path, {**many, LARGE: 2.0}, clock.now)
        learned = learning(clock, at_most=5000, store=store)

        kinds, _ = learned.mix()

        assert len(kinds) == 1000
        assert kinds[0] == LARGE


class TestFlavors:
    """The flavors of the cloud stand in until there are requests."""

    def test_they_count_all_alike(self, clock):
        learned = learning(
            clock, prior=lambda: {'a': SMALL, 'b': LARGE, 'c': SMALL}
        )

        assert shares(learned) == pytest.approx({SMALL: 2 / 3, LARGE: 1 / 3})

    def test_they_fade_as_requests_come_in(self, clock):
        learned = learning(clock, prior=lambda: {'a': SMALL, 'b': LARGE})
        for _ in range(20):
            learned.count(LARGE)

        assert shares(learned) == {LARGE: 0.75, SMALL: 0.25}

        for _ in range(160):
            learned.count(LARGE)
        assert shares(learned) == {LARGE: 0.95, SMALL: 0.05}

    def test_they_come_back_as_requests_are_forgotten(self, clock):
        learned = learning(clock, prior=lambda: {'a': SMALL})
        for _ in range(20):
            learned.count(LARGE)
        assert shares(learned) == {LARGE: 0.5, SMALL: 0.5}

        clock.now += 2 * HALF_LIFE_S
        assert shares(learned) == {LARGE: 0.2, SMALL: 0.8}

    def test_they_may_change(self, clock):
        known = {'a': SMALL}
        learned = learning(clock, prior=lambda: known)
        assert shares(learned) == {SMALL: 1.0}

        known['b'] = MEDIUM
        assert shares(learned) == {SMALL: 0.5, MEDIUM: 0.5}


class TestPinned:
    def test_what_is_pinned_is_not_learned(self, clock):
        learned = learning(
            clock,
            pinned=lambda: {LARGE: 3.0, SMALL: 1.0},
            prior=lambda: {'a': MEDIUM},
        )
        learned.count(MEDIUM)

        assert learned.mix() == ((LARGE, SMALL), [0.75, 0.25])

    def test_all_that_is_pinned_counts(self, clock):
        learned = learning(
            clock, at_most=1, pinned=lambda: {LARGE: 1.0, SMALL: 1.0}
        )

        assert shares(learned) == {LARGE: 0.5, SMALL: 0.5}

    def test_where_nothing_is_pinned_it_is_learned(self, clock):
        learned = learning(clock, pinned=dict)
        learned.count(MEDIUM)

        assert learned.mix() == ((MEDIUM,), [1.0])


class TestObserving:
    def counted(self, clock, *requests):
        """Observe requests, and return how many guests were counted."""
        learned = learning(clock)
        learned.count(LARGE)
        for each in requests:
            learned.observe(each, SMALL)
        found = shares(learned)
        return round(found.get(SMALL, 0.0) / found[LARGE])

    def test_a_guest_is_counted_once(self, clock):
        # As Nova does it for alternates: the same request again.
        one = spec()

        assert self.counted(clock, one, one, one) == 1

    def test_each_guest_of_a_request_is_counted(self, clock):
        # As Nova does it for several servers: the same object each time.
        learned = learning(clock)
        learned.count(LARGE)
        several = spec('guest-1')
        for uuid in ('guest-1', 'guest-2', 'guest-3', 'guest-3'):
            several.instance_uuid = uuid
            learned.observe(several, SMALL)

        assert shares(learned) == {SMALL: 0.75, LARGE: 0.25}

    def test_a_guest_that_failed_to_start_is_not_counted_again(self, clock):
        first = spec(retry=objects.SchedulerRetries(num_attempts=1))
        second = spec(retry=objects.SchedulerRetries(num_attempts=2))

        assert self.counted(clock, first) == 1
        assert self.counted(clock, second) == 0

    def test_a_guest_that_moves_is_not_counted_again(self, clock):
        assert self.counted(clock, spec(ignore_hosts=['here'])) == 0
        assert self.counted(clock, spec(ignore_hosts=None)) == 1
        assert self.counted(clock, spec(ignore_hosts=[])) == 1

    def test_requests_without_a_retry_or_a_guest_are_counted(self, clock):
        bare = objects.RequestSpec()

        assert self.counted(clock, bare, bare) == 1
        assert self.counted(clock, spec(retry=None)) == 1

    def test_a_guest_that_asks_for_something_else_is_counted(self, clock):
        learned = learning(clock)
        same = spec()
        learned.observe(same, SMALL)
        learned.observe(same, LARGE)

        assert shares(learned) == {SMALL: 0.5, LARGE: 0.5}

    def test_a_guest_that_takes_nothing_is_not_counted(self, clock):
        # Of which any number would fit.
        learned = learning(clock)

        learned.observe(spec(), kind(1, memory_mib=0))

        assert learned.mix() == ((), [])

    def test_the_request_is_sent_as_it_was(self, clock):
        one = spec()
        before = nova_builders.primitive(one)

        self.counted(clock, one)

        assert nova_builders.primitive(one) == before


class TestStores:
    def test_what_was_kept_counts_on(self, clock, tmp_path):
        store = kept(tmp_path, {SMALL: 2.0}, clock.now - HALF_LIFE_S)
        learned = learning(clock, store=store)
        learned.count(LARGE)

        assert shares(learned) == {SMALL: 0.5, LARGE: 0.5}

    def test_guests_are_kept(self, clock, tmp_path):
        store = kept(tmp_path, {SMALL: 2.0}, clock.now)
        clock.now += HALF_LIFE_S
        learning(clock, store=store).count(LARGE)

        again = demand_store.DemandFile(tmp_path / 'demand.json')

        assert again.load(clock.now) == ({SMALL: 1.0, LARGE: 1.0}, clock.now)

    def test_kinds_without_requests_do_not_count(self, clock, tmp_path):
        store = kept(tmp_path, {SMALL: 0.0}, clock.now)

        assert learning(clock, store=store).mix() == ((), [])


def test_threads_lose_no_guest(clock):
    learned = learning(clock)
    kinds = [kind(vcpus) for vcpus in range(1, 5)]

    def learn():
        for number in range(400):
            learned.count(kinds[number % 4])
            learned.mix()

    threads = [threading.Thread(target=learn) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    learned.count(LARGE)
    assert shares(learned) == {
        each: (801 if each == LARGE else 800) / 3201 for each in kinds
    }


class TestProcess:
    """Filter and weigher of a process share the demand."""

    @pytest.fixture(autouse=True)
    def stopped(self, tmp_path):
        demand.stop()
        with nova_builders.option('state_path', str(tmp_path)):
            yield
        demand.stop()

    def test_it_is_started_once(self):
        assert demand.current() is None

        started = demand.start()

        assert demand.start() is started
        assert demand.current() is started

    def test_it_learns_as_configured(self, tmp_path):
        group = 'numa_hugepages'
        with (
            nova_builders.option('demand_kinds', 1, group),
            nova_builders.option('demand_half_life', 60, group),
            nova_builders.option('demand_file', 'here.json', group),
        ):
            learned = demand.start()
            for each in (SMALL, LARGE, LARGE):
                learned.count(each)

        assert shares(learned) == {LARGE: 1.0}
        assert learned.half_life_s == 60
        assert [path.name for path in tmp_path.iterdir()] == ['here.json']

    def test_a_restart_keeps_it(self):
        demand.start().count(SMALL)
        demand.stop()

        assert shares(demand.start()) == {SMALL: 1.0}
