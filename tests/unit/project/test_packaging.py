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


"""What is built from the sources, and what installing it does.

The wheel is built once, from a copy of the files that git knows, as anybody
would get them.
"""

import base64
import configparser
import csv
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PACKAGE = 'nova_numa_hugepages'
# The only file of ours in Nova's package.
SHIM = 'nova/virt/numa_hugepages/__init__.py'


def run(*command, **kwargs):
    """Run a command, and fail with its output if it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, **kwargs
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """Copy the sources into a repository of one commit and no tag.

    That is what a shallow clone looks like.
    """
    if not (ROOT / '.git').exists():
        pytest.skip('not a git checkout')
    copy = tmp_path_factory.mktemp('checkout')
    listed = run(
        'git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard',
        cwd=ROOT,
    )  # fmt: skip
    for name in filter(None, listed.split('\0')):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    run('git', 'init', '-q', cwd=copy)
    run('git', 'add', '-A', cwd=copy)
    run(
        'git', '-c', 'user.name=test', '-c', 'user.email=test@localhost',
        '-c', 'commit.gpgsign=false', 'commit', '-q', '-m', 'all of it',
        cwd=copy,
    )  # fmt: skip
    return copy


@pytest.fixture(scope='module')
def wheel(checkout, tmp_path_factory):
    """Build the wheel, with what is installed and so without a network."""
    folder = tmp_path_factory.mktemp('wheel')
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith('PBR_')
    }
    run(
        sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps',
        '--no-build-isolation', '--wheel-dir', str(folder), str(checkout),
        env=environment,
    )  # fmt: skip
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope='module')
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_a_clone_without_tags_gets_a_version(wheel):
    version = wheel.name.split('-')[1]

    assert version.startswith('0.0.')


def test_the_wheel_holds_the_package_and_nothing_beside_it(names):
    tops = {name.split('/')[0] for name in names}
    (data,) = {top for top in tops if top.endswith('.data')}
    (dist_info,) = tops - {PACKAGE, 'nova', data}

    assert dist_info.endswith('.dist-info')
    assert [name for name in names if name.startswith('nova/')] == [SHIM]
    acceptance = f'{PACKAGE}/tempest/tests/'
    assert [
        name
        for name in names
        if 'test' in name.replace('tempest', '')
        and not name.startswith(acceptance)
    ] == []


def test_the_wheel_brings_samples_and_examples(names, checkout):
    found = {
        name.partition('.data/data/share/')[2]
        for name in names
        if '.data/' in name
    }

    shipped = {
        str(path.relative_to(checkout / 'etc'))
        for path in (checkout / 'etc').rglob('*')
        if path.is_file() and 'generator' not in path.name
    }
    assert found == shipped
    assert len(found) > 5


def test_the_wheel_holds_every_module(names, checkout):
    sources = {
        str(path.relative_to(checkout))
        for pattern in ('*.py', '*.c', 'templates/*')
        for path in (checkout / PACKAGE).rglob(pattern)
    }

    assert {
        name for name in names if name.startswith(f'{PACKAGE}/')
    } == sources


def test_the_wheel_carries_its_licence(names):
    assert any(name.endswith('.dist-info/licenses/LICENSE') for name in names)


def test_the_entry_points(wheel):
    entry_points = configparser.ConfigParser(delimiters='=')
    entry_points.optionxform = str
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (
            name
            for name in archive.namelist()
            if name.endswith('entry_points.txt')
        )
        entry_points.read_string(archive.read(name).decode())

    found = {
        name: dict(entry_points[name]) for name in entry_points.sections()
    }

    assert found == {
        'console_scripts': {
            'nova-numa-hugepages': f'{PACKAGE}.cmd.main:main',
            'nova-numa-hugepages-status': f'{PACKAGE}.cmd.status:main',
        },
        'nova.api.extra_spec_validators': {
            'numa_hugepages': f'{PACKAGE}.api.extra_specs',
        },
        f'{PACKAGE}.cli': {
            'experiment_compare': f'{PACKAGE}.cmd.experiment:Compare',
            'experiment_report': f'{PACKAGE}.cmd.experiment:Report',
            'experiment_run': f'{PACKAGE}.cmd.experiment:Run',
            'host_reconcile': f'{PACKAGE}.cmd.host.reconcile:Reconcile',
            'host_release': f'{PACKAGE}.cmd.host.release:Release',
            'host_show': f'{PACKAGE}.cmd.host.show:Show',
            'host_alarms': f'{PACKAGE}.cmd.host.alarms:Alarms',
            'host_elastic': 'nova_numa_hugepages.cmd.host.elastic:Elastic',
            'monitor': f'{PACKAGE}.cmd.monitor:Monitor',
            'simulate': f'{PACKAGE}.cmd.simulate:Simulate',
        },
        f'{PACKAGE}.workloads': {
            'chase': f'{PACKAGE}.experiment.workloads:Chase',
            'fio': f'{PACKAGE}.experiment.workloads:Fio',
            'lookups': f'{PACKAGE}.experiment.workloads:Lookups',
            'sort': f'{PACKAGE}.experiment.workloads:Sort',
            'stream': f'{PACKAGE}.experiment.workloads:Stream',
            'sysbench': f'{PACKAGE}.experiment.workloads:Sysbench',
        },
        f'{PACKAGE}.alarms': {
            'cpus_off_plan': f'{PACKAGE}.monitor.watches:CPUsOffPlan',
            'ledger_apart': f'{PACKAGE}.monitor.watches:LedgerApart',
            'libvirt_silent': f'{PACKAGE}.monitor.watches:LibvirtSilent',
            'memory_absent': f'{PACKAGE}.monitor.watches:MemoryAbsent',
            'memory_beyond': f'{PACKAGE}.monitor.watches:MemoryBeyond',
            'memory_fragmented': (
                f'{PACKAGE}.monitor.watches:MemoryFragmented'
            ),
            'memory_leaked': f'{PACKAGE}.monitor.watches:MemoryLeaked',
            'memory_misplaced': f'{PACKAGE}.monitor.watches:MemoryMisplaced',
            'memory_unused': f'{PACKAGE}.monitor.watches:MemoryUnused',
            'memory_used': f'{PACKAGE}.monitor.watches:MemoryUsed',
            'memory_wanted': f'{PACKAGE}.monitor.watches:MemoryWanted',
            'node_exhausted': f'{PACKAGE}.monitor.watches:NodeExhausted',
            'pages_taken': f'{PACKAGE}.monitor.watches:PagesTaken',
        },
        'oslo.config.opts': {
            PACKAGE: f'{PACKAGE}.conf:list_opts',
        },
        'tempest.test_plugins': {
            'numa_hugepages': (
                f'{PACKAGE}.tempest.plugin:NUMAHugepagesTempestPlugin'
            ),
        },
    }


def test_nova_is_required_from_a_tested_version_on_without_a_cap(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (
            name for name in archive.namelist() if name.endswith('METADATA')
        )
        lines = archive.read(name).decode().splitlines()

    assert 'Requires-Dist: nova>=31.0.0' in lines
    assert 'Requires-Python: >=3.11' in lines
    assert 'License-Expression: Apache-2.0' in lines


@pytest.fixture(scope='module')
def beside_nova(wheel, tmp_path_factory):
    """Install the wheel into an environment that has Nova.

    :returns: its interpreter, its folder of packages, and the files of Nova
        that were as they were recorded, before and after
    """
    environment = tmp_path_factory.mktemp('beside') / 'environment'
    run(sys.executable, '-m', 'venv', '--without-pip', str(environment))
    python = environment / 'bin' / 'python'
    site = pathlib.Path(
        sysconfig.get_path(
            'purelib', vars={'base': str(environment)}, scheme='posix_prefix'
        )
    )
    nova = importlib.metadata.distribution('nova')
    for source in (pathlib.Path(nova.locate_file('nova')), nova._path):
        shutil.copytree(
            source, site / source.name,
            ignore=shutil.ignore_patterns('__pycache__'),
        )  # fmt: skip
    before = recorded_files(site, nova._path.name)
    run(
        sys.executable, '-m', 'pip', '--python', str(python), 'install',
        '--quiet', '--no-deps', str(wheel),
    )  # fmt: skip
    # What Nova needs is in the environment that runs the tests.
    (site / 'others.pth').write_text(f'{sysconfig.get_path("purelib")}\n')
    return python, site, before, recorded_files(site, nova._path.name)


def test_installing_it_changes_no_file_of_nova(beside_nova):
    _, site, before, after = beside_nova

    assert len(before) > 1000
    assert after == before
    modules = {
        str(path.relative_to(site)) for path in (site / 'nova').rglob('*.py')
    }
    assert modules - after == {SHIM}
    assert (site / PACKAGE / 'conf' / '__init__.py').is_file()


def test_nova_loads_the_driver_from_the_wheel(beside_nova, tmp_path):
    python, site, _, _ = beside_nova

    shim, ours, nova = load_driver(python, tmp_path)

    assert shim == str(site / SHIM)
    assert ours == str(site / PACKAGE / 'libvirt' / 'driver.py')
    assert nova == str(site / 'nova' / '__init__.py')


def test_nova_loads_the_driver_from_an_editable_install(tmp_path):
    # Given: the environment that runs the tests
    distribution = importlib.metadata.distribution('nova-numa-hugepages')
    url = json.loads(distribution.read_text('direct_url.json') or '{}')
    if not url.get('dir_info', {}).get('editable'):
        pytest.skip('the tests do not run in an editable install')

    # when it is not its sources that the interpreter is started in
    shim, ours, nova = load_driver(sys.executable, tmp_path)

    # then
    assert shim == str(ROOT / SHIM)
    assert ours == str(ROOT / PACKAGE / 'libvirt' / 'driver.py')
    assert nova == str(
        importlib.metadata.distribution('nova').locate_file('nova/__init__.py')
    )


def test_nova_is_itself_where_the_sources_are():
    # The folder of the shim has the name of Nova's package.
    assert load_driver(sys.executable, ROOT)[2] != str(ROOT / 'nova')
    assert not (ROOT / 'nova' / '__init__.py').exists()
    assert not (ROOT / 'nova' / 'virt' / '__init__.py').exists()


def load_driver(python, folder):
    """Load the driver as Nova does.

    :returns: the files of the shim, of the driver, and of Nova
    """
    code = """
