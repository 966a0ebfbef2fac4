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

"""How many more instances there is room for, and lost room for."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages.monitor import fragments
from nova_numa_hugepages.monitor import named_kinds
from nova_numa_hugepages.monitor import room
from nova_numa_hugepages.monitor.room import Cell
from nova_numa_hugepages.monitor.room import Kind
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched
from tests.unit.monitor.watched import A
from tests.unit.monitor.watched import B

ONE = Kind('one', (Cell(0, 20 * 1024, 2048),))
TWO = Kind('two', (Cell(0, 20 * 1024, 2048),) * 2)
PINNED = Kind('pinned', (Cell(3, 20 * 1024, 2048),))


@pytest.fixture
def host(tmp_path: pathlib.Path) -> watched.Watched:
    """A host beside the driver of Nova, whose pools don't grow."""
    found = watched.Watched(tmp_path, page_host.grown(40), page_host.grown(25))
    found.collector = found.watch(tmp_path / 'none.sqlite')
    return found


def now(
    host: watched.Watched, *kinds: Kind, dedicated: set[int] | None = None
) -> dict[str, int]:
    """Count how many more there is room for."""
    counts = room.count(host.look(), kinds, dedicated)
    return {name: slots.now for name, slots in counts.items()}


def test_by_huge_pages(host: watched.Watched) -> None:
    assert now(host, ONE, TWO) == {'one': 6, 'two': 2}
    host.spawn(A, (0, 10))
    assert now(host, ONE, TWO) == {'one': 5, 'two': 2}


def test_by_dedicated_cpus(host: watched.Watched) -> None:
    assert now(host, PINNED) == {'pinned': 6}
    assert now(host, PINNED, ONE, dedicated={*range(2, 8), 8, 9}) == {
        'pinned': 2,
        'one': 6,
    }
    # Its vCPUs have CPUs of their own.
    host.spawn(A, (0, 10))
    host.libvirt.domains[A] = watched.domain(
        *page_host.needs((0, 10)),
        pins='<vcpupin vcpu="0" cpuset="2"/><vcpupin vcpu="1" cpuset="3"/>',
    )
    assert now(host, PINNED, dedicated=set(range(2, 8))) == {'pinned': 1}


def test_the_kinds_that_were_seen(host: watched.Watched) -> None:
    kinds = room.Kinds([TWO])
    assert kinds.all() == [TWO]
    host.spawn(A, (0, 10), (1, 5))
    assert kinds.see(host.look())
    assert not kinds.see(host.look())
    seen = Kind('db.large', (Cell(0, 20480, 2048), Cell(0, 10240, 2048)))
    assert kinds.all() == [seen, TWO]
    # It stays when the instance is gone.
    host.kernel.stop_guest(A)
    kinds.see(host.look())
    assert kinds.all() == [seen, TWO]
    again = room.Kinds()
    again.restore(kinds.as_json())
    assert again.all() == [seen]


def test_what_has_no_flavor_or_no_huge_pages_is_no_kind(
    host: watched.Watched,
) -> None:
    host.spawn(A, (0, 10))
    host.libvirt.domains[A] = '<domain><memory>1024</memory></domain>'
    host.spawn(B, (0, 10))
    host.libvirt.domains[B] = watched.domain()
    kinds = room.Kinds()
    assert not kinds.see(host.look())


