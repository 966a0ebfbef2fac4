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


"""Defects of stock Nova's fit, by their numbers, that ours must not have.

Where it can be shown, a test whose name ends in ``in_stock_nova`` shows that
the installed Nova still has the defect: should it fail, the table of defects
is out of date, and nothing of ours is broken.
"""

from nova import exception as nova_exception
from nova.virt import hardware as nova_hardware
import pytest

from nova_numa_hugepages.core.model import ThreadPolicy
from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit import nova_builders
from tests.unit.core.builders import floating_cell
from tests.unit.core.builders import giant
from tests.unit.core.builders import host_cell
from tests.unit.core.builders import huge
from tests.unit.core.builders import mixed_cell
from tests.unit.core.builders import pinned_cell
from tests.unit.core.builders import small

ISOLATE = ThreadPolicy.ISOLATE
REQUIRE = ThreadPolicy.REQUIRE
SMALL_ONLY = (small(8192),)

ours = numa_fit.numa_fit_instance_to_host
stock = numa_fit.stock_fit()
consume = nova_hardware.numa_usage_from_instance_numa


@pytest.fixture
def our_fit():
    with nova_builders.installed():
        yield


def cells_with(*free_cpus):
    """Make host cells with so many free CPUs each."""
    return [
        host_cell(number, cores=count, pools=SMALL_ONLY)
        for number, count in enumerate(free_cpus)
    ]


def pinned_guest(*vcpus):
    """Make a guest with so many pinned vCPUs in each of its cells."""
    return nova_builders.guest(
        *[
            pinned_cell(count, first=sum(vcpus[:number]))
            for number, count in enumerate(vcpus)
        ]
    )


def legacy(number=0, **others):
    """Make a host cell of [DEFAULT] vcpu_pin_set, pinned and floating."""
    cell = host_cell(number, pools=SMALL_ONLY, **others)
    return cell._replace(shared_cpus=cell.dedicated_cpus)


class TestB01:
    """An asymmetric guest of which one cell fits nowhere."""

    HOST = cells_with(1, 1, 1)

    def test_b01_a_guest_cell_that_fits_nowhere_is_rejected(self):
        assert (
            ours(
                nova_builders.topology(*self.HOST), pinned_guest(1, 1, 4), None
            )
            is None
        )

    def test_b01_in_stock_nova(self):
        found = stock(
            nova_builders.topology(*self.HOST), pinned_guest(1, 1, 4), None
        )

        assert nova_builders.placed(found)[2] == (0, None, {})
        assert not nova_builders.works(
            nova_builders.topology(*self.HOST), found, consume
        )


class TestB02:
    """An asymmetric guest for which a matching exists."""

    HOST = cells_with(1, 2, 1)

    def test_b02_an_asymmetric_guest_is_matched(self):
        found = ours(
            nova_builders.topology(*self.HOST), pinned_guest(1, 2), None
        )

        assert nova_builders.placed(found) == [
            (0, None, {0: 0}),
            (1, None, {1: 100, 2: 101}),
        ]
        assert nova_builders.works(
            nova_builders.topology(*self.HOST), found, consume
        )

    def test_b02_in_stock_nova(self):
        assert (
            stock(nova_builders.topology(*self.HOST), pinned_guest(1, 2), None)
            is None
        )


