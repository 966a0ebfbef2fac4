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

"""The Tempest plugin: its entry point, its options and its tests."""

import importlib
import importlib.metadata
import pathlib
import pkgutil
import subprocess
import tomllib
import types
import unittest
import uuid

from oslo_config import cfg
import pytest

_WHY = 'tempest is not installed: pip install .[tempest]'

tempest_config = pytest.importorskip('tempest.config', reason=_WHY)
exceptions = pytest.importorskip('tempest.lib.exceptions', reason=_WHY)
plugins = pytest.importorskip('tempest.test_discover.plugins', reason=_WHY)

_PACKAGE = 'nova_numa_hugepages.tempest'

config = importlib.import_module(f'{_PACKAGE}.config')
host = importlib.import_module(f'{_PACKAGE}.host')
plugin = importlib.import_module(f'{_PACKAGE}.plugin')
plugin_tests = importlib.import_module(f'{_PACKAGE}.tests')
base = importlib.import_module(f'{_PACKAGE}.tests.base')
lifecycle = importlib.import_module(f'{_PACKAGE}.tests.lifecycle')
whitebox = importlib.import_module(f'{_PACKAGE}.tests.whitebox.base')

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(
        plugin_tests.__path__, f'{plugin_tests.__name__}.'
    )
)
TEST_MODULES = [
    name for name in MODULES if name.rpartition('.')[2].startswith('test_')
]
CLASSES = [
    value
    for name in TEST_MODULES
    for value in vars(importlib.import_module(name)).values()
    if isinstance(value, type)
    and issubclass(value, base.BaseTest)
    and value.__module__ == name
]


def methods_of(cls):
    """Get the tests of a class, with those that it inherits."""
    names = unittest.defaultTestLoader.getTestCaseNames(cls)
    return [getattr(cls, name) for name in names]


def in_full(cls):
    """Name a class, for the id of a test."""
    return f'{cls.__module__.rpartition("tests.")[2]}.{cls.__name__}'


@pytest.fixture
def conf():
    """Tempest's options and ours in an object of their own."""
    made = cfg.ConfigOpts()
    for group, opts in tempest_config._opts:
        tempest_config.register_opt_group(made, group, opts)
    config.register_opts(made)
    made([])
    return made


@pytest.fixture
def tempest_conf(conf, monkeypatch):
    """Give Tempest a cloud on which every test may run.

    :returns: sets an option of a group
    """

    changed = []

    def override(group, **values):
        for name, value in values.items():
            conf.set_override(name, value, group=group)
            changed.append((name, group))

    groups = {
        name.replace('-', '_'): conf[name] for name in list(conf._groups)
    }
    monkeypatch.setattr(
        tempest_config.CONF,
        '_config',
        types.SimpleNamespace(**groups),
        raising=False,
    )
    override('compute', min_microversion='2.1', max_microversion='latest')
    override(
        config.NAME,
        host_nodes=4,
        distances_known=True,
        fill_servers=7,
        fill_cell_memory_mib=512,
        whitebox=True,
        computes={'node-1': ''},
    )
    yield override
    # The groups are those of Tempest, and keep what was set.
    for name, group in changed:
        conf.clear_override(name, group=group)


def test_tempest_finds_the_plugin():
    with open(ROOT / 'pyproject.toml', 'rb') as file:
        project = tomllib.load(file)['project']
    [(name, value)] = project['entry-points']['tempest.test_plugins'].items()

    loaded = importlib.metadata.EntryPoint(
        name, value, 'tempest.test_plugins'
    ).load()

    assert loaded is plugin.NUMAHugepagesTempestPlugin
    assert isinstance(loaded(), plugins.TempestPlugin)


def test_no_dependency_of_the_package_is_tempest():
    with open(ROOT / 'pyproject.toml', 'rb') as file:
        project = tomllib.load(file)['project']

    assert not [d for d in project['dependencies'] if 'tempest' in d]


def test_the_tests_are_found():
    folder, top = plugin.NUMAHugepagesTempestPlugin().load_tests()

    found = unittest.TestLoader().discover(folder, top_level_dir=top)

    assert found.countTestCases() == sum(len(methods_of(c)) for c in CLASSES)
    assert pathlib.Path(top) == ROOT


def test_options_clash_with_none_of_tempest(conf):
    plugin.NUMAHugepagesTempestPlugin().register_opts(conf)

    assert conf.service_available.numa_hugepages is True
    assert dict(conf.numa_hugepages) == {
        'host_nodes': 2,
        'distances_known': False,
        'page_size_kib': 2048,
        'cell_memory_mib': 128,
        'cell_vcpus': 1,
        'dedicated_cpus': True,
        'flavor_disk_gib': 1,
        'availability_zone': None,
        'servers_at_once': 4,
        'fill_cell_memory_mib': 0,
        'fill_servers': 0,
        'whitebox': False,
        'computes': {},
        'virsh_command': 'virsh --connect qemu:///system',
        'host_command': 'nova-numa-hugepages host show -f json',
        'command_timeout': 60,
        'page_pools': 'dynamic',
        'warm_margin_mib': 0,
    }


def test_all_options_are_listed_and_explained():
    listed = dict(plugin.NUMAHugepagesTempestPlugin().get_opt_lists())

    assert {group: len(opts) for group, opts in listed.items()} == {
        'service_available': 1,
        'numa_hugepages': 18,
    }
    for opt in (opt for opts in listed.values() for opt in opts):
        for part in ('Possible values:', 'For example, '):
            assert part in opt.help, f'{opt.name}: no {part}'


