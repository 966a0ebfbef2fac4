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

"""Samples of a host, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
import errno
import json
import os
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import model
from nova_numa_hugepages.hugepages import sample
from nova_numa_hugepages.hugepages.kernel import counters
from nova_numa_hugepages.hugepages.kernel import kubelet
from nova_numa_hugepages.hugepages.kernel import processes
from nova_numa_hugepages.monitor import collector
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched
from tests.unit.monitor.watched import A
from tests.unit.monitor.watched import B
from tests.unit.monitor.watched import C

HERE, THERE = page_host.pool(0), page_host.pool(1)


@pytest.fixture
def host(tmp_path: pathlib.Path) -> watched.Watched:
    return watched.Watched(tmp_path, page_host.grown(40), page_host.grown(40))


class NoVirsh(watched.FakeLibvirt):
    """A libvirt that can't be asked."""

    def stats(self) -> Mapping[str, Mapping[str, str]]:
        """Fail."""
        raise exception.LibvirtError(
            'test:///', 'virsh is not installed', asked=False
        )


def test_promised_in_place_and_used_inside(host: watched.Watched) -> None:
    host.spawn(A, (0, 10), (1, 5))
    host.libvirt.values[watched.NAME] = watched.STATS
    found = host.look()
    instance = found.instances[A]
    assert instance.promised == {HERE: 10, THERE: 5}
    assert instance.in_place == {HERE: 10, THERE: 5}
    assert instance.inside == sample.MemoryInside(
        1000, 400, 100, 300, 7, 8, 9, 990, 10.0
    )
    assert instance.inside.used_kib == 600
    assert instance.small is not None
    assert instance.small.kib == {0: 48}
    assert instance.domain is not None
    assert instance.domain.plan.flavor == 'db.large'
    assert (instance.astray, instance.absent) == ({}, {})
    assert found.problems == ()


def test_what_the_host_is_short_of(host: watched.Watched) -> None:
    found = host.look()
    assert found.node_counters[1] == counters.NodeCounters(1000, 20, 3)
    assert found.host_counters == counters.HostCounters(5, 2, 100, 4, 7)
    assert found.pressure == counters.Pressure(2500000, 1000000)
    # Whether it is there matters without instances, too.
    assert host.libvirt.asked == ['stats']


def test_memory_on_another_node_than_promised(host: watched.Watched) -> None:
    host.spawn(A, (0, 10), elsewhere=[(0, 7), (1, 3)])
    instance = host.look().instances[A]
    assert instance.astray == {THERE: 3}
    assert instance.absent == {HERE: 3}


def test_beside_the_driver_of_nova(
    host: watched.Watched, tmp_path: pathlib.Path
) -> None:
    # Without a ledger what is promised is what the domain was started with.
    host.spawn(A, (0, 10))
    host.collector = host.watch(tmp_path / 'none.sqlite')
    found = host.look()
    assert not found.has_ledger
    assert found.instances[A].promised == {HERE: 10}
    assert found.problems == ()


def test_a_ledger_that_is_damaged(
    host: watched.Watched, tmp_path: pathlib.Path
) -> None:
    damaged = tmp_path / 'damaged.sqlite'
    damaged.write_text('something else, and longer than a header' * 9)
    host.spawn(A, (0, 10))
    host.collector = host.watch(damaged)
    found = host.look()
    assert not found.has_ledger
    assert found.instances[A].in_place == {HERE: 10}
    assert found.problems == (found.ledger_problem,)
    assert str(damaged) in found.ledger_problem


def test_what_an_elastic_instance_may_have_is_in_the_ledger_only(
    host: watched.Watched, tmp_path: pathlib.Path
) -> None:
    host.spawn_elastic(A, 15, 10, 40)
    assert host.look().instances[A].promised == {HERE: 15}

    damaged = tmp_path / 'damaged.sqlite'
    damaged.write_text('something else, and longer than a header' * 9)
    host.collector = host.watch(damaged)
    assert host.look().instances[A].promised is None


def test_processes_that_cannot_be_seen(host: watched.Watched) -> None:
    (host.kernel.fs.proc / '2/comm').write_text('other\n')
    with pytest.raises(exception.KernelError, match='kthreadd'):
        host.look()