class TestB03:
    """A guest whose networks, or devices, are on different host cells."""

    HOST = [
        host_cell(0, cores=9, pools=SMALL_ONLY),
        host_cell(1, cores=8, pools=SMALL_ONLY, physnets={'red'}),
        host_cell(2, cores=7, pools=SMALL_ONLY),
        host_cell(3, cores=6, pools=SMALL_ONLY, physnets={'blue'}),
    ]
    NETWORKS = nova_builders.limits(
        networks=nova_builders.network({'red', 'blue'})
    )
    # The cards that are asked for are on cells 1 and 3.
    PLAIN = [host_cell(number, pools=SMALL_ONLY) for number in range(4)]

    def fit_devices(self, fit):
        host_topology = nova_builders.topology(*self.PLAIN)
        return fit(
            host_topology,
            pinned_guest(1, 1),
            None,
            nova_builders.limits(),
            [
                nova_builders.card(
                    policy='required', dev_type='type-PCI', kind='nic'
                ),
                nova_builders.card(
                    policy='required', dev_type='type-PCI', kind='gpu'
                ),
            ],
            self.cards(host_topology),
        )

    def cards(self, host_topology):
        found = nova_builders.devices(host_topology, {0: 4, 1: 3, 2: 2, 3: 1})
        kinds = {0: 'dsp', 1: 'nic', 2: 'dsp', 3: 'gpu'}
        for pool in found.pools:
            pool['kind'] = kinds[pool['numa_node']]
        return found

    def test_b03_pins_are_in_the_cells_with_the_networks(self):
        found = ours(
            nova_builders.topology(*self.HOST),
            pinned_guest(1, 1),
            None,
            self.NETWORKS,
        )

        assert nova_builders.placed(found) == [
            (1, None, {0: 100}),
            (3, None, {1: 300}),
        ]
        assert nova_builders.works(
            nova_builders.topology(*self.HOST), found, consume
        )

    def test_b03_pins_are_in_the_cells_with_the_devices(self):
        found = self.fit_devices(ours)

        assert nova_builders.placed(found) == [
            (1, None, {0: 100}),
            (3, None, {1: 300}),
        ]
        assert nova_builders.works(
            nova_builders.topology(*self.PLAIN), found, consume
        )

    def test_b03_with_networks_in_stock_nova(self):
        found = stock(
            nova_builders.topology(*self.HOST),
            pinned_guest(1, 1),
            None,
            self.NETWORKS,
        )

        assert not nova_builders.works(
            nova_builders.topology(*self.HOST), found, consume
        )

    def test_b03_with_devices_in_stock_nova(self):
        found = self.fit_devices(stock)

        assert found is not None
        assert not nova_builders.works(
            nova_builders.topology(*self.PLAIN), found, consume
        )


class TestB04:
    """A page size that sticks from the first host cell that was tried."""

    # The first one has huge pages and too few CPUs.
    HOST = [
        host_cell(0, cores=1, pools=(small(64), huge(1024)), memory_mib=9999),
        host_cell(1, cores=4, pools=(small(64), giant(2))),
    ]

    def fit(self, fit, wish, guest_cells):
        with nova_builders.option(
            'packing_host_numa_cells_allocation_strategy', True, 'compute'
        ):
            return fit(
                nova_builders.topology(*self.HOST),
                nova_builders.guest(*guest_cells(wish)),
                None,
            )

    def one_cell(self, wish):
        return [pinned_cell(2, 1024, wish)]

    @pytest.mark.parametrize('wish', [nova_builders.LARGE, nova_builders.ANY])
    def test_b04_the_size_of_each_host_cell_is_tried(self, wish):
        found = self.fit(ours, wish, self.one_cell)

        assert nova_builders.placed(found) == [
            (1, nova_builders.GIB_1, {0: 100, 1: 101})
        ]

    @pytest.mark.parametrize('wish', [nova_builders.LARGE, nova_builders.ANY])
    def test_b04_in_stock_nova(self, wish):
        assert self.fit(stock, wish, self.one_cell) is None


class TestB05:
    """Different page sizes for the cells of one guest."""

    HOST = [
        host_cell(0, pools=(small(64), huge(1024), giant(2))),
        host_cell(1, pools=(small(64), huge(1024), giant(2, used=2))),
    ]
    CELLS = (
        pinned_cell(1, 1024, nova_builders.LARGE),
        pinned_cell(1, 1024, nova_builders.LARGE, first=1),
    )

    def test_b05_all_cells_of_a_guest_get_one_size(self):
        found = ours(
            nova_builders.topology(*self.HOST),
            nova_builders.guest(*self.CELLS),
            None,
        )

        assert nova_builders.placed(found) == [
            (0, nova_builders.MIB_2, {0: 0}),
            (1, nova_builders.MIB_2, {1: 100}),
        ]

    def test_b05_cells_that_ask_for_other_sizes_get_them(self):
        found = ours(
            nova_builders.topology(*self.HOST),
            nova_builders.guest(
                pinned_cell(1, 1024, nova_builders.GIB_1),
                pinned_cell(1, 1024, nova_builders.MIB_2, first=1),
            ),
            None,
        )

        assert nova_builders.placed(found) == [
            (0, nova_builders.GIB_1, {0: 0}),
            (1, nova_builders.MIB_2, {1: 100}),
        ]

    def test_b05_in_stock_nova(self):
        found = stock(
            nova_builders.topology(*self.HOST),
            nova_builders.guest(*self.CELLS),
            None,
        )

        assert [cell.pagesize for cell in found.cells] == [
            nova_builders.GIB_1,
            nova_builders.MIB_2,
        ]


