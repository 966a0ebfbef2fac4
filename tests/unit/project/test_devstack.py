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


"""What the DevStack plugin does in each phase.

The plugin runs under bash as DevStack runs it, with ``errexit``. The functions
of DevStack that it uses are stood in for: those for configuration files work
on files, the others write down how they were called.
"""

import dataclasses
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
FILTER = 'nova_numa_hugepages.scheduler.filters.NUMAHugepagesFilter'
WEIGHER = 'nova_numa_hugepages.scheduler.weights.NUMAHugepagesWeigher'
DRIVER = 'numa_hugepages.NUMAHugepagesDriver'

pytestmark = pytest.mark.skipif(
    shutil.which('bash') is None, reason='needs bash'
)

# A file is a list of [section, option, value].
INI = """
import pathlib, sys

def read(file):
    rows, section = [], None
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith('['):
            section = line[1:-1]
        elif '=' in line:
            option, _, value = line.partition('=')
            rows.append((section, option.strip(), value.strip()))
    return rows

verb, name, section, option, *values = sys.argv[1:]
file = pathlib.Path(name)
rows = read(file)
if verb == 'get':
    print(*[row[2] for row in rows if row[:2] == (section, option)])
else:
    rows = [row for row in rows if row[:2] != (section, option)]
    rows += [(section, option, value) for value in values]
    file.write_text(''.join(
        f'[{of}]\\n' + ''.join(
            f'{key} = {value}\\n' for at, key, value in rows if at == of
        )
        for of in dict.fromkeys(row[0] for row in rows)
    ))
"""

STUBS = """
set -o errexit
shopt -s expand_aliases
called() { echo "$*" >>"$CALLS"; }
ini() { "$PYTHON" -c "$INI" "$@"; }
iniset() { ini set "$@"; }
iniset_multiline() { ini set "$@"; }
iniget() { ini get "$@"; }
iniget_multiline() { ini get "$@"; }
is_service_enabled() {
    local name
    for name in "$@"; do
        if [[ " $SERVICES " == *" $name "* ]]; then return 0; fi
    done
    return 1
}
trueorfalse() {
    case ${!2:-} in
        [Tt]rue | 1 | [Yy]es) echo True ;;
        [Ff]alse | 0 | [Nn]o) echo False ;;
        *) echo "$1" ;;
    esac
}
echo_summary() { :; }
define_plugin() { called "define_plugin $*"; }
pip_install() { called "pip_install $*"; }
pip_uninstall() { called "pip_uninstall $*"; }
stop_process() { called "stop_process $*"; }
run_process() { called "run_process $*"; }
async_wait() { called "async_wait $*"; }
die() { shift; echo "$*" >&2; exit 1; }
sudo() { "$@"; }
virsh() {
    called "virsh $*"
    printf '%s\n\n' compute-1.example.org
    return "${VIRSH_STATUS:-0}"
}
source "$PLUGIN/settings"
"""


@dataclasses.dataclass
class Stack:
    """A machine on which DevStack runs the plugin."""

    folder: pathlib.Path
    services: str = 'n-api n-sch n-cpu tempest'
    virt_driver: str = 'libvirt'

    @property
    def conf(self):
        return self.folder / 'nova.conf'

    @property
    def cpu_conf(self):
        return self.folder / 'nova-cpu.conf'

    @property
    def tempest_conf(self):
        return self.folder / 'tempest.conf'

    @property
    def state(self):
        return self.folder / 'state'

    @property
    def calls(self):
        file = self.folder / 'calls'
        return file.read_text().splitlines() if file.exists() else []

    def run(self, *phase, check=True, **settings):
        """Source the plugin for a phase, with what local.conf would set."""
        return subprocess.run(
            [
                'bash', '-c',
                STUBS + 'source "$PLUGIN/plugin.sh" "$@"\n', 'stack.sh',
                *phase,
            ],
            env={
                'PATH': '/usr/bin:/bin',
                'PYTHON': sys.executable,
                'INI': INI,
                'CALLS': str(self.folder / 'calls'),
                'PLUGIN': str(ROOT / 'devstack'),
                'SERVICES': self.services,
                'VIRT_DRIVER': self.virt_driver,
                'NOVA_DIR': '/opt/stack/nova',
                'NOVA_CONF_DIR': '/etc/nova',
                'NOVA_CONF': str(self.conf),
                'NOVA_CPU_CONF': str(self.cpu_conf),
                'NOVA_STATE_PATH': str(self.state),
                'NOVA_BIN_DIR': str(self.folder / 'bin'),
                'NOVA_ROOTWRAP': '/usr/local/bin/nova-rootwrap',
                'NOVA_NUMA_HUGEPAGES_NODES': str(self.folder / 'nodes'),
                'TEMPEST_CONFIG': str(self.tempest_conf),
                **settings,
            },
            capture_output=True,
            text=True,
            check=check,
        )  # fmt: skip

    def command(self, name, script):
        """Put a command of ours in place."""
        file = self.folder / 'bin' / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'#!/bin/bash\n{script}\n')
        file.chmod(0o755)

    def pool(self, node, size_kib):
        """Name the file that sets a pool."""
        return (
            self.folder / 'nodes' / f'node{node}' / 'hugepages'
            / f'hugepages-{size_kib}kB' / 'nr_hugepages'
        )  # fmt: skip