def test_names_of_groups_are_made_harmless(host: watched.Watched) -> None:
    host.kernel.take({HERE: 3}, cgroup='/system.slice/x\n\x1b[31m')
    assert host.look().others == {HERE: {'/system.slice/x\ufffd\ufffd[31m': 3}}


def test_without_virsh(host: watched.Watched) -> None:
    host.collector = collector.Collector(
        host.kernel.fs,
        host.rig.policy,
        host.ledger,
        NoVirsh(),
        kubelet_state=host.kubelet,
    )
    found = host.look()
    assert found.problems == ('virsh -c test:///: virsh is not installed',)
    assert found.libvirt_problem == ''


def test_a_libvirt_that_hangs_is_asked_once(host: watched.Watched) -> None:
    host.spawn(A, (0, 10))
    host.spawn(B, (0, 10))
    host.libvirt.hang_after = 0
    found = host.look()
    assert len(host.libvirt.asked) == 1
    assert found.problems == ('virsh -c test:///: no answer within 10 s',)
    assert found.instances[B].promised == {HERE: 10}
    assert found.instances[B].in_place == {HERE: 10}
    assert found.instances[B].inside is None
    assert found.libvirt_problem == found.problems[0]
    # When it is back, so are its answers.
    host.libvirt.hang_after = None
    assert host.look().instances[B].domain is not None


def test_a_plan_that_takes_too_long_is_the_last_one(
    host: watched.Watched,
) -> None:
    host.spawn(A, (0, 10))
    host.spawn(B, (0, 10))
    host.libvirt.hang_after = 1
    found = host.look()
    assert len(host.libvirt.asked) == 2
    assert found.libvirt_problem


def test_a_domain_that_libvirt_does_not_know(host: watched.Watched) -> None:
    host.spawn(A, (0, 10))
    host.spawn(B, (0, 10))
    del host.libvirt.domains[A]
    found = host.look()
    assert found.problems == (f'virsh -c test:///: no domain {A}',)
    assert found.libvirt_problem == ''
    assert found.instances[A].domain is None
    assert found.instances[B].domain is not None


def test_the_plan_of_a_domain_is_read_once(host: watched.Watched) -> None:
    host.spawn(A, (0, 10))
    host.look()
    host.look()
    assert host.libvirt.asked == ['stats', A, 'stats']
    # It is another one when its QEMU is.
    host.kernel.stop_guest(A)
    host.look()
    host.rig.run(A)
    host.libvirt.domains[A] = watched.domain(name='other')
    plan = host.look().instances[A].domain
    assert plan is not None
    assert plan.plan.name == 'other'


def test_a_domain_whose_xml_is_odd(host: watched.Watched) -> None:
    host.spawn(A, (0, 10))
    host.libvirt.domains[A] = watched.domain(
        pins='<vcpupin vcpu="0" cpuset="x"/>'
    )
    found = host.look()
    assert f'instance {A}: ' in found.problems[0]
    assert 'it pins vCPU 0 to' in found.problems[0]
    assert host.look().problems == found.problems
    assert found.instances[A].in_place == {HERE: 10}


def test_vcpus_that_are_off_their_plan(host: watched.Watched) -> None:
    host.spawn(A, (0, 10))
    host.libvirt.domains[A] = watched.domain(
        *page_host.needs((0, 10)),
        pins='<vcpupin vcpu="0" cpuset="0-1"/><vcpupin vcpu="1" cpuset="2"/>',
    )
    pid = host.kernel.pid(A)
    for thread, name, cpus in ((1, 'CPU 0/KVM', '0'), (2, 'CPU 1/KVM', '2-3')):
        task = host.kernel.fs.proc / f'{pid}/task/{pid + thread}'
        task.mkdir(parents=True)
        (task / 'comm').write_text(f'{name}\n')
        (task / 'status').write_text(f'Cpus_allowed_list:\t{cpus}\n')
    assert host.look().instances[A].off_plan == {1: {3}}


def test_a_guest_that_is_resized_away_has_no_promise_here(
    host: watched.Watched,
) -> None:
    host.spawn(A, (0, 10))
    host.rig.pools.move(A, model.Purpose.GUEST, model.Purpose.RESIZE)
    assert host.look().instances[A].promised == {}