class TestB06:
    """A guest whose claim was aborted, and that is tried elsewhere."""

    GIANT = [host_cell(0, pools=(small(64), giant(2)))]
    HUGE = [host_cell(0, pools=(small(64), huge(1024)))]

    def test_b06_the_size_chosen_before_doesn_t_stick(self):
        asked = nova_builders.guest(pinned_cell(1, 1024, nova_builders.LARGE))

        first = ours(nova_builders.topology(*self.GIANT), asked, None)
        asked.clear_host_pinning()
        second = ours(nova_builders.topology(*self.HUGE), asked, None)

        assert nova_builders.placed(first) == [
            (0, nova_builders.GIB_1, {0: 0})
        ]
        assert nova_builders.placed(second) == [
            (0, nova_builders.MIB_2, {0: 0})
        ]

    def test_b06_nor_does_it_when_the_claimed_topology_is_tried(self):
        claimed = ours(
            nova_builders.topology(*self.GIANT),
            nova_builders.guest(pinned_cell(1, 1024, nova_builders.LARGE)),
            None,
        )

        claimed.clear_host_pinning()
        second = ours(nova_builders.topology(*self.HUGE), claimed, None)

        assert nova_builders.placed(second) == [
            (0, nova_builders.MIB_2, {0: 0})
        ]

    def test_b06_cells_without_numbers_stay_apart(self):
        # The second guest cell fits nowhere.
        asked = pinned_guest(1, 3)
        asked.clear_host_pinning()

        assert (
            ours(nova_builders.topology(*cells_with(2, 2)), asked, None)
            is None
        )

    def test_b06_cells_without_numbers_are_placed(self):
        asked = pinned_guest(2, 1)
        asked.clear_host_pinning()

        found = ours(nova_builders.topology(*cells_with(1, 2)), asked, None)

        assert nova_builders.placed(found) == [
            (1, None, {0: 100, 1: 101}),
            (0, None, {2: 0}),
        ]

    def test_b06_in_stock_nova(self):
        asked = nova_builders.guest(pinned_cell(1, 1024, nova_builders.LARGE))

        stock(nova_builders.topology(*self.GIANT), asked, None)
        asked.clear_host_pinning()

        assert stock(nova_builders.topology(*self.HUGE), asked, None) is None


class TestB07:
    """Emulator threads on a core of their own beside isolated vCPUs."""

    GUEST = pinned_cell(1, threads=ISOLATE)

    def fit(self, fit, cell):
        return fit(
            nova_builders.topology(cell),
            nova_builders.guest(self.GUEST, emulator_isolated=True),
            None,
        )

    def test_b07_the_emulator_gets_a_whole_free_core(self):
        half_used = legacy(cores=3, threads=2, pinned={2})

        found = self.fit(ours, half_used)

        assert nova_builders.placed(found) == [(0, None, {0: 0})]
        assert found.cells[0].cpuset_reserved == {4}
        assert nova_builders.works(
            nova_builders.topology(half_used), found, consume
        )

    def test_b07_without_one_the_guest_is_rejected(self):
        half_used = legacy(cores=3, threads=2, pinned={2, 4})

        assert self.fit(ours, half_used) is None

    def test_b07_in_stock_nova(self):
        half_used = legacy(cores=3, threads=2, pinned={2})

        found = self.fit(stock, half_used)

        with pytest.raises(nova_exception.CPUPinningInvalid):
            consume(nova_builders.topology(half_used), found)


class TestB08:
    """Guests on small pages where most memory is in pools."""

    # Of 64 GiB 48 are in a pool.
    HOST = [
        host_cell(cores=0, shared_cores=64, pools=(small(16384), giant(48)))
    ]

    def admitted_gib(self, fit):
        """Boot guests of 4 GiB until one is rejected."""
        host_topology = nova_builders.topology(*self.HOST)
        for count in range(99):
            found = fit(
                host_topology,
                nova_builders.guest(floating_cell(1, 4096)),
                None,
                nova_builders.limits(cpu=16.0),
            )
            if found is None:
                return count * 4
            host_topology = consume(host_topology, found)
        raise AssertionError('no guest was rejected')

    def test_b08_small_page_guests_get_small_page_memory(self):
        assert self.admitted_gib(ours) == 16

    def test_b08_with_the_option_off_they_get_what_nova_gives(self):
        with nova_builders.option(
            'account_small_pages', False, 'numa_hugepages'
        ):
            assert self.admitted_gib(ours) == 64

    def test_b08_in_stock_nova(self):
        assert self.admitted_gib(stock) == 64


