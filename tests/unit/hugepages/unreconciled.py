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

"""A host of one node, on which an instance runs on 20 pages."""

from __future__ import annotations

import pathlib

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages.reconcile_rules import Present
from tests.fixtures import kernel as fake_kernel
from tests.unit.hugepages import page_host

A, B = map(page_host.guest, (1, 2))


def make(path: pathlib.Path, **policy: object) -> page_host.Rig:
    """Make a host of one node, on which A runs on 20 pages."""
    rig = page_host.make(path, page_host.NODE, **policy)
    rig.pools.hold(A, page_host.needs((0, 20)))
    rig.run(A)
    return rig


def state(rig: page_host.Rig) -> tuple[set[tuple[str, str]], int]:
    """Get who holds pages for what, and how many pages there are."""
    return set(rig.held()), rig.total()


def refuse_node_1(event: fake_kernel.Event) -> None:
    """Let the pools of node 1 not be written."""
    if event.what.startswith('write_nr 1'):
        raise exception.PoolsReadOnly('no')


def apply(
    rig: page_host.Rig,
    *defined: str,
    starting: bool = False,
    quick: bool = True,
    done: list[str] | None = None,
) -> None:
    """Plan and apply with these domains."""
    present = Present(frozenset(defined), frozenset())
    with rig.pools.locked():
        plan = rig.reconciler.plan(present, starting=starting)
        rig.reconciler.apply(plan, quick=quick, done=done)