import inspect, json, sys
import nova
from nova.virt import driver
from oslo_utils import importutils
found = importutils.import_class(
    'nova.virt.numa_hugepages.NUMAHugepagesDriver'
)
assert issubclass(found, driver.ComputeDriver)
print(json.dumps([
    sys.modules['nova.virt.numa_hugepages'].__file__,
    inspect.getfile(found),
    nova.__file__,
]))
"""
    out = run(
        str(python), '-W', 'ignore', '-c', code, cwd=folder,
        env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
    )  # fmt: skip
    return json.loads(out.splitlines()[-1])


def recorded_files(site, dist_info):
    """List the files of a distribution that are as they were installed.

    :param site: the folder of packages
    :param dist_info: the name of the folder of the distribution's metadata
    :returns: the files in the folder of packages whose hash is the recorded
        one; an AssertionError names the others
    """
    good = set()
    with open(site / dist_info / 'RECORD', newline='') as record:
        for name, recorded, _ in csv.reader(record):
            if not recorded or name.startswith('..'):
                continue
            algorithm, _, expected = recorded.partition('=')
            content = (site / name).read_bytes()
            digest = hashlib.new(algorithm, content).digest()
            found = base64.urlsafe_b64encode(digest).rstrip(b'=').decode()
            assert found == expected, name
            good.add(name)
    return good