@pytest.fixture
def stack(tmp_path):
    """Make a machine with two nodes, 21 apart, on which nothing is set."""
    made = Stack(tmp_path)
    made.state.mkdir()
    for node, row in enumerate(('10 21', '21 10')):
        folder = tmp_path / 'nodes' / f'node{node}'
        folder.mkdir(parents=True)
        (folder / 'distance').write_text(f'{row}\n')
        (folder / 'cpulist').write_text(f'{node}\n')
    return made


def lines(file):
    return file.read_text().splitlines()


HELPER = (
    'helper_command = sudo /usr/local/bin/nova-rootwrap '
    '/etc/nova/rootwrap.conf privsep-helper --config-file '
)


def test_all_of_it_is_enabled_where_nova_has_its_defaults(stack):
    # when
    stack.run('stack', 'post-config')

    # then
    assert lines(stack.conf) == [
        '[filter_scheduler]',
        'available_filters = nova.scheduler.filters.all_filters',
        f'available_filters = {FILTER}',
        'enabled_filters = ComputeFilter,ComputeCapabilitiesFilter,'
        'ImagePropertiesFilter,ServerGroupAntiAffinityFilter,'
        'ServerGroupAffinityFilter,NUMAHugepagesFilter',
        f'weight_classes = nova.scheduler.weights.all_weighers,{WEIGHER}',
        '[DEFAULT]',
        f'compute_driver = {DRIVER}',
        '[numa_hugepages_privileged]',
        f'{HELPER}{stack.conf}',
    ]
    assert not stack.cpu_conf.exists()


def test_the_filter_takes_the_place_of_novas_and_the_others_stay(stack):
    # given
    stack.conf.write_text(
        '[DEFAULT]\n'
        'compute_driver = libvirt.LibvirtDriver\n'
        'debug = True\n'
        '[filter_scheduler]\n'
        'available_filters = nova.scheduler.filters.all_filters\n'
        'available_filters = some.where.OtherFilter\n'
        'enabled_filters = ComputeFilter, NUMATopologyFilter, OtherFilter\n'
        'weight_classes = some.where.Weigher\n'
    )

    # when
    stack.run('stack', 'post-config')

    # then
    assert lines(stack.conf) == [
        '[DEFAULT]',
        'debug = True',
        f'compute_driver = {DRIVER}',
        '[filter_scheduler]',
        'available_filters = nova.scheduler.filters.all_filters',
        'available_filters = some.where.OtherFilter',
        f'available_filters = {FILTER}',
        'enabled_filters = ComputeFilter,NUMAHugepagesFilter,OtherFilter',
        f'weight_classes = some.where.Weigher,{WEIGHER}',
        '[numa_hugepages_privileged]',
        f'{HELPER}{stack.conf}',
    ]


def test_a_second_time_changes_nothing(stack):
    # given
    stack.run('stack', 'post-config')
    before = sorted(lines(stack.conf))

    # when
    stack.run('stack', 'post-config')

    # then
    assert sorted(lines(stack.conf)) == before


def test_what_is_switched_off_is_left_alone(stack):
    # when
    stack.run(
        'stack',
        'post-config',
        NOVA_NUMA_HUGEPAGES_FILTER='False',
        NOVA_NUMA_HUGEPAGES_WEIGHER='False',
        NOVA_NUMA_HUGEPAGES_DRIVER='False',
    )

    # then
    assert not stack.conf.exists()