class TestB09:
    """Several servers of one request, on hosts with other page sizes."""

    def consumed(self):
        """Let both servers of a request take their hosts.

        :returns: the page sizes that they get
        """
        request = nova_builders.spec(
            nova_builders.guest(pinned_cell(1, 1024, nova_builders.LARGE))
        )
        hosts = [
            nova_builders.host_state(
                'giant pages',
                nova_builders.topology(host_cell(pools=(small(64), giant(2)))),
            ),
            nova_builders.host_state(
                'huge pages',
                nova_builders.topology(
                    host_cell(pools=(small(64), huge(512)))
                ),
            ),
        ]
        sizes = []
        for host in hosts:
            host.consume_from_request(request)
            sizes.append(
                request.numa_topology
                and request.numa_topology.cells[0].pagesize
            )
        return sizes

    def test_b09_the_second_server_is_independent(self, our_fit):
        assert self.consumed() == [nova_builders.GIB_1, nova_builders.MIB_2]

    def test_b09_in_stock_nova(self):
        assert self.consumed() == [nova_builders.GIB_1, None]


class TestB11:
    """A host cell that names no page sizes."""

    HOST = [host_cell(shared_cores=2)]

    @pytest.mark.parametrize('cell', [pinned_cell(1), floating_cell(1)])
    def test_b11_the_plan_can_be_accounted(self, cell):
        found = ours(
            nova_builders.topology(*self.HOST),
            nova_builders.guest(cell),
            None,
            nova_builders.limits(),
        )

        assert found is not None
        assert nova_builders.works(
            nova_builders.topology(*self.HOST), found, consume
        )
        used = consume(nova_builders.topology(*self.HOST), found)
        assert used.cells[0].memory_usage == 1024
        # And given back.
        back = consume(used, found, free=True)
        assert back.cells[0].memory_usage == 0

    def test_b11_page_sizes_that_are_asked_for_are_rejected(self):
        for wish in (
            nova_builders.LARGE,
            nova_builders.ANY,
            nova_builders.MIB_2,
            nova_builders.SMALL,
            nova_builders.KIB_4,
        ):
            assert (
                ours(
                    nova_builders.topology(*self.HOST),
                    nova_builders.guest(pinned_cell(1, 1024, wish)),
                    None,
                )
                is None
            )

    def test_b11_in_stock_nova(self):
        found = stock(
            nova_builders.topology(*self.HOST),
            nova_builders.guest(pinned_cell(1)),
            None,
        )

        assert found is not None
        with pytest.raises(IndexError):
            consume(nova_builders.topology(*self.HOST), found)


class TestB12:
    """Guests of one vCPU on cores of two threads."""

    def after(self, fit, count, *, pack):
        """Boot guests of one vCPU.

        :returns: the CPUs that they are pinned to, and the host after them
        """
        host_topology = nova_builders.topology(
            host_cell(cores=32, threads=2, pools=(small(65536),))
        )
        cpus = []
        with nova_builders.option(
            'packing_host_numa_cells_allocation_strategy', pack, 'compute'
        ):
            for _ in range(count):
                found = fit(host_topology, pinned_guest(1), None)
                cpus.extend(nova_builders.pinning(found.cells[0]).values())
                host_topology = consume(host_topology, found)
        return cpus, host_topology

    def test_b12_when_spreading_each_guest_has_a_core(self):
        cpus, _ = self.after(ours, 32, pack=False)

        assert cpus == list(range(0, 64, 2))

    def test_b12_when_packing_threads_of_used_cores_are_taken(self):
        cpus, host_topology = self.after(ours, 32, pack=True)

        assert cpus == list(range(32))
        # 16 whole cores are left, for larger guests.
        assert (
            ours(
                host_topology,
                nova_builders.guest(pinned_cell(32, threads=REQUIRE)),
                None,
            )
            is not None
        )

    def test_b12_when_packing_a_half_is_taken_before_a_whole_core(self):
        half_used = host_cell(cores=4, threads=2, pinned={4}, pools=SMALL_ONLY)

        with nova_builders.option(
            'packing_host_numa_cells_allocation_strategy', True, 'compute'
        ):
            found = ours(
                nova_builders.topology(half_used), pinned_guest(1), None
            )

        assert nova_builders.placed(found) == [(0, None, {0: 5})]

    @pytest.mark.parametrize('pack', [False, True])
    def test_b12_in_stock_nova(self, pack):
        cpus, host_topology = self.after(stock, 32, pack=pack)

        assert cpus == list(range(0, 64, 2))
        assert (
            stock(
                host_topology,
                nova_builders.guest(pinned_cell(2, threads=REQUIRE)),
                None,
            )
            is None
        )


