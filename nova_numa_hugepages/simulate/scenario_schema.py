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

"""The format of scenario files of a simulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nova_numa_hugepages.yamlfile import flavor_format
from nova_numa_hugepages.yamlfile import host_format
from nova_numa_hugepages.yamlfile import validation
from nova_numa_hugepages.yamlfile.validation import Finding
from nova_numa_hugepages.yamlfile.validation import Path

MAX_HOSTS = 20_000
MAX_ARRIVALS = 1_000_000
MAX_SEEDS = 1000

# Hosts that are read from a cloud may be larger than those of a demo.
_MAX_NODES = 64
_MAX_CORES = 1024
_MOST = 1_000_000_000

_NAME = validation.text(
    r'^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,300}\Z',
    'a name of up to 300 printable characters',
)

_HOST = host_format.schema(
    nodes=_MAX_NODES,
    cores=_MAX_CORES,
    # Its memory is in one of two units.
    required=('nodes', 'cores'),
    count=validation.integer(1, MAX_HOSTS),
    threads=validation.one_or_list(validation.integer(1, 8), _MAX_NODES),
    memory_mib=validation.one_or_list(
        validation.integer(1, 1 << 24), _MAX_NODES
    ),
    cpu_allocation_ratio=validation.positive(1000),
    ram_allocation_ratio=validation.positive(1000),
)

_ARRIVALS = validation.mapping(
    {
        'count': validation.integer(1, MAX_ARRIVALS),
        'per_hour': validation.positive(_MOST),
        'build_time': validation.integer(0, _MOST),
        'mean_lifetime': validation.positive(_MOST),
        'warm_up': validation.integer(0, MAX_ARRIVALS),
        'seeds': validation.one_or_list(
            validation.integer(0, (1 << 32) - 1),
            MAX_SEEDS,
            one=validation.integer(1, MAX_SEEDS),
        ),
    },
    required=('count',),
)

SCENARIO = validation.mapping(
    {
        'hosts': validation.named(_HOST, _NAME),
        'flavors': validation.named(
            flavor_format.schema(share=validation.positive(_MOST)), _NAME
        ),
        'arrivals': _ARRIVALS,
        'trace': _NAME,
    },
    required=('hosts', 'flavors'),
)


def contradictions(data: Any) -> Iterator[Finding]:
    """Find contradictions in a scenario that matches the schema."""
    for name, host in data['hosts'].items():
        path: Path = ('hosts', name)
        given = [key for key in ('memory_gib', 'memory_mib') if key in host]
        if len(given) == 1:
            yield from host_format.contradictions(host, path)
        else:
            yield (
                path,
                f'found {" and ".join(given) or "no memory"}, expected either '
                "'memory_gib' or 'memory_mib'",
            )
    total = sum(host.get('count', 1) for host in data['hosts'].values())
    if total > MAX_HOSTS:
        yield (
            ('hosts',),
            f'found {total} hosts in all, expected {MAX_HOSTS} or fewer',
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