def test_a_compute_host_gets_the_driver_only_in_both_of_its_files(stack):
    # given
    stack.services = 'n-cpu'
    stack.cpu_conf.write_text('[DEFAULT]\n')

    # when
    stack.run('stack', 'post-config')

    # then
    expected = [
        '[DEFAULT]',
        f'compute_driver = {DRIVER}',
        '[numa_hugepages_privileged]',
        f'{HELPER}{stack.conf}',
    ]
    assert lines(stack.conf) == expected
    assert lines(stack.cpu_conf) == expected


def test_another_hypervisor_keeps_its_driver(stack):
    # given
    stack.services = 'n-cpu'
    stack.virt_driver = 'fake'

    # when
    done = stack.run('stack', 'post-config')

    # then
    assert not stack.conf.exists()
    assert 'NUMAHugepagesDriver needs VIRT_DRIVER=libvirt' in done.stdout


def test_options_are_passed_on(stack):
    # given
    stack.services = 'n-cpu'

    # when
    stack.run(
        'stack',
        'post-config',
        NOVA_NUMA_HUGEPAGES_DRIVER='False',
        NOVA_NUMA_HUGEPAGES_OPTIONS='page_pools=static demand_mix=a:1,b:2',
    )

    # then
    assert lines(stack.conf) == [
        '[numa_hugepages]',
        'page_pools = static',
        'demand_mix = a:1,b:2',
    ]


def test_it_waits_for_devstack_before_it_writes(stack):
    # when
    stack.run('stack', 'post-config')

    # then
    assert stack.calls == [
        'define_plugin nova-numa-hugepages',
        'async_wait configure_neutron_nova',
    ]


def test_nova_is_put_on_the_path_before_the_package_is_installed(stack):
    # when
    stack.run('stack', 'install')

    # then
    assert stack.calls[1:] == [
        'pip_install --no-deps --config-settings editable_mode=compat '
        '--editable /opt/stack/nova',
        f'pip_install --no-deps --editable {ROOT}',
    ]


def test_where_nova_is_not_nothing_is_done(stack):
    # given
    stack.services = 'key g-api'

    # when
    for phase in ('pre-install', 'install', 'post-config', 'extra'):
        stack.run('stack', phase)
    stack.run('unstack')
    stack.run('clean')

    # then
    assert set(stack.calls) == {'define_plugin nova-numa-hugepages'}
    assert not stack.conf.exists()


@pytest.mark.parametrize('status', [0, 1])
def test_a_configuration_that_will_do_is_accepted(stack, status):
    # given
    stack.command('nova-numa-hugepages-status', f'exit {status}')

    # when, then
    stack.run('stack', 'extra')


def test_a_configuration_that_will_not_do_stops_devstack(stack):
    # given
    stack.command('nova-numa-hugepages-status', 'exit 2')

    # when
    done = stack.run('stack', 'extra', check=False)

    # then
    assert done.returncode == 1
    assert done.stderr == (
        f'nova-numa-hugepages cannot work with {stack.conf}\n'
    )


def test_the_options_of_tempest_describe_this_host(stack):
    # given
    stack.conf.write_text(
        '[compute]\n'
        'cpu_dedicated_set = 0-1\n'
        '[numa_hugepages]\n'
        'warm_margin_mib = 64\n'
    )

    # when
    stack.run(
        'stack',
        'test-config',
        NOVA_NUMA_HUGEPAGES_WHITEBOX='True',
        NOVA_NUMA_HUGEPAGES_TEMPEST_OPTIONS='cell_vcpus=2 fill_servers=7',
    )

    # then
    assert lines(stack.tempest_conf) == [
        '[service_available]',
        'numa_hugepages = True',
        '[numa_hugepages]',
        'host_nodes = 2',
        'distances_known = True',
        'dedicated_cpus = True',
        'warm_margin_mib = 64',
        'whitebox = True',
        'computes = compute-1.example.org:sudo sh -c',
        f'host_command = {stack.folder}/bin/nova-numa-hugepages host show '
        f'-f json --state-path {stack.state}',
        'cell_vcpus = 2',
        'fill_servers = 7',
    ]
    assert stack.calls[1:] == ['virsh --connect qemu:///system hostname']


