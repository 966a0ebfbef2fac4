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

"""Scenario files of a simulation, read with their traces, and written."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import io
import pathlib
from typing import Any

import ruamel.yaml

from nova_numa_hugepages.core import units
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import trace
from nova_numa_hugepages.yamlfile import document
from nova_numa_hugepages.yamlfile import formats
from nova_numa_hugepages.yamlfile import validation
from nova_numa_hugepages.yamlfile.validation import Finding
from nova_numa_hugepages.yamlfile.validation import Path

_MAX_HOSTS = 20_000
_MAX_SEEDS = 1000

# Hosts that are read from a cloud may be larger than those of a demo.
_MAX_NODES = 64
_MAX_CORES = 1024
_MOST = 1_000_000_000

# Of a line that is written.
_COLUMNS = 79

_NAME = validation.text(
    r'^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,300}\Z',
    'a name of up to 300 printable characters',
)

_HOST = formats.host_schema(
    nodes=_MAX_NODES,
    cores=_MAX_CORES,
    # Its memory is in one of two units.
    required=('nodes', 'cores'),
    count=validation.integer(1, _MAX_HOSTS),
    threads=validation.one_or_list(validation.integer(1, 8), _MAX_NODES),
    memory_mib=validation.one_or_list(
        validation.integer(0, 1 << 24), _MAX_NODES
    ),
    cpu_allocation_ratio=validation.positive(1000),
    ram_allocation_ratio=validation.positive(1000),
    reserved_host_memory_mb=validation.integer(0, 1 << 30),
)

_ARRIVALS = validation.mapping(
    {
        'count': validation.integer(1, scenario.MAX_ARRIVALS),
        'per_hour': validation.positive(_MOST),
        'build_time': validation.integer(0, _MOST),
        'mean_lifetime': validation.positive(_MOST),
        'warm_up': validation.integer(0, scenario.MAX_ARRIVALS),
        'seeds': validation.one_or_list(
            validation.integer(0, (1 << 32) - 1),
            _MAX_SEEDS,
            one=validation.integer(1, _MAX_SEEDS),
        ),
    },
    required=('count',),
)

_DISTANCE = validation.text(
    r'^(1\d|[2-9]\d|1\d\d|2[0-4]\d|25[0-5])\Z', 'a distance from 10 to 255'
)
_PERCENT = validation.number(0, 100)
_USE = validation.mapping(
    {
        'idle_percent': validation.number(5, 95),
        'busy_percent': validation.two(_PERCENT),
        'busy_hours': validation.two(validation.positive(168)),
        'office_hours': validation.two(validation.number(0, 24)),
        'office_busy_percent': validation.number(0, 99),
        'other_busy_percent': validation.number(0, 99),
    },
    required=(),
)

SCHEMA = validation.mapping(
    {
        'hosts': validation.named(_HOST, _NAME),
        'flavors': validation.named(
            formats.flavor_schema(share=validation.positive(_MOST)), _NAME
        ),
        'arrivals': _ARRIVALS,
        'trace': _NAME,
        'use': _USE,
        'latency_ns': validation.named(
            validation.positive(1_000_000), _DISTANCE
        ),
    },
    required=('hosts', 'flavors'),
)


def example() -> str:
    """Return the scenario that comes with the package.

    :raises document.UnreadableError: if it isn't installed
    """
    return document.installed('simulate.yaml')


def load(path: pathlib.Path) -> scenario.Scenario:
    """Read a scenario file, and the trace that it names.

    If there are extra specs this imports Nova, which takes seconds, but only
    after the rest of the file was found valid.

    :param path: the file; the path of a trace is relative to its folder
    :raises: `document.FileError`, with every problem that was found in the
        file, or else in its trace
    """
    read = document.read(path, SCHEMA, _contradictions)
    data = read.data
    flavors = tuple(
        _flavor(name, flavor) for name, flavor in data['flavors'].items()
    )
    if refused := list(_refused(flavors)):
        raise read.error(refused)
    entries = _trace(path, read)
    trace_file = path.parent / data['trace'] if 'trace' in data else None
    return scenario.Scenario(
        file=str(path),
        hosts=tuple(
            host_type(name, host) for name, host in data['hosts'].items()
        ),
        flavors=flavors,
        arrivals=(
            _arrivals(data['arrivals'])
            if 'arrivals' in data
            else scenario.Arrivals(count=len(entries or ()))
        ),
        trace=entries,
        trace_file=trace_file,
        use=_use(data.get('use', {})),
        latency_ns={
            int(distance): float(ns)
            for distance, ns in data.get('latency_ns', {}).items()
        },
    )


def host_type(name: str, host: Mapping[str, Any]) -> scenario.HostType:
    """Return the hosts of a valid description."""
    distances = host.get('distances')
    return scenario.HostType(
        name=name,
        count=host.get('count', 1),
        nodes=formats.build_nodes(host),
        distances=distances and tuple(map(tuple, distances)),
        runs_us=host.get('compute') != 'stock',
        cpu_ratio=float(host.get('cpu_allocation_ratio', 1)),
        ram_ratio=float(host.get('ram_allocation_ratio', 1)),
        reserved_memory_mib=host.get('reserved_host_memory_mb', 0),
    )


def _flavor(name: str, flavor: Mapping[str, Any]) -> scenario.Flavor:
    return scenario.Flavor(
        name=name,
        vcpus=flavor['vcpus'],
        memory_mib=flavor['memory_mib'],
        extra_specs=formats.extra_specs(flavor),
        share=float(flavor.get('share', 1)),
    )


def _arrivals(arrivals: Mapping[str, Any]) -> scenario.Arrivals:
    lifetime = arrivals.get('mean_lifetime')
    seeds = arrivals.get('seeds', 1)
    return scenario.Arrivals(
        count=arrivals['count'],
        per_hour=float(arrivals.get('per_hour', 60)),
        build_s=float(arrivals.get('build_time', 0)),
        mean_lifetime=None if lifetime is None else float(lifetime),
        warm_up=arrivals.get('warm_up', 0),
        seeds=tuple(seeds if isinstance(seeds, list) else range(1, seeds + 1)),
    )


def _use(use: Mapping[str, Any]) -> scenario.Use:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in use.items()
    }
    return scenario.Use(**values)


def _refused(flavors: tuple[scenario.Flavor, ...]) -> Iterator[Finding]:
    """Find what Nova refuses of the flavors."""
    if not any(flavor.extra_specs for flavor in flavors):
        return
    # Imported late, so that other mistakes are reported at once.
    from nova_numa_hugepages.simulate import flavorcheck

    for flavor in flavors:
        for name, reason in flavorcheck.problems(flavor):
            path: Path = ('flavors', flavor.name, 'extra_specs')
            found = 'the extra specs'
            if name is not None:
                path = (*path, name)
                found = repr(flavor.extra_specs[name])
            yield path, f'Nova refuses {found}: {reason}'


def _trace(
    path: pathlib.Path, read: document.Document
) -> tuple[scenario.TraceEntry, ...] | None:
    name = read.data.get('trace')
    if name is None:
        return None
    try:
        return trace.read(path.parent / name, read.data['flavors'])
    except document.UnreadableError as error:
        finding = f'cannot read {name!r}: {error.reason}'
        raise read.error([(('trace',), finding)]) from error


def _contradictions(data: Any) -> Iterator[Finding]:
    """Find contradictions in a scenario that matches the schema."""
    for name, host in data['hosts'].items():
        path: Path = ('hosts', name)
        given = [key for key in ('memory_gib', 'memory_mib') if key in host]
        if len(given) == 1:
            found = [*formats.host_contradictions(host, path)]
            yield from found or _too_little(host, path)
        else:
            yield (
                path,
                f'found {" and ".join(given) or "no memory"}, expected either '
                "'memory_gib' or 'memory_mib'",
            )
    total = sum(host.get('count', 1) for host in data['hosts'].values())
    if total > _MAX_HOSTS:
        yield (
            ('hosts',),
            f'found {total} hosts in all, expected {_MAX_HOSTS} or fewer',
        )
    for name, value in data.get('use', {}).items():
        if isinstance(value, list) and value[0] > value[1]:
            yield (
                ('use', name),
                f'found {value[0]} and {value[1]}, expected the lower one '
                'first',
            )
    if 'arrivals' in data:
        yield from _arrivals_contradictions(data['arrivals'])
    elif 'trace' not in data:
        yield (), "expected 'arrivals' or 'trace', found neither"


def _too_little(host: Any, path: Path) -> Iterator[Finding]:
    """Find a host without CPUs or memory for guests.

    Some of its nodes may be without.
    """
    nodes = formats.build_nodes(host)
    if not any(node.cores for node in nodes):
        yield (*path, 'cores'), 'found no core on any node'
    memory_mib = sum(node.memory_mib for node in nodes)
    reserved_mib = host.get('reserved_host_memory_mb', 0)
    if reserved_mib >= memory_mib:
        yield (
            path,
            f'found {memory_mib} MiB of memory, expected more than the '
            f'{reserved_mib} MiB that are reserved',
        )


def _arrivals_contradictions(arrivals: Any) -> Iterator[Finding]:
    count, warm_up = arrivals['count'], arrivals.get('warm_up', 0)
    if warm_up >= count:
        yield (
            ('arrivals', 'warm_up'),
            f'found {warm_up}, expected fewer than the {count} arrivals',
        )
    seeds = arrivals.get('seeds')
    if isinstance(seeds, list):
        for index, seed in enumerate(seeds):
            if seed in seeds[:index]:
                yield (
                    ('arrivals', 'seeds', index),
                    f'found {seed} again, expected each seed once',
                )


def suggest_arrivals(
    hosts: Sequence[scenario.HostType], flavors: Sequence[scenario.Flavor]
) -> scenario.Arrivals:
    """Choose arrivals that fill a fleet nearly, and then some.

    In the mean a few less guests are there at a time than the fleet holds,
    once the first ones have begun to leave.
    """
    fits = scenario.holds(hosts, flavors)
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
            'hosts': {host.name: _host_document(host) for host in play.hosts},
            'flavors': {
                flavor.name: _flavor_document(flavor)
                for flavor in play.flavors
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


def _host_document(host: scenario.HostType) -> dict[str, Any]:
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
    if host.reserved_memory_mib:
        described['reserved_host_memory_mb'] = host.reserved_memory_mib
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


def _flavor_document(flavor: scenario.Flavor) -> dict[str, Any]:
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