def test_who_else_has_pages(host: watched.Watched) -> None:
    host.kernel.take({HERE: 3}, cgroup='/kubepods.slice/kubepods-pod7.slice')
    host.kubelet.write_text(
        json.dumps(
            {
                'entries': {
                    '7': {
                        'db': [
                            {
                                'numaAffinity': [0],
                                'type': 'hugepages-2Mi',
                                'size': 8 << 20,
                            }
                        ]
                    }
                }
            }
        )
    )
    found = host.look()
    assert found.others == {HERE: {'/kubepods.slice/kubepods-pod7.slice': 3}}
    assert found.pods == {'7': [kubelet.Promise(frozenset({0}), 2048, 4)]}
    # One of them is still to come.
    assert found.snapshot.pools[HERE].usage.pods == 1


def test_a_kubelet_of_another_kind(host: watched.Watched) -> None:
    host.kubelet.write_text('[]')
    found = host.look()
    assert str(host.kubelet) in found.problems[0]
    assert found.pods == {}


def test_a_guest_that_may_not_be_looked_at(host: watched.Watched) -> None:
    def refuse(pid: int) -> processes.ProcessMemory:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    host.spawn(A, (0, 10))
    host.collector = host.watch(host.ledger, refuse)
    found = host.look()
    assert found.instances[A].in_place is None
    assert (found.instances[A].astray, found.instances[A].absent) == ({}, {})
    assert f'/{host.kernel.pid(A)}/numa_maps' in found.problems[0]


def test_a_guest_that_ends_while_it_is_looked_at(
    host: watched.Watched,
) -> None:
    def vanish(pid: int) -> processes.ProcessMemory:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))

    host.spawn(A, (0, 10))
    host.collector = host.watch(host.ledger, vanish)
    found = host.look()
    assert found.instances[A].in_place is None
    assert found.problems == ()


class TestGuestsOnSmallPages:
    """They are slow to read, and have their turn."""

    @pytest.fixture
    def slow(self, host: watched.Watched) -> watched.Watched:
        def read(pid: int) -> processes.ProcessMemory:
            self.read.append(pid)
            host.ticks += 0.8
            return processes.memory(host.kernel.fs, pid)

        self.read: list[int] = []
        for uuid in (A, B, C):
            host.kernel.start_guest(uuid, {})
            host.libvirt.domains[uuid] = watched.domain()
        host.collector = host.watch(host.ledger, read)
        return host

    def test_no_more_are_read_than_there_is_time_for(
        self, slow: watched.Watched
    ) -> None:
        first = slow.look()
        assert len(self.read) == 2
        assert sum(i.small is not None for i in first.instances.values()) == 2
        # In 50 s there is no time for another one, in 110 there is.
        slow.ticks += 50
        slow.look()
        assert len(self.read) == 2
        slow.ticks += 60
        slow.look()
        assert len(set(self.read)) == 3

    def test_the_oldest_comes_first_and_its_age_is_told(
        self, slow: watched.Watched
    ) -> None:
        for _ in range(9):
            slow.ticks += 80
            found = slow.look()
        assert self.read[3:6] == self.read[:3]
        ages = sorted(
            i.small.age_s for i in found.instances.values() if i.small
        )
        assert ages[0] < 1
        assert ages[2] > 160

    def test_they_have_no_huge_pages(self, slow: watched.Watched) -> None:
        found = slow.look()
        places = [i.in_place for i in found.instances.values()]
        # One has not had its turn.
        assert sorted(map(str, places)) == ['None', '{}', '{}']
        assert found.problems == ()


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('balloon.usable', '-1'),
        ('balloon.usable', '9' * 30),
        ('balloon.usable', '\u0663'),
        ('balloon.usable', ''),
    ],
)
def test_what_a_guest_cannot_mean(name: str, value: str) -> None:
    inside = sample.inside({**watched.STATS, name: value}, 1000.0)
    assert inside is not None
    assert inside.usable_kib is None
    assert inside.used_kib is None


def test_a_guest_that_has_never_said_anything() -> None:
    stats = {**watched.STATS, 'balloon.last-update': '0'}
    assert sample.inside(stats, 1000.0) is None
    assert sample.inside({}, 1000.0) is None


def test_a_clock_that_was_set_back() -> None:
    inside = sample.inside(watched.STATS, 5.0)
    assert inside is not None
    assert inside.age_s == 0.0
