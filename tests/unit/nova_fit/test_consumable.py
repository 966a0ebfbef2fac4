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


"""What our fit answers is what Nova can account for, and give back."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any

import hypothesis
from nova import objects
import nova.conf
from nova.virt import hardware as nova_hardware

from nova_numa_hugepages.core.model import CPUPolicy
from nova_numa_hugepages.core.model import GuestCell
from nova_numa_hugepages.core.model import HostTopology
from nova_numa_hugepages.core.model import Limits
from nova_numa_hugepages.core.model import Request
from nova_numa_hugepages.nova_fit import numa_fit
from tests.unit import nova_builders
from tests.unit.core.dice import examples
from tests.unit.core.dice import Focus
from tests.unit.core.strategies import Case
from tests.unit.core.strategies import cases

objects.register_all()


def host_object(host: HostTopology) -> objects.NUMATopology:
    return objects.NUMATopology(
        cells=[nova_builders.numa_cell(cell) for cell in host.cells]
    )


def guest_cell_object(number: int, guest: GuestCell) -> Any:
    pinned = guest.cpu_policy is not CPUPolicy.SHARED
    return objects.InstanceNUMACell(
        id=number,
        cpuset=set(guest.shared_vcpus),
        pcpuset=set(guest.dedicated_vcpus),
        memory=guest.memory_mib,
        pagesize=None if guest.page_size is None else int(guest.page_size),
        cpu_policy=guest.cpu_policy.value,
        cpu_thread_policy=guest.thread_policy.value if pinned else None,
    )


def guest_object(request: Request) -> objects.InstanceNUMATopology:
    return objects.InstanceNUMATopology(
        cells=[
            guest_cell_object(number, guest)
            for number, guest in enumerate(request.cells)
        ],
        emulator_threads_policy=(
            'isolate' if request.emulator_isolated else None
        ),
    )


def limits_object(
    limits: Limits | None, request: Request
) -> objects.NUMATopologyLimits | None:
    if limits is None:
        return None
    return objects.NUMATopologyLimits(
        cpu_allocation_ratio=limits.cpu_ratio,
        ram_allocation_ratio=limits.ram_ratio,
        network_metadata=objects.NetworkMetadata(
            physnets=set(request.physnets), tunneled=request.tunneled
        ),
    )


def used(host: objects.NUMATopology) -> list[tuple[Any, ...]]:
    """Read what Nova accounts for in each host cell."""
    return [
        (
            cell.id,
            cell.cpu_usage,
            cell.memory_usage,
            frozenset(cell.pinned_cpus),
            [(pool.size_kb, pool.used) for pool in cell.mempages],
        )
        for cell in host.cells
    ]


def taken_cpus(cell: objects.InstanceNUMACell) -> set[int]:
    """List the host CPUs that a fitted guest cell has for itself."""
    pins = cell.cpu_pinning or {}
    return set(pins.values()) | set(cell.cpuset_reserved or ())


@contextlib.contextmanager
def packing(pack: bool) -> Iterator[None]:
    name = 'packing_host_numa_cells_allocation_strategy'
    nova.conf.CONF.set_override(name, pack, group='compute')
    try:
        yield
    finally:
        nova.conf.CONF.clear_override(name, group='compute')


def assert_pins_inside(
    host: objects.NUMATopology, plan: objects.InstanceNUMATopology
) -> None:
    """Check that each guest cell has free CPUs of the cell that it names."""
    cells = {cell.id: cell for cell in host.cells}
    assert len({guest.id for guest in plan.cells}) == len(plan.cells)
    for guest in plan.cells:
        cpus = taken_cpus(guest)
        assert cpus <= cells[guest.id].pcpuset - cells[guest.id].pinned_cpus
        if guest.cpu_policy in ('dedicated', 'mixed'):
            pins = guest.cpu_pinning or {}
            assert set(pins) == guest.pcpuset
            assert len(set(pins.values())) == len(pins)
            assert not set(pins.values()) & set(guest.cpuset_reserved or ())
        else:
            assert not cpus


def assert_accounted(
    host: objects.NUMATopology, plan: objects.InstanceNUMATopology
) -> None:
    """Check that a host shows what a plan has taken of it."""
    cells = {cell.id: cell for cell in host.cells}
    for guest in plan.cells:
        assert taken_cpus(guest) <= cells[guest.id].pinned_cpus


def check(case: Case) -> None:
    # Given Nova's objects for a host and a guest
    host = host_object(case.host)
    guest = guest_object(case.request)
    limits = limits_object(case.limits, case.request)
    arguments = [host, guest] if limits is None else [host, guest, limits]
    before = [each.obj_to_primitive() for each in arguments]

    # When the guest is fitted on the host
    plan = numa_fit.numa_fit_instance_to_host(host, guest, {}, limits=limits)
    # Then the arguments are what they were
    assert [each.obj_to_primitive() for each in arguments] == before
    if plan is None:
        hypothesis.event('rejected')
        return
    hypothesis.event('fits')
    # And the guest has CPUs of the cells that the plan names
    assert_pins_inside(host, plan)

    # When Nova accounts for the plan
    after = nova_hardware.numa_usage_from_instance_numa(host, plan)
    # Then its CPUs are taken
    assert_accounted(after, plan)

    # When a second guest of the same kind is fitted on what is left
    second = numa_fit.numa_fit_instance_to_host(
        after, guest_object(case.request), {}, limits=limits
    )
    # Then it has other CPUs, and Nova can account for it too
    both = after
    if second is not None:
        hypothesis.event('fits twice')
        assert_pins_inside(after, second)
        both = nova_hardware.numa_usage_from_instance_numa(after, second)
        assert_accounted(both, second)
        both = nova_hardware.numa_usage_from_instance_numa(
            both, second, free=True
        )
    # And when both are gone, what they had is back
    assert used(both) == used(after)
    back = nova_hardware.numa_usage_from_instance_numa(both, plan, free=True)
    assert used(back) == used(host)


@examples(0.05)
@hypothesis.given(cases())
def test_plan_is_consumable(case: Case) -> None:
    with packing(case.strategy.pack):
        check(case)


@examples(0.03)
@hypothesis.given(cases(Focus.CPUS))
def test_plan_of_cpus_is_consumable(case: Case) -> None:
    with packing(case.strategy.pack):
        check(case)


@examples(0.02)
@hypothesis.given(cases(Focus.MEMORY))
def test_plan_of_pages_is_consumable(case: Case) -> None:
    with packing(case.strategy.pack):
        check(case)