@pytest.mark.parametrize('name', MODULES)
def test_module_needs_no_options_to_be_imported(name, monkeypatch):
    # The cloud is not known when tests are listed.
    monkeypatch.setattr(tempest_config.CONF, '_config', None, raising=False)
    monkeypatch.setattr(
        tempest_config, 'TempestConfigPrivate', lambda **_: pytest.fail(name)
    )

    importlib.reload(importlib.import_module(name))


def test_each_test_has_an_id_of_its_own():
    ids = [
        attribute.removeprefix('id-')
        for cls in CLASSES
        for test in methods_of(cls)
        for attribute in test.__testtools_attrs
        if attribute.startswith('id-')
    ]

    assert len(ids) == sum(len(methods_of(cls)) for cls in CLASSES) == 33
    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(number).version for number in ids} == {4}


@pytest.mark.parametrize('cls', CLASSES, ids=in_full)
def test_nothing_is_skipped_if_the_cloud_has_everything(cls, tempest_conf):
    cls.skip_checks()


@pytest.mark.parametrize('cls', CLASSES, ids=in_full)
@pytest.mark.parametrize('service', ['nova', 'numa_hugepages'])
def test_skipped_without_the_service(cls, service, tempest_conf):
    tempest_conf('service_available', **{service: False})

    with pytest.raises(unittest.SkipTest):
        cls.skip_checks()


@pytest.mark.parametrize('cls', CLASSES, ids=in_full)
def test_skipped_on_an_older_cloud(cls, tempest_conf):
    tempest_conf('compute', max_microversion='2.85')

    with pytest.raises(unittest.SkipTest):
        cls.skip_checks()


def skipped(option, value, tempest_conf):
    """Name the classes that are skipped with an option."""
    tempest_conf(config.NAME, **{option: value})
    names = set()
    for cls in CLASSES:
        try:
            cls.skip_checks()
        except unittest.SkipTest as reason:
            names.add(in_full(cls) if option in str(reason) else str(reason))
    return names


WHITEBOX = {
    in_full(c) for c in CLASSES if issubclass(c, whitebox.WhiteboxTest)
}
DISTANCES = {
    'api.test_room.DistancesTest',
    'whitebox.test_cells.DistancesTest',
}


@pytest.mark.parametrize(
    ('option', 'value', 'expected'),
    [
        pytest.param(
            'host_nodes',
            1,
            DISTANCES
            | {
                'api.test_cells.TwoCellsTest',
                'api.test_room.LargeCellTest',
                'whitebox.test_cells.TwoCellsTest',
            },
            id='one-node',
        ),
        pytest.param('distances_known', False, DISTANCES, id='no-distances'),
        pytest.param(
            'fill_servers',
            0,
            {'api.test_room.FilledCloudTest'},
            id='nothing-fills-the-cloud',
        ),
        pytest.param(
            'fill_cell_memory_mib',
            0,
            {'api.test_room.FilledCloudTest'},
            id='not-known-what-fills-the-cloud',
        ),
        pytest.param('whitebox', False, WHITEBOX, id='no-whitebox'),
        pytest.param('computes', {}, WHITEBOX, id='no-computes'),
    ],
)
def test_skipped_as_the_option_says(option, value, expected, tempest_conf):
    assert skipped(option, value, tempest_conf) == expected


@pytest.mark.parametrize('feature', ['resize', 'rescue', 'shelve', 'suspend'])
def test_operations_that_a_cloud_may_not_have_are_marked(feature, conf):
    marked = [
        test.__name__
        for cls in CLASSES
        for test in methods_of(cls)
        if getattr(test, lifecycle._NEEDS, None) == feature
    ]

    assert len(marked) == (4 if feature == 'resize' else 2)
    assert all(feature in name for name in marked)
    assert feature in conf['compute-feature-enabled']


def options(**computes):
    """Options of hosts that are reached by commands."""
    return types.SimpleNamespace(
        computes=computes,
        command_timeout=10,
        virsh_command='echo',
        host_command='echo []',
    )


def test_commands_are_for_the_shell_of_the_host():
    computes = {'here': '', 'there': 'ssh -i "a key" root@{host}', '*': 'x'}

    assert host.command('here', computes) == ['sh', '-c']
    assert host.command('there', computes) == [
        'ssh', '-i', 'a key', 'root@there',
    ]  # fmt: skip
    assert host.command('other', computes) == ['x']
    assert host.reachable('other', computes)
    assert not host.reachable('other', {'here': ''})


def test_an_error_of_a_command_names_its_host():
    here = host.ComputeHost('here', options(here=''))

    assert here.run('echo "$((1 + 1))"') == '2\n'
    with pytest.raises(host.CommandFailed, match=r'On here, .* with 3: no'):
        here.run('echo no >&2; exit 3')
    with pytest.raises(exceptions.TempestException, match='On there'):
        host.ComputeHost('there', options(there='/no/such/program')).run(
            'true'
        )


def test_a_process_is_found_by_the_uuid_among_its_arguments():
    number = str(uuid.uuid4())
    line = host.maps_line(number)
    here = host.ComputeHost('here', options(here=''))

    # The shell that searches is not found itself.
    with pytest.raises(host.CommandFailed):
        here.run(line)
    with subprocess.Popen(
        ['sh', '-c', 'echo up; read x', '-uuid', number],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b'up\n'
        assert 'stack' in here.run(line)
        other.stdin.close()