def test_without_libvirt_tempest_does_not_read_this_host(stack):
    # when
    done = stack.run(
        'stack',
        'test-config',
        check=False,
        NOVA_NUMA_HUGEPAGES_WHITEBOX='True',
        VIRSH_STATUS='1',
    )

    # then
    assert done.returncode == 1
    assert not any(
        line.startswith('computes') for line in lines(stack.tempest_conf)
    )


def test_the_options_of_tempest_for_a_host_that_reports_no_distances(stack):
    # when
    stack.run(
        'stack',
        'test-config',
        NOVA_NUMA_HUGEPAGES_FILTER='False',
        NOVA_NUMA_HUGEPAGES_DRIVER='False',
    )

    # then
    assert lines(stack.tempest_conf) == [
        '[service_available]',
        'numa_hugepages = False',
        '[numa_hugepages]',
        'host_nodes = 2',
        'distances_known = False',
        'dedicated_cpus = False',
    ]


def test_nodes_that_are_all_as_near_count_as_unknown(stack):
    # given
    for node in range(2):
        file = stack.folder / 'nodes' / f'node{node}' / 'distance'
        file.write_text('10 10\n')

    # when
    stack.run('stack', 'test-config')

    # then
    assert 'distances_known = False' in lines(stack.tempest_conf)


def test_all_that_is_set_for_tempest_are_options_of_its_plugin(stack):
    # given
    options = pytest.importorskip('nova_numa_hugepages.tempest.config')
    known = {
        name: {opt.dest: opt for opt in opts}
        for name, opts in options.list_opts()
    }

    # when
    stack.run('stack', 'test-config', NOVA_NUMA_HUGEPAGES_WHITEBOX='True')

    # then
    section = None
    for line in lines(stack.tempest_conf):
        if line.startswith('['):
            section = line[1:-1]
            continue
        option, _, value = line.partition(' = ')
        known[section][option].type(value)


def test_pools_go_back_to_their_floor(stack):
    # given
    ledger = stack.state / 'nova-numa-hugepages-ledger.sqlite'
    for name in (ledger.name, f'{ledger.name}-wal', 'huge-pages.lock'):
        (stack.state / name).touch()
    stack.command(
        'nova-numa-hugepages',
        'echo "nova-numa-hugepages $*" >>"$CALLS"\n'
        'echo "0 2048 16 512"\n'
        'echo "0 1048576 4 0"\n'
        'echo "1 None None None"',
    )
    pools = [stack.pool(0, size_kib) for size_kib in (2048, 1048576)]
    for pool, pages in zip(pools, (528, 4), strict=True):
        pool.parent.mkdir(parents=True)
        pool.write_text(f'{pages}\n')

    # when
    stack.run('unstack')

    # then
    assert [pool.read_text() for pool in pools] == ['16\n', '4\n']
    assert list(stack.state.iterdir()) == []
    assert stack.calls[1:] == [
        'stop_process n-cpu',
        f'nova-numa-hugepages host show --ledger {ledger} -f value '
        '-c node -c size_kib -c floor -c grown',
        'pip_uninstall nova-numa-hugepages',
    ]


def test_without_a_ledger_there_is_nothing_to_give_back(stack):
    # when
    stack.run('unstack')

    # then
    assert stack.calls[1:] == ['pip_uninstall nova-numa-hugepages']


def test_what_was_learned_goes_only_when_all_is_cleaned(stack):
    # given
    file = stack.state / 'nova-numa-hugepages-demand.json'
    file.touch()

    # when, then
    stack.run('unstack')
    assert file.exists()
    stack.run('clean')
    assert not file.exists()


def test_the_monitor_is_run_where_it_is_enabled(stack):
    # given
    stack.services = 'n-cpu numa-hugepages-monitor'

    # when
    stack.run('stack', 'install')
    stack.run('stack', 'extra')
    stack.run('unstack')

    # then
    assert 'pip_install prometheus_client' in stack.calls
    assert (
        'run_process numa-hugepages-monitor '
        f'{stack.folder}/bin/nova-numa-hugepages monitor '
        f'--config-file {stack.conf} --state-path {stack.state} '
        f'--history {stack.state}/numa-hugepages-history.sqlite  root'
    ) in stack.calls
    assert 'stop_process numa-hugepages-monitor' in stack.calls