class TestB16:
    """Mixed guests with isolated threads, on an empty host."""

    HOST = [
        host_cell(number, cores=2, shared_cores=2, pools=SMALL_ONLY)
        for number in (0, 1)
    ]

    def isolated(self):
        """Make a guest of which one cell has no dedicated vCPU."""
        cells = nova_builders.guest(
            mixed_cell(1, 0, threads=ISOLATE),
            mixed_cell(1, 1, threads=ISOLATE),
        )
        cells.cells[1].cpuset, cells.cells[1].pcpuset = {1}, {2}
        return cells

    def emulator(self):
        cells = nova_builders.guest(
            mixed_cell(1, 0), mixed_cell(1, 1), emulator_isolated=True
        )
        cells.cells[1].cpuset, cells.cells[1].pcpuset = {1}, {2}
        return cells

    def test_b16_a_mixed_guest_with_isolated_threads_fits(self):
        found = ours(nova_builders.topology(*self.HOST), self.isolated(), None)

        assert nova_builders.placed(found) == [
            (0, None, {}),
            (1, None, {2: 100}),
        ]
        assert nova_builders.works(
            nova_builders.topology(*self.HOST), found, consume
        )

    def test_b16_a_mixed_guest_with_an_isolated_emulator_fits(self):
        found = ours(nova_builders.topology(*self.HOST), self.emulator(), None)

        assert nova_builders.placed(found) == [
            (0, None, {}),
            (1, None, {2: 100}),
        ]
        assert [cell.cpuset_reserved for cell in found.cells] == [{0}, None]
        assert nova_builders.works(
            nova_builders.topology(*self.HOST), found, consume
        )

    def test_b16_on_threads_as_well(self):
        host = [
            host_cell(0, cores=2, shared_cores=1, threads=2, pools=SMALL_ONLY)
        ]

        found = ours(
            nova_builders.topology(*host),
            nova_builders.guest(mixed_cell(1, 2, threads=ISOLATE)),
            None,
        )

        assert nova_builders.placed(found) == [(0, None, {1: 0, 2: 2})]
        assert nova_builders.works(
            nova_builders.topology(*host), found, consume
        )

    def test_b16_in_stock_nova(self):
        assert (
            stock(nova_builders.topology(*self.HOST), self.isolated(), None)
            is None
        )
        assert (
            stock(nova_builders.topology(*self.HOST), self.emulator(), None)
            is None
        )


class TestB17:
    """Several servers of one request, the first of which isn't accounted."""

    def consumed(self):
        """Let three servers of a request take one host.

        :returns: the CPUs that each gets, and those in use on the host
        """
        request = nova_builders.spec(
            nova_builders.guest(
                pinned_cell(1, threads=ISOLATE), emulator_isolated=True
            )
        )
        # Half of the second of six cores is in use.
        host = nova_builders.host_state(
            'half a core in use',
            nova_builders.topology(legacy(cores=6, threads=2, pinned={2})),
        )
        taken = []
        for _ in range(2):
            host.consume_from_request(request)
            cell = request.numa_topology.cells[0]
            taken.append(
                sorted(
                    {
                        *nova_builders.pinning(cell).values(),
                        *cell.cpuset_reserved,
                    }
                )
            )
        return taken, sorted(host.numa_topology.cells[0].pinned_cpus)

    def test_b17_the_second_server_gets_other_cpus(self, our_fit):
        assert self.consumed() == (
            [[0, 4], [6, 8]],
            [0, 1, 2, 4, 5, 6, 7, 8, 9],
        )

    def test_b17_in_stock_nova(self):
        assert self.consumed() == ([[0, 3], [0, 3]], [2])
