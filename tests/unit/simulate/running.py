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


"""Short ways to run a policy in this process."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses

from nova import conf as nova_conf
from nova import objects

from nova_numa_hugepages import conf as package_conf
from nova_numa_hugepages.nova_fit import numa_fit
from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate.engine import Engine
from tests.unit.simulate.scenes import flavor
from tests.unit.simulate.scenes import host
from tests.unit.simulate.scenes import node
from tests.unit.simulate.scenes import pinned
from tests.unit.simulate.scenes import play
from tests.unit.simulate.simulated import FILL

GIB_1 = 1024 * 1024

# Guests of one and of two cells, with pages and without, and one that floats,
# on four hosts of two cells.
NODE = node(
    8, 16384, {GIB_1: 8, 2048: 2048}, shared_cores=2, reserved={GIB_1: 1}
)
MIXED = play(
    [host(NODE, NODE, count=4, cpu_ratio=2.0)],
    [
        pinned('gold', 2, 2048, share=3, mem_page_size='1GB'),
        pinned('twin', 4, 2048, share=2, mem_page_size='2MB', numa_nodes=2),
        pinned('wide', 6, 1024),
        flavor('floats', 2, 1024),
        flavor('cells', 2, 1024, numa_nodes=2, mem_page_size='small'),
        flavor('mixed', 3, 1024, cpu_policy='mixed', cpu_dedicated_mask='1-2'),
    ],
)


@contextlib.contextmanager
def nova() -> Iterator[None]:
    """Set up the Nova of this process, and put its fit back afterwards."""
    objects.register_all()
    package_conf.register_opts(nova_conf.CONF)
    try:
        yield
    finally:
        numa_fit.uninstall()


def drawn(
    scene: scenario.Scenario, count: int, **fields: object
) -> scenario.Scenario:
    """Let so many guests arrive."""
    return dataclasses.replace(
        scene, arrivals=scenario.Arrivals(count, **fields)
    )


def traced(
    scene: scenario.Scenario, *entries: tuple[float, str, float | None]
) -> scenario.Scenario:
    return dataclasses.replace(
        scene, trace=tuple(scenario.TraceEntry(*entry) for entry in entries)
    )


def engine(
    scene: scenario.Scenario,
    policy: results.PlacementPolicy,
    phase: results.Phase = FILL,
    seed: int = 1,
    **fields: scenario.Learning,
) -> Engine:
    return Engine(scenario.Task(scene, policy, phase, seed, **fields))


def run(*args: object, **fields: scenario.Learning) -> results.Run:
    """Run a task; without how long it took."""
    found = engine(*args, **fields).run()
    return dataclasses.replace(found, seconds=0.0)


def state(running: Engine) -> list[object]:
    """Return all that is used of the hosts, as Nova and Placement count it."""
    free = running._placement._free.items()
    return [
        (
            one.host,
            one.free_ram_mb,
            one.vcpus_used,
            one.num_instances,
            one.num_io_ops,
            {name: amounts[place] for name, amounts in free},
            [
                (
                    cell.pinned_cpus.copy(),
                    cell.cpu_usage,
                    cell.memory_usage,
                    [(pool.size_kb, pool.used) for pool in cell.mempages],
                )
                for cell in one.numa_topology.cells
            ],
        )
        for place, one in enumerate(running._hosts)
    ]


def arrivals(scene: scenario.Scenario, seed: int, count: int) -> list[str]:
    found = scenario.arrivals(scene, FILL, seed)
    return [next(found).flavor for _ in range(count)]
