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

"""The metrics of a host."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from prometheus_client import exposition as prometheus_exposition
from prometheus_client import parser
from prometheus_client import registry
import pytest

from nova_numa_hugepages.monitor import exposition
from nova_numa_hugepages.monitor import insight
from nova_numa_hugepages.monitor import insight_metrics
from nova_numa_hugepages.monitor import metrics
from nova_numa_hugepages.monitor.metric import Metric
from nova_numa_hugepages.monitor.metric import PREFIX
from tests.unit.hugepages import page_host
from tests.unit.monitor import watched
from tests.unit.monitor.watched import A

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def host(tmp_path: pathlib.Path) -> watched.Watched:
    return watched.Watched(tmp_path, page_host.grown(40), page_host.grown(40))


def text(host: watched.Watched) -> str:
    """Write the metrics of a host down."""
    found = exposition.SampleMetrics(list)
    sample = host.look()
    found.seen = insight.Seen(sample, host.analyst().look(sample))
    exporter = registry.CollectorRegistry()
    exporter.register(found)
    return prometheus_exposition.generate_latest(exporter).decode()


def read(host: watched.Watched) -> Values:
    """Read the metrics of a host as Prometheus does."""
    return {
        (
            sample.name.removeprefix(PREFIX),
            tuple(sorted(sample.labels.items())),
        ): sample.value
        for family in parser.text_string_to_metric_families(text(host))
        for sample in family.samples
    }


def pool(node: int) -> tuple[tuple[str, str], ...]:
    return ('node', str(node)), ('page_size', '2MiB')


def test_an_instance_has_the_three_numbers(host: watched.Watched) -> None:
    host.spawn(A, (0, 10), elsewhere=[(0, 7), (1, 3)])
    host.libvirt.values[watched.NAME] = watched.STATS
    found = read(host)
    here, there = (
        tuple(sorted((*pool(node), ('resource', A)))) for node in (0, 1)
    )
    own = (('resource', A),)
    assert found['instance_promised_pages', here] == 10
    assert found['instance_in_place_pages', here] == 7
    assert found['instance_in_place_pages', there] == 3
    assert found['instance_astray_pages', there] == 3
    assert found['instance_absent_pages', here] == 3
    assert found['instance_guest_usable_bytes', own] == 400 * 1024
    assert found['instance_guest_swap_out_bytes_total', own] == 8 * 1024
    assert found['instance_guest_major_faults_total', own] == 9
    assert found['instance_guest_age_seconds', own] == 10
    info = (
        ('domain', watched.NAME),
        ('flavor', 'db.large'),
        ('name', 'database'),
        ('project', 'p1'),
        ('resource', A),
    )
    assert found['instance_info', info] == 1


def test_an_elastic_instance_has_its_base_and_its_ceiling(
    tmp_path: pathlib.Path,
) -> None:
    host = watched.Watched(
        tmp_path, page_host.grown(40), lend_ratio=1.5, dynamic=False
    )
    host.spawn_elastic(A, 15, 10, 40)
    host.spawn(watched.B, (0, 10))
    found = read(host)
    own = tuple(sorted((*pool(0), ('resource', A))))
    assert found['instance_base_pages', own] == 10
    assert found['instance_promised_pages', own] == 15
    assert found['instance_ceiling_pages', own] == 40
    other = tuple(sorted((*pool(0), ('resource', watched.B))))
    assert ('instance_ceiling_pages', other) not in found
    assert found['pool_lendable_pages', pool(0)] == 20
    # It may want 25, and 15 are free.
    assert found['pool_lent_pages', pool(0)] == 10


def test_a_pool_has_who_has_its_pages(host: watched.Watched) -> None:
    host.spawn(A, (0, 10))
    host.rig.pools.hold(watched.B, page_host.needs((0, 5)))
    host.kernel.take({page_host.pool(0): 4})
    found = read(host)
    assert {
        name: found[f'pool_{name}_pages', pool(0)]
        for name in ('free', 'held', 'promised', 'available', 'others')
    } == {
        'free': 26,
        'held': 15,
        'promised': 5,
        'available': 21,
        'others': 4,
    }
    assert found['pool_pages', pool(0)] == 40
    user = ('cgroup', '/system.slice/ovs-vswitchd.service')
    assert found['others_pages', (user, *pool(0))] == 4


def test_without_a_ledger_what_is_held_is_not_known(
    host: watched.Watched, tmp_path: pathlib.Path
) -> None:
    host.spawn(A, (0, 10))
    host.collector = host.watch(tmp_path / 'none.sqlite')
    found = read(host)
    assert ('pool_held_pages', pool(0)) not in found
    assert found['pool_free_pages', pool(0)] == 30
    assert found['monitor_ledger', ()] == 0


def test_names_that_users_choose_are_escaped(host: watched.Watched) -> None:
    host.spawn(A, (0, 10))
    host.libvirt.domains[A] = watched.domain(
        *page_host.needs((0, 10)), name='a&quot;b\\c&lt;b&gt;'
    )
    names = [
        dict(labels)['name']
        for name, labels in read(host)
        if name == 'instance_info'
    ]
    assert names == ['a"b\\c<b>']


def test_there_is_nothing_before_the_first_sample() -> None:
    metrics = exposition.SampleMetrics(lambda: None)
    assert list(metrics.collect()) == []


ALL: list[Metric[Any]] = [*metrics.METRICS, *insight_metrics.INSIGHT_METRICS]


@pytest.mark.parametrize('metric', ALL, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: Metric[Any]) -> None:
    assert re.fullmatch('[a-z_]+', metric.name)
    assert metric.help.endswith('.')
    assert 'kib' not in metric.name
    if metric.is_counter:
        assert re.search(
            '(allocations|bytes|compactions|faults|seconds|stalls)_total$',
            metric.name,
        )


def test_each_name_is_there_once() -> None:
    names = [metric.name for metric in ALL]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    'path', ['grafana/nova-numa-hugepages.json', 'prometheus/rules.yml']
)
def test_what_is_asked_for_is_there(path: str) -> None:
    folder = pathlib.Path(__file__).parents[3] / 'etc/nova-numa-hugepages'
    asked = set(re.findall(rf'{PREFIX}\w+', (folder / path).read_text()))
    known = {f'{PREFIX}{metric.name}' for metric in ALL}
    known |= {
        f'{PREFIX}{name}'
        for name in (
            'alarm',
            'monitor_failures_total',
            'monitor_sample_seconds',
        )
    }
    assert asked - known == set()
