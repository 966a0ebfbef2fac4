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


"""Tests of what is told as used and as stranded."""

from collections.abc import Iterator

import pytest

from nova_numa_hugepages.scheduler import flavors
from nova_numa_hugepages.simulate import fleet
from nova_numa_hugepages.simulate import gauge
from nova_numa_hugepages.simulate.results import Sample
from tests.unit.simulate import running
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned

MIB_2 = 2048
GIB_1 = 1024 * 1024


@pytest.fixture(autouse=True)
def nova() -> Iterator[None]:
    with running.nova():
        yield


def mix(*asked):
    return gauge.Gauge(
        [(flavors.kind_of(fleet.nova_flavor(one)), one.share) for one in asked]
    )


def use(cell, cpus=0, pages=None):
    """Take so many CPUs and pages of an empty cell."""
    cell.pin_cpus(set(sorted(cell.pcpuset)[:cpus]))
    for pool in cell.mempages:
        pool.used = (pages or {}).get(pool.size_kb, 0)


def shares(machines, used, *asked):
    """Measure hosts.

    :param used: for each cell of all hosts, the CPUs and pages in use
    :returns: the shares of CPUs used and stranded, then of pages
    """
    hosts = list(fleet.hosts(machines))
    cells = [cell for one in hosts for cell in one.numa_topology.cells]
    for cell, taken in zip(cells, used, strict=True):
        use(cell, *taken)
    found = mix(*asked).sample(hosts, 7, 3)
    assert (found.arrivals, found.guests) == (7, 3)
    return (
        (found.cpus_used, found.cpus_stranded),
        (found.pages_used, found.pages_stranded),
    )


def test_an_empty_fleet_that_the_mix_fits_into():
    # given: CPUs that outlast the pages, which no placement changes
    machines = (host(node(8, 16384, {GIB_1: 4}), count=3),)

    # when
    found = shares(
        machines, [()] * 3, pinned('gold', 1, 1024, mem_page_size=GIB_1)
    )

    # then
    assert found == ((0, 0), (0, 0))


def test_what_is_used_and_not_reserved():
    # given: of 20 pages that are not held back 5 are in use, of 2 MiB half;
    # that is 6 of 22 GiB
    one = node(
        8,
        65536,
        {MIB_2: 1024, GIB_1: 24},
        shared_cores=2,
        reserved={GIB_1: 4},
    )

    # when
    (cpus, _), (pages, _) = shares(
        [host(one)],
        [(3, {GIB_1: 5, MIB_2: 512})],
        pinned('one', 1, 1024, mem_page_size=GIB_1),
    )

    # then: the shared CPUs don't count
    assert cpus == 3 / 6
    assert pages == pytest.approx(6 / 22)


def test_free_cpus_in_too_many_places():
    # given: 3 free CPUs on each of four cells; a guest takes 4
    machines = [host(node(8), node(8), count=2)]

    # when
    (used, stranded), _ = shares(machines, [(5,)] * 4, pinned('four', 4))

    # then: in one place there would be three guests
    assert (used, stranded) == (20 / 32, 12 / 32)


def test_what_is_missing_everywhere_strands_nothing():
    # given: 8 free CPUs, and pages for one of them
    machines = [host(node(8, 16384, {GIB_1: 8}))]

    # when
    cpus, pages = shares(
        machines,
        [(0, {GIB_1: 7})],
        pinned('gold', 1, 1024, mem_page_size=GIB_1),
    )

    # then
    assert cpus == (0, 0)
    assert pages == (7 / 8, 0)


def test_cpus_in_one_place_and_pages_in_another():
    # given: two free CPUs on one cell, six free pages on the other
    machines = [host(node(8, 16384, {GIB_1: 8}), node(8, 16384, {GIB_1: 8}))]
    used = [(6, {GIB_1: 8}), (8, {GIB_1: 2})]

    # when
    cpus, pages = shares(
        machines, used, pinned('gold', 1, 1024, mem_page_size=GIB_1)
    )

    # then: two guests would fit in one place
    assert cpus == (14 / 16, 2 / 16)
    assert pages == (10 / 16, 2 / 16)


def test_the_mix_is_weighed_by_its_shares():
    # given: 4 free CPUs on each of two cells; a guest of 4 can use them all,
    # one of 8 none
    machines = [host(node(8), node(8))]

    # when
    (_, stranded), _ = shares(
        machines,
        [(4,), (4,)],
        pinned('four', 4, share=3.0),
        pinned('eight', 8, share=1.0),
    )

    # then
    assert stranded == pytest.approx(0.25 * 8 / 16)


def test_guests_of_several_cells():
    # given: free CPUs on one of two cells only
    machines = [host(node(8), node(8))]

    (_, stranded), _ = shares(
        machines, [(0,), (8,)], pinned('twin', 4, numa_nodes=2)
    )

    assert stranded == 8 / 16


def test_flavors_without_wishes_have_no_say():
    # given
    machines = [host(node(8, shared_cores=4))]

    # when
    (_, stranded), _ = shares(
        machines,
        [(2,)],
        flavor('floats', 4, share=99.0),
        pinned('four', 4),
    )

    # then: two CPUs are not enough anywhere
    assert stranded == 0


def test_pages_of_a_size_that_nobody_asks_for_are_not_stranded():
    machines = [host(node(8, 16384, {MIB_2: 512, GIB_1: 4}))]

    _, pages = shares(
        machines, [(8,)], pinned('gold', 1, 1024, mem_page_size=GIB_1)
    )

    assert pages == (0, 0)


@pytest.mark.parametrize('size', [None, 'small', 'any'])
def test_small_pages_can_be_what_runs_out(size):
    # given: 1 GiB in small pages for two cells, no other is free
    specs = {} if size is None else {'mem_page_size': size}
    machines = [host(node(8, 3072, {GIB_1: 2}))]

    # when
    found = shares(
        machines, [(0, {GIB_1: 2})], pinned('one', 1, 1024, **specs)
    )

    # then: seven CPUs are free for want of memory
    assert found == ((0, 0), (1, 0))


def test_large_pages_of_any_size():
    # given: pages of one size here, and of the other there, half a guest each
    machines = [
        host(
            node(8, 8192, {MIB_2: 512}),
            node(8, 8192, {GIB_1: 1}),
        )
    ]

    (_, stranded), _ = shares(
        machines, [(), ()], pinned('two', 2, 2048, mem_page_size='large')
    )

    assert stranded == 2 / 16


def test_vcpus_that_float_beside_pinned_ones():
    # given: room for one that floats, and for eight pinned ones
    asked = flavor('mixed', 2, cpu_policy='mixed', cpu_dedicated_mask='1')

    (_, stranded), _ = shares([host(node(9, shared_cores=1))], [()], asked)

    assert stranded == 0


def test_a_fleet_without_dedicated_cpus_and_huge_pages():
    found = shares(
        [host(node(4, shared_cores=4))], [()], flavor('one', 1, numa_nodes=1)
    )

    assert found == ((0, 0), (0, 0))


def test_a_host_is_measured_again_once_something_has_changed():
    # given
    (one,) = fleet.hosts([host(node(8))])
    measured = mix(pinned('four', 4))
    before = measured.sample([one], 0, 0)

    # when
    one.numa_topology = one.numa_topology.obj_clone()
    use(one.numa_topology.cells[0], 4)

    # then
    assert before == Sample(0, 0, 0.0, 0.0, 0.0, 0.0)
    assert measured.sample([one], 1, 1) == Sample(1, 1, 0.5, 0.0, 0.0, 0.0)