@pytest.mark.parametrize(
    'kept', [5, [[1]], [['a', [[1]]]], [['a', [['x', 1, 1]]]]]
)
def test_what_was_kept_may_be_anything(kept: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        room.Kinds().restore(kept)


def test_what_fragmentation_costs(tmp_path: pathlib.Path) -> None:
    host = watched.Watched(tmp_path, fake_kernel.FakeNode(total=1024, used=64))
    whole = room.count(host.look(), [ONE], None)['one']
    assert whole.lost == 0
    assert fragments.find(host.look()) == []
    host.kernel.fragment(0, 400 * 1024)
    sample = host.look()
    slots = room.count(sample, [ONE], None)['one']
    assert slots.now < whole.now
    assert slots.whole == whole.whole
    assert slots.lost >= 1
    (found,) = fragments.find(sample)
    assert found.key == page_host.pool(0)
    assert found.pages == sample.snapshot.pools[found.key].fragmented > 0
    assert found.because is fragments.Because.MOVABLE
    remedy = fragments.remedy([found], compacts=True)
    assert '/sys/devices/system/node/node0/compact' in remedy
    assert 'nova-compute does so itself' in remedy
    assert 'itself' not in fragments.remedy([found], compacts=False)


@pytest.mark.parametrize(
    ('because', 'text'),
    [
        (fragments.Because.CACHE, '/proc/sys/vm/drop_caches'),
        (fragments.Because.UNMOVABLE, 'only a reboot'),
    ],
)
def test_remedies(because: fragments.Because, text: str) -> None:
    found = fragments.Fragment(page_host.pool(1), 5, because)
    assert text in fragments.remedy([found], compacts=True)


def test_who_is_in_the_way(tmp_path: pathlib.Path) -> None:
    host = watched.Watched(tmp_path, fake_kernel.FakeNode(total=1024, used=64))
    host.kernel.fragment(0, 400 * 1024)
    path = host.kernel.fs.proc / 'pagetypeinfo'
    path.write_text(
        'Page block order: 9\nPages per block:  512\n\n'
        'Number of blocks type     Unmovable      Movable  Reclaimable\n'
        'Node 0, zone      DMA            1            3            0\n'
        'Node 0, zone   Normal           99          200           50\n'
    )
    (found,) = fragments.find(host.look())
    assert found.because is fragments.Because.UNMOVABLE
    # It is read again after some minutes.
    path.write_text('nothing')
    assert host.look().page_blocks.keys() == {0}
    host.ticks += 300
    sample = host.look()
    assert 'a table of blocks by type' in ''.join(sample.problems)


def test_flavors_that_are_named() -> None:
    assert named_kinds.parse(
        'db:vcpus=4:ram=8192:mem_page_size=1GB:numa_nodes=2'
    ) == Kind('db', (Cell(0, 4 << 20, 1 << 20),) * 2)
    assert named_kinds.parse(
        ' nf:mem_page_size=2048:ram=512:vcpus=2:cpu_policy=dedicated'
    ) == Kind('nf', (Cell(2, 512 << 10, 2048),))


@pytest.mark.parametrize(
    'text',
    [
        '',
        'db',
        ':vcpus=4:ram=8192:mem_page_size=1GB',
        'db:vcpus=4:ram=8192',
        'db:vcpus=4:vcpus=4:ram=8192:mem_page_size=1GB',
        'db:vcpus=4:ram=8192:mem_page_size=1GB:color=red',
        'db:vcpus=4:ram=8192:mem_page_size=1GB:cpu_policy=mixed',
        'db:vcpus=0:ram=8192:mem_page_size=1GB',
        'db:vcpus=4:ram=-1:mem_page_size=1GB',
        'db:vcpus=4:ram=8191:mem_page_size=1GB',
        'db:vcpus=3:ram=8192:mem_page_size=1GB:numa_nodes=2',
        'db:vcpus=4:ram=8192:mem_page_size=4:numa_nodes=2',
        'db:vcpus=4:ram=8192:mem_page_size=large',
        'db:vcpus=4:ram=8192:mem_page_size=3MB',
        'db:vcpus=9999:ram=4:mem_page_size=2MB:cpu_policy=dedicated',
    ],
)
def test_flavors_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match=r'db|like NAME'):
        named_kinds.parse(text)


def test_a_name_that_is_there_twice() -> None:
    flavor = 'db:vcpus=4:ram=8192:mem_page_size=1GB'
    with pytest.raises(ValueError, match="'db' is named twice"):
        named_kinds.parse_all([flavor, flavor.replace('8192', '4096')])


def test_unlike_cells(host: watched.Watched) -> None:
    uneven = Kind('uneven', (Cell(0, 20480, 2048), Cell(0, 40960, 2048)))
    # 30 pages each, and no more than 25 of them on the second node.
    assert now(host, uneven) == {'uneven': 2}


def test_cpus_of_instances_that_have_some_for_themselves(
    host: watched.Watched,
) -> None:
    host.spawn(A, (0, 10))
    host.libvirt.domains[A] = watched.domain(
        *page_host.needs((0, 10)),
        pins='<vcpupin vcpu="0" cpuset="2"/><vcpupin vcpu="1" cpuset="3-5"/>',
    )
    kinds = room.Kinds()
    kinds.see(host.look())
    assert kinds.all() == [Kind('db.large', (Cell(1, 20480, 2048),))]
    assert now(host, *kinds.all(), dedicated={2, 6}) == {'db.large': 1}


def test_as_many_kinds_as_run_do_not_take_turns(
    host: watched.Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, '_MOST_KINDS', 1)
    for uuid, name in ((A, 'first'), (B, 'second')):
        host.spawn(uuid, (0, 5))
        host.libvirt.domains[uuid] = host.libvirt.domains[uuid].replace(
            'db.large', name
        )
    kinds = room.Kinds()
    assert kinds.see(host.look())
    (kept,) = kinds.all()
    assert not kinds.see(host.look())
    assert kinds.all() == [kept]
