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

"""Fleet and flavors read from the databases of a real Nova."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import io
import logging
import pathlib
from typing import Any

from nova import context as nova_context
from nova import objects
from nova.db.main import api as db
from oslo_utils import uuidutils
import pytest
from rich import console as rich

from nova_numa_hugepages.cmd import simulate
from nova_numa_hugepages.simulate import from_nova
from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import scenario_file
from tests.fixtures import cloud as embedded
from tests.functional import conftest

MIB_2 = 2048
GIB_1 = 1024 * 1024

NODE = embedded.NodeSpec(
    cores=4,
    memory_mib=8192,
    pages={MIB_2: 1024, GIB_1: 1},
    reserved={MIB_2: 24},
    shared_cores=1,
)

HOSTS = (
    embedded.HostSpec('twin-1', (NODE, NODE), distances=((10, 21), (21, 10))),
    embedded.HostSpec('twin-2', (NODE, NODE), distances=((10, 21), (21, 10))),
    embedded.HostSpec(
        'old',
        (
            embedded.NodeSpec(
                cores=8, threads=1, memory_mib=4000, pages={MIB_2: 512}
            ),
        ),
        runs_us=False,
    ),
)

# What `HOSTS` are read as; ratios and reserved memory are Nova's defaults.
OLD = scenario.HostType(
    name='type1 (old)',
    count=1,
    nodes=(
        scenario.HostNode(
            cores=8,
            threads=1,
            shared_cores=0,
            memory_mib=3968,
            pages={MIB_2: 512},
            reserved={},
            socket=0,
        ),
    ),
    distances=None,
    runs_us=False,
    cpu_ratio=4.0,
    ram_ratio=1.0,
    reserved_memory_mib=512,
)
TWIN = scenario.HostType(
    name='type2 (twin-1 and 1 more)',
    count=2,
    nodes=tuple(
        scenario.HostNode(
            cores=4,
            threads=2,
            shared_cores=1,
            memory_mib=8192,
            pages={MIB_2: 1024, GIB_1: 1},
            reserved={MIB_2: 24},
            socket=socket,
        )
        for socket in (0, 1)
    ),
    distances=((10, 21), (21, 10)),
    runs_us=True,
    cpu_ratio=4.0,
    ram_ratio=1.0,
    reserved_memory_mib=512,
)

PINNED = {'hw:cpu_policy': 'dedicated', 'hw:mem_page_size': '2MB'}


@pytest.fixture
def admin() -> nova_context.RequestContext:
    return nova_context.get_admin_context()


@pytest.fixture
def flavors(cloud: embedded.EmbeddedCloud) -> Iterator[None]:
    """Two flavors that exist from the start."""
    ids = [
        cloud.api.create_flavor('big', vcpus=8, ram_mib=4096),
        cloud.api.create_flavor(
            'pinned', vcpus=2, ram_mib=1024, extra_specs=PINNED
        ),
    ]
    yield
    for flavor_id in ids:
        cloud.api.delete_flavor(flavor_id)


@contextlib.contextmanager
def first_cell(
    admin: nova_context.RequestContext,
) -> Iterator[nova_context.RequestContext]:
    """Target the cell of the hosts."""
    [cell] = [
        cell
        for cell in objects.CellMappingList.get_all(admin)
        if not cell.is_cell0()
    ]
    with nova_context.target_cell(admin, cell) as cell_context:
        yield cell_context


def compute_node(
    admin: nova_context.RequestContext, host: str
) -> dict[str, Any]:
    """Get the row of a compute node, as it is in the database."""
    with first_cell(admin) as cell_context:
        [row] = [
            row
            for row in db.compute_node_get_all(cell_context)
            if row['host'] == host
        ]
    return row


def update(
    admin: nova_context.RequestContext, host: str, **values: Any
) -> None:
    """Change the row of a compute node."""
    row = compute_node(admin, host)
    with first_cell(admin) as cell_context:
        db.compute_node_update(cell_context, row['id'], values)


@pytest.mark.usefixtures('flavors')
def test_empty_cloud_is_read(admin: nova_context.RequestContext) -> None:
    # Given a cloud of two hosts alike and one other, without guests,
    # when it is read,
    hosts, flavors = from_nova.read(admin)

    # then the hosts are there as they are built, those alike together,
    assert hosts == (OLD, TWIN)
    # and all flavors, asked for equally often.
    assert flavors == (
        scenario.Flavor('big', 8, 4096, {}, share=1.0),
        scenario.Flavor('pinned', 2, 1024, PINNED, share=1.0),
    )


@pytest.mark.usefixtures('flavors')
def test_guests_are_shares_and_take_nothing(
    admin: nova_context.RequestContext, boot: conftest.Boot
) -> None:
    # Given three guests of a flavor, and none of two others,
    servers = boot(vcpus=1, ram_mib=512, specs=PINNED, count=3)
    assert {server['status'] for server in servers} == {'ACTIVE'}

    # when the cloud is read,
    hosts, flavors = from_nova.read(admin)

    # then the hosts are as if they were empty,
    assert hosts == (OLD, TWIN)
    # and the flavor is the only one that is asked for.
    assert flavors == (scenario.Flavor('flavor-0', 1, 512, PINNED, share=3.0),)


@pytest.mark.usefixtures('flavors')
def test_what_was_read_can_be_saved(
    admin: nova_context.RequestContext, tmp_path: pathlib.Path
) -> None:
    # Given hosts and flavors that were read,
    hosts, flavors = from_nova.read(admin)

    # when they are written and loaded,
    path = tmp_path / 'scenario.yaml'
    arrivals = scenario_file.suggest_arrivals(hosts, flavors)
    play = scenario.Scenario(str(path), hosts, flavors, arrivals)
    path.write_text(scenario_file.to_yaml(play), encoding='utf-8')

    # then they are the same.
    assert scenario_file.load(path) == play


@pytest.mark.usefixtures('flavors')
def test_the_command_reads_and_saves(tmp_path: pathlib.Path) -> None:
    # Given a cloud that the command reads,
    notes = rich.Console(file=io.StringIO(), width=40)
    play = simulate._read_cloud(notes, seeds=2)
    assert (play.file, play.hosts) == ('the cloud', (OLD, TWIN))
    assert play.arrivals.seeds == (1, 2)

    # when it saves what it has read,
    path = tmp_path / 'with a name that is longer than a line.yaml'
    code = simulate._save(play, path, notes)

    # then that is told, and what is loaded is the same.
    assert code == 0
    assert notes.file.getvalue() == f'Written: {path}\n'
    assert scenario_file.load(path) == dataclasses.replace(
        play, file=str(path)
    )


@pytest.mark.usefixtures('flavors')
def test_memory_that_is_reserved_is_read(
    admin: nova_context.RequestContext, boot: conftest.Boot
) -> None:
    # Given a host that keeps memory for itself, which is all the same for two
    # alike, with guests somewhere and one of them on the move,
    boot(vcpus=1, ram_mib=512, specs=PINNED, count=2)
    before = {
        name: compute_node(admin, name)['memory_mb_used']
        for name in ('old', 'twin-1', 'twin-2')
    }
    for name, more in (('old', 600), ('twin-1', 700), ('twin-2', 1212)):
        update(admin, name, memory_mb_used=before[name] + more)

    # when the cloud is read,
    empty = {
        name: from_nova._reserved_mib(compute_node(admin, name), {})
        for name in before
    }
    hosts, _ = from_nova.read(admin)

    # then what guests have is not counted, and the least one holds.
    base = [host.reserved_memory_mib for host in (OLD, TWIN)]
    assert [host.reserved_memory_mib for host in hosts] == [
        base[0] + 600,
        base[1] + 700,
    ]
    assert sum(empty.values()) > 600 + 700 + 1212
    for name, used in before.items():
        update(admin, name, memory_mb_used=used)


@pytest.mark.usefixtures('flavors')
def test_nothing_is_written(admin: nova_context.RequestContext) -> None:
    # Given a host whose ratio is left to Nova's option, which Nova writes
    # into the database when it reads it,
    update(admin, 'old', cpu_allocation_ratio=0.0)
    before = compute_node(admin, 'old')

    # when the cloud is read,
    hosts, _ = from_nova.read(admin)

    # then the host has the ratio of the option, and the database is as it was.
    assert hosts == (OLD, TWIN)
    assert compute_node(admin, 'old') == before
    update(admin, 'old', cpu_allocation_ratio=4.0)


@pytest.mark.usefixtures('flavors')
@pytest.mark.parametrize(
    ('column', 'value', 'warning'),
    [
        pytest.param(
            'numa_topology',
            None,
            'old: it reports no NUMA nodes and is left out',
            id='no-nodes',
        ),
        pytest.param(
            'numa_topology',
            '{"nova_object.name": "Elephant"',
            "old: its NUMA nodes cannot be read (Expecting ',' delimiter: "
            'line 1 column 32 (char 31)); it is left out',
            id='nodes-that-are-no-json',
        ),
    ],
)
def test_host_that_cannot_be_simulated_is_left_out(
    admin: nova_context.RequestContext,
    caplog: pytest.LogCaptureFixture,
    column: str,
    value: str | None,
    warning: str,
) -> None:
    # Given a host that does not report its nodes,
    before = compute_node(admin, 'old')[column]
    update(admin, 'old', **{column: value})

    # when the cloud is read,
    with caplog.at_level(logging.WARNING, from_nova.__name__):
        hosts, _ = from_nova.read(admin)

    # then the others are there, and a warning names it.
    assert [host.name for host in hosts] == ['type1 (twin-1 and 1 more)']
    assert caplog.messages == [warning]
    update(admin, 'old', **{column: before})


def test_flavor_that_nova_refuses_is_left_out(
    cloud: embedded.EmbeddedCloud,
    admin: nova_context.RequestContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given a flavor that the scheduler takes for no guest, beside a good one,
    good = cloud.api.create_flavor('good', vcpus=2, ram_mib=512)
    bad = cloud.api.create_flavor(
        'bad', vcpus=3, ram_mib=512, extra_specs={'hw:numa_nodes': '2'}
    )

    # when the cloud is read,
    with caplog.at_level(logging.WARNING, from_nova.__name__):
        _, flavors = from_nova.read(admin)

    # then the good one is there, and a warning tells of the other.
    assert flavors == (scenario.Flavor('good', 2, 512, {}),)
    assert caplog.messages == [
        'The flavor bad is left out, as Nova refuses its hw:numa_nodes: '
        'Instance CPUs and/or memory cannot be evenly distributed across '
        'instance NUMA nodes. Explicit assignment of CPUs and memory to nodes '
        'is required'
    ]
    cloud.api.delete_flavor(good)
    cloud.api.delete_flavor(bad)


@pytest.mark.usefixtures('cloud')
def test_cloud_without_flavors(admin: nova_context.RequestContext) -> None:
    # Given a cloud without flavors, when it is read,
    with pytest.raises(from_nova.CloudError) as error:
        from_nova.read(admin)

    # then that is an error.
    assert str(error.value) == 'there is no flavor to simulate'


@pytest.mark.usefixtures('flavors')
def test_cell_that_does_not_answer_is_named(
    admin: nova_context.RequestContext, tmp_path: pathlib.Path
) -> None:
    # Given a cell whose database is not there,
    cell = objects.CellMapping(
        admin,
        uuid=uuidutils.generate_uuid(),
        name='far-away',
        transport_url='none:///',
        database_connection=f'sqlite:///{tmp_path}/none/there.sqlite',
    )
    cell.create()

    # when the cloud is read,
    try:
        with pytest.raises(from_nova.CloudError) as error:
            from_nova.read(admin)
    finally:
        cell.destroy()

    # then the error names it, and no half of the cloud is given.
    assert str(error.value).startswith(
        'the database of the cell far-away cannot be read: '
    )
