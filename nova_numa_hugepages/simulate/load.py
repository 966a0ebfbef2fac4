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

"""Scenario files of a simulation, and the traces that they name."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import pathlib
from typing import Any

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
        validation.integer(1, 1 << 24), _MAX_NODES
    ),
    cpu_allocation_ratio=validation.positive(1000),
    ram_allocation_ratio=validation.positive(1000),
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

_SCENARIO = validation.mapping(
    {
        'hosts': validation.named(_HOST, _NAME),
        'flavors': validation.named(
            formats.flavor_schema(share=validation.positive(_MOST)), _NAME
        ),
        'arrivals': _ARRIVALS,
        'trace': _NAME,
    },
    required=('hosts', 'flavors'),
)


def load(path: pathlib.Path) -> scenario.Scenario:
    """Read a scenario file, and the trace that it names.

    If there are extra specs this imports Nova, which takes seconds, but only
    after the rest of the file was found valid.

    :param path: the file; the path of a trace is relative to its folder
    :raises: `document.FileError`, with every problem that was found in the
        file, or else in its trace
    """
    read = document.read(path, _SCENARIO, _contradictions)
    data = read.data
    flavors = tuple(
        _flavor(name, flavor) for name, flavor in data['flavors'].items()
    )
    if refused := list(_refused(flavors)):
        raise read.error(refused)
    entries = _trace(path, read)
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
            yield from formats.host_contradictions(host, path)
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
    if 'arrivals' in data:
        yield from _arrivals_contradictions(data['arrivals'])
    elif 'trace' not in data:
        yield (), "expected 'arrivals' or 'trace', found neither"


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
