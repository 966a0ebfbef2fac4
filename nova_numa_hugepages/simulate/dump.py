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

"""Scenario files that are written, and that `load` reads back equal."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import io
from typing import Any

import ruamel.yaml

from nova_numa_hugepages.core import units
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.yamlfile import formats

_COLUMNS = 79


def suggest_arrivals(
    hosts: Sequence[scenario.HostType], flavors: Sequence[scenario.Flavor]
) -> scenario.Arrivals:
    """Choose arrivals that fill a fleet nearly, and then some.

    How many guests a fleet holds is guessed by its CPUs and its memory, as if
    they were all in one place. In the mean a few less are there at a time,
    once the first ones have begun to leave.
    """
    cpus = memory_mib = 0.0
    for host in hosts:
        for node in host.nodes:
            own = node.cores - node.shared_cores
            cpus += (
                host.count
                * node.threads
                * (own + node.shared_cores * host.cpu_ratio)
            )
            memory_mib += host.count * node.memory_mib * host.ram_ratio
    total = sum(flavor.share for flavor in flavors)
    fits = total * min(
        cpus / sum(flavor.share * flavor.vcpus for flavor in flavors),
        memory_mib
        / sum(flavor.share * flavor.memory_mib for flavor in flavors),
    )
    # A full fleet, and twice as many again who come as others leave.
    count = min(max(round(3 * fits), 2), scenario.MAX_ARRIVALS)
    return scenario.Arrivals(
        count=count,
        mean_lifetime=max(round(0.95 * fits), 1),
        warm_up=min(round(1.3 * fits), count // 2),
        seeds=(1, 2, 3),
    )


def to_yaml(play: scenario.Scenario) -> str:
    """Return the text of a scenario file, with arrivals as suggested."""
    writer: Any = ruamel.yaml.YAML(typ='safe', pure=True)
    writer.sort_base_mapping_type_on_output = False
    # The version they are read in: in 1.2 "no" would need no quotes.
    writer.version = (1, 1)
    writer.width = _COLUMNS
    # What is there twice is written in full.
    writer.representer.ignore_aliases = lambda _: True
    text = io.StringIO()
    writer.dump(
        {
            'hosts': {host.name: _host(host) for host in play.hosts},
            'flavors': {
                flavor.name: _flavor(flavor) for flavor in play.flavors
            },
            'arrivals': {
                'count': play.arrivals.count,
                'per_hour': _number(play.arrivals.per_hour),
                'mean_lifetime': play.arrivals.mean_lifetime,
                'warm_up': play.arrivals.warm_up,
                'seeds': len(play.arrivals.seeds),
            },
        },
        text,
    )
    return text.getvalue()


def _host(host: scenario.HostType) -> dict[str, Any]:
    nodes = host.nodes
    described: dict[str, Any] = {
        'count': host.count,
        'nodes': len(nodes),
        'cores': _one_or_each(node.cores for node in nodes),
        'threads': _one_or_each(node.threads for node in nodes),
        'shared_cores': _one_or_each(node.shared_cores for node in nodes),
    }
    gib = formats.MIB_PER_GIB
    if all(node.memory_mib % gib == 0 for node in nodes):
        described['memory_gib'] = _one_or_each(
            node.memory_mib // gib for node in nodes
        )
    else:
        described['memory_mib'] = _one_or_each(
            node.memory_mib for node in nodes
        )
    for key, pools in (
        ('pages', [node.pages for node in nodes]),
        ('reserved', [node.reserved for node in nodes]),
    ):
        if any(pools):
            described[key] = _pages(pools)
    if all(node.socket is not None for node in nodes):
        described['sockets'] = [node.socket for node in nodes]
    if host.distances is not None:
        described['distances'] = [list(row) for row in host.distances]
    return {
        **described,
        'compute': 'ours' if host.runs_us else 'stock',
        'cpu_allocation_ratio': _number(host.cpu_ratio),
        'ram_allocation_ratio': _number(host.ram_ratio),
    }


def _pages(pools: Sequence[Mapping[int, int]]) -> dict[str, Any]:
    sizes = sorted({size for pool in pools for size in pool})
    return {
        units.format_kib(size).replace(' ', ''): _one_or_each(
            pool.get(size, 0) for pool in pools
        )
        for size in sizes
    }


def _one_or_each(values: Iterable[int]) -> int | list[int]:
    every = list(values)
    return every[0] if len(set(every)) == 1 else every


def _flavor(flavor: scenario.Flavor) -> dict[str, Any]:
    described: dict[str, Any] = {
        'vcpus': flavor.vcpus,
        'memory_mib': flavor.memory_mib,
        'share': _number(flavor.share),
    }
    if flavor.extra_specs:
        described['extra_specs'] = dict(flavor.extra_specs)
    return described


def _number(number: float) -> int | float:
    return int(number) if number == int(number) else number
