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

"""Read the scenario file of a simulation."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

from nova_numa_hugepages.simulate import problems
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import trace
from nova_numa_hugepages.yamlfile import errors
from nova_numa_hugepages.yamlfile import flavor_format
from nova_numa_hugepages.yamlfile import host_format
from nova_numa_hugepages.yamlfile import lines
from nova_numa_hugepages.yamlfile import reading
from nova_numa_hugepages.yamlfile import shape


def load(path: pathlib.Path) -> scenario.Scenario:
    """Read a scenario file, and the trace that it names.

    If there are extra specs this imports Nova, which takes seconds, but only
    once the rest of the file is right.

    :param path: the file; a trace is looked for beside it
    :raises: `errors.FileError`, with every problem that was found in the
        file, or else in its trace
    """
    document = reading.document(path)
    if found := problems.find(document):
        raise errors.FileError(str(path), found)
    data = document.data
    known = tuple(
        _flavor(name, flavor) for name, flavor in data['flavors'].items()
    )
    if found := _refused(document, known):
        raise errors.FileError(str(path), found)
    entries = _trace(path, document)
    return scenario.Scenario(
        file=str(path),
        hosts=tuple(
            _host_type(name, host) for name, host in data['hosts'].items()
        ),
        flavors=known,
        arrivals=(
            _arrivals(data['arrivals'])
            if 'arrivals' in data
            else scenario.Arrivals(count=len(entries or ()))
        ),
        trace=entries,
    )


def _host_type(name: str, host: Mapping[str, Any]) -> scenario.HostType:
    return scenario.HostType(
        name=name,
        count=host.get('count', 1),
        nodes=host_format.build_nodes(host),
        distances=host_format.distances(host),
        runs_us=host_format.runs_us(host),
        cpu_ratio=float(host.get('cpu_allocation_ratio', 1)),
        ram_ratio=float(host.get('ram_allocation_ratio', 1)),
    )


def _flavor(name: str, flavor: Mapping[str, Any]) -> scenario.Flavor:
    return scenario.Flavor(
        name=name,
        vcpus=flavor['vcpus'],
        memory_mib=flavor['memory_mib'],
        extra_specs=flavor_format.extra_specs(flavor),
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


def _refused(
    document: lines.Document, known: tuple[scenario.Flavor, ...]
) -> list[tuple[int, str]]:
    """Find what Nova refuses of the flavors."""
    if not any(flavor.extra_specs for flavor in known):
        return []
    # Not before, so that other mistakes are told at once.
    from nova_numa_hugepages.simulate import flavorcheck

    found = []
    for flavor in known:
        for name, reason in flavorcheck.problems(flavor):
            path: lines.Path = ('flavors', flavor.name, 'extra_specs')
            shown = 'these together'
            if name is not None:
                path = (*path, name)
                shown = shape.show(flavor.extra_specs[name])
            found.append(
                (
                    document.line(path),
                    f'{lines.where(path)}found {shown}, expected what Nova '
                    f'takes: {reason}',
                )
            )
    return sorted(found)


def _trace(
    path: pathlib.Path, document: lines.Document
) -> tuple[scenario.TraceEntry, ...] | None:
    name = document.data.get('trace')
    if name is None:
        return None
    try:
        return trace.read(path.parent / name, document.data['flavors'])
    except errors.UnreadableError as error:
        problem = (
            f'trace: found {name!r}, expected a file that can be read: '
            f'{error.reason}'
        )
        raise errors.FileError(
            str(path), [(document.line(('trace',)), problem)]
        ) from error
