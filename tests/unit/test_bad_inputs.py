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

"""What operators mistype, and what they are told.

Each row has an input and what names the value and the remedy. Mistakes in
scenario files are in ``simulate/mistakes.txt``, too.
"""

import contextlib
import json
import pathlib
import shutil
import sqlite3

from nova import exception as nova_exception
from nova.api.validation.extra_specs import validators
from oslo_config import cfg
import pytest

from nova_numa_hugepages import conf as package_conf
from nova_numa_hugepages import exception
from nova_numa_hugepages import extra_specs
from nova_numa_hugepages.cmd import main
from nova_numa_hugepages.cmd import status
from tests.unit.cmd.host import command_host

ETC = pathlib.Path(__file__).parents[2] / 'etc/nova-numa-hugepages'

MIB = 'a number from 0 to 16777216'
YES = 'true or false'
MIX = 'for example small:2,large:1, with numbers above 0'

OPTIONS = [
    ('page_pools', '', 'dynamic or static'),
    ('page_pools', 'Dynamic', 'dynamic or static'),
    ('page_pools', 'dynamc', 'dynamic or static'),
    ('page_pools', 'static, dynamic', 'dynamic or static'),
    ('powered_off_pages', 'drop', 'keep or release'),
    ('powered_off_pages', 'keep,release', 'keep or release'),
    ('node_free_memory_mib', '', MIB),
    ('node_free_memory_mib', '-1', MIB),
    ('node_free_memory_mib', '1GiB', MIB),
    ('node_free_memory_mib', '1.5', MIB),
    ('node_free_memory_mib', '99999999999', MIB),
    ('warm_margin_mib', '', MIB),
    ('warm_margin_mib', '2G', MIB),
    ('warm_margin_mib', '-1', MIB),
    ('node_ceiling_percent', '101', 'a number from 0 to 100'),
    ('node_ceiling_percent', '90%', 'a number from 0 to 100'),
    ('node_ceiling_percent', '0.9', 'a number from 0 to 100'),
    ('compact_memory', 'maybe', YES),
    ('compact_memory', '2', YES),
    ('demote_pages', '', YES),
    ('demote_pages', 'ja', YES),
    ('hand_over_pages', 'tru', YES),
    ('account_small_pages', 'none', YES),
    ('grow_time_limit', '', 'a number from 1 to 600'),
    ('grow_time_limit', '0', 'a number from 1 to 600'),
    ('grow_time_limit', '601', 'a number from 1 to 600'),
    ('grow_time_limit', '30s', 'a number from 1 to 600'),
    ('start_time_limit', '10', 'a number from 60 to 86400'),
    ('start_time_limit', 'forever', 'a number from 60 to 86400'),
    ('prealloc_threads', '65', 'a number from 0 to 64'),
    ('prealloc_threads', 'auto', 'a number from 0 to 64'),
    ('stock_claim_search_limit', '0', 'a number from 1 to 1000000'),
    ('stock_claim_search_limit', '1e3', 'a number from 1 to 1000000'),
    ('rejection_reasons', '51', 'a number from 1 to 50'),
    ('rejection_reasons', 'all', 'a number from 1 to 50'),
    ('weight_multiplier', '', 'a finite number'),
    ('weight_multiplier', 'high', 'a finite number'),
    ('weight_multiplier', '1,5', 'a finite number'),
    ('demand_half_life', '59', 'a number from 60 to 315360000'),
    ('demand_half_life', '7d', 'a number from 60 to 315360000'),
    ('demand_kinds', '201', 'a number from 1 to 200'),
    ('demand_flavors_interval', '-1', 'a number from 0 to 86400'),
    ('demand_flavors_interval', '10min', 'a number from 0 to 86400'),
    ('demand_mix', 'small', MIX),
    ('demand_mix', 'small=1', MIX),
    ('demand_mix', 'small:1,small:2', MIX),
]

# They are read by another way once they are numbers.
NUMBERS = [
    ('weight_multiplier', 'nan', 'nan is not a finite number', 'a finite'),
    ('weight_multiplier', '-inf', '-inf is not a finite number', 'a finite'),
    ('demand_mix', 'small:0', "small has the share '0', expected", MIX),
    ('demand_mix', 'small:-1', "small has the share '-1', expected", MIX),
    ('demand_mix', 'small:x', "small has the share 'x', expected", MIX),
]

RESERVED = [
    'node:0',
    'node:0,size:2048',
    'node:0,size:2048,count:-1',
    'node:-1,size:2048,count:1',
    'node:x,size:2048,count:1',
    'node:0,size:2XB,count:1',
    'node:0,size:2M,count:1',
    'node:0,size:,count:1',
    'node:0,size:2048,count:1.5',
    'node:0,size:2048,count:many',
    'nodes:0,size:2048,count:3',
    'node=0,size=2048,count=1',
    'node:0;size:2048;count:1',
    'node:0,size:2048,count:64,node:1',
    '0,2048,64',
    '64',
]

NO_SUCH_POOL = [
    ('node:9,size:2048,count:1', '2 MiB on NUMA node 9'),
    ('node:0,size:4096,count:1', '4 MiB on NUMA node 0'),
    ('node:0,size:3,count:1', '3 KiB on NUMA node 0'),
]

# Content of a file, and what is found there.
FILES = [
    (b'no section\n', "in line 1: 'no section' (No ':' or '=' found"),
    (b'a = b\n', 'in line 1: '),
    (b'[DEFAULT]\n[numa_hugepages\n', "in line 2: '[numa_hugepages'"),
    (b'[DEFAULT]\n= 3\n', 'in line 2: '),
    (b'\xff\xfe', 'byte 0xff, which is not UTF-8'),
    (None, 'Is a directory'),
]

# Names in a file, and what is told of them.
NAMES = [
    (
        '[numa_hugepages]\npage_pool = static',
        '2: [numa_hugepages] has no option page_pool. Did you mean '
        'page_pools?',
    ),
    (
        '[numa_hugepages]\nnode_free_memory = 1',
        'Did you mean node_free_memory_mib?',
    ),
    ('[numa_hugepages]\nlimit: 1', '2: [numa_hugepages] has no option limit.'),
    ('[numa_hugepage]', '1: there is no group [numa_hugepage]. Did you mean'),
    ('[numa-hugepages]', 'Did you mean [numa_hugepages]?'),
    ('[hugepages_numa]\n[numa_huge_pages]', '2: there is no group ['),
    (
        '[DEFAULT]\npage_pools = static',
        '2: [DEFAULT] has no option page_pools. Did you mean that of '
        '[numa_hugepages]?',
    ),
    (
        '[libvirt]\nwarm_margin_mib = 3',
        '[libvirt] has no option warm_margin_mib. Did you mean that of',
    ),
    (
        '[filter_scheduler]\nweight_multiplier = 3',
        '[filter_scheduler] has no option weight_multiplier. Did you',
    ),
]

# Arguments, the exit code, and what is told. {0} is a folder with the files
# of a host, state its ledger.
ARGUMENTS = [
    ('host show --root {0}/host/proc', 2, 'found no {0}/host/proc/sys/'),
    ('host show --root /nowhere', 2, 'expected the folder with the sys and'),
    ('host show --ledger {0}/state', 2, 'folder; did you mean --state-path?'),
    ('host show --ledger {0}/usual.conf', 2, 'is no ledger: it is not a SQ'),
    ('host show --state-path {0}/usual.conf', 2, 'did you mean --ledger?'),
    ('host show --config-file {0}/none', 2, '{0}/none: expected a configura'),
    ('host show --config-dir {0}/none', 2, 'a folder, found nothing'),
    ('host show --config-dir {0}/usual.conf', 2, 'a folder, found a file'),
    ('host show -f pictur', 2, "'pictur' (choose from 'picture'"),
    ('host show -f xml', 2, "'xml' (choose from 'picture', 'table'"),
    ('host show -f picture -c node', 2, 'for example -f table'),
    ('host show -c nodes', 2, '-c nodes: there is no such column. There are'),
    ('host show -c Node', 2, '-c Node: there is no such column. There are'),
    ('host show --max-width wide', 2, "--max-width: invalid int value: 'wid"),
    ('host show node0', 2, 'unrecognized arguments: node0'),
    ('host show --conf x', 2, 'could match --config-file, --config-dir'),
    ('host reconcile --root {0}/host now', 2, 'unrecognized arguments: now'),
    ('host reconcile --force=yes', 2, "ignored explicit argument 'yes'"),
    ('host release', 2, 'arguments are required: HOLDER'),
    ('host release 123', 2, "HOLDER: found '123', expected the uuid of an"),
    ('host release instance-00000001', 2, 'uuid of an instance, as in nova'),
    (
        f'host release {command_host.ONE[:-1]}',
        2,
        f"found '{command_host.ONE[:-1]}', expected the uuid",
    ),
    (
        f'host release {command_host.THREE}',
        2,
        f'No pages are held for {command_host.THREE}. The instances that hold',
    ),
    (
        'simulate',
        2,
        'Give either the FILE of a scenario, or --from-nova, --ex',
    ),
    ('simulate --from-nova a.yaml', 2, 'Give either the FILE of a scenario'),
    ('simulate a.yaml --save b.yaml', 2, '--save goes with --from-nova only'),
    ('simulate {0}/none', 2, '{0}/none: cannot read it: No such file'),
    ('simulate {0}/state', 2, '{0}/state: cannot read it: Is a directory'),
    ('simulate a.yaml --seeds 0', 2, "found '0', expected an integer from 1"),
    ('simulate a.yaml --seeds two', 2, "found 'two', expected an integer"),
    ('simulate a.yaml --jobs 1001', 2, "found '1001', expected an integer"),
    ('simulate a.yaml --policy theirs', 2, "'theirs' (choose from 'both', "),
    ('simulate a.yaml --demand all', 2, "'all' (choose from 'learned', '"),
    ('simulate a.yaml --json {0}/none/x', 1, 'Make the folder {0}/none first'),
    ('host shw', 2, "'host shw' is not a nova-numa-hugepages command. See"),
    ('hosts show', 2, 'Did you mean one of these?\n  host alarms'),
    ('--root / show', 2, "'--root / show' is not a nova-numa-hugepages comm"),
]

NODE = 'sys/devices/system/node'
POOL = f'{NODE}/node0/hugepages/hugepages-2048kB'
IDS = "a list like '0-3,8', found "

# A file of the kernel, its content, and what is told after its path.
KERNEL = [
    (f'{NODE}/online', '', 'at least one node, found none'),
    (f'{NODE}/online', '0-', IDS + "'0-'"),
    (f'{NODE}/online', '1-0', IDS + "'1-0'"),
    (f'{NODE}/online', 'all', IDS + "'all'"),
    (f'{NODE}/node0/cpulist', '0-x', IDS + "'0-x'"),
    (f'{NODE}/node0/cpulist', '-3', IDS + "'-3'"),
    (f'{NODE}/node0/distance', '', "2 numbers, found ''"),
    (f'{NODE}/node0/distance', '10', "2 numbers, found '10'"),
    (f'{NODE}/node0/distance', '10 21 31', "2 numbers, found '10 21 31'"),
    (f'{NODE}/node0/distance', '10 -21', "2 numbers, found '10 -21'"),
    (f'{NODE}/node0/meminfo', '', "lines with MemTotal and MemFree, found ''"),
    (
        f'{NODE}/node0/meminfo',
        'Node 0 MemTotal: x kB',
        "lines with MemTotal and MemFree, found 'Node 0 MemTotal: x kB'",
    ),
    (f'{POOL}/nr_hugepages', '', "a number, found ''"),
    (f'{POOL}/nr_hugepages', '-1', "a number, found '-1'"),
    (f'{POOL}/free_hugepages', '1e3', "a number, found '1e3'"),
    (f'{POOL}/surplus_hugepages', 'x', "a number, found 'x'"),
    (
        'sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages',
        '3 4',
        "a number, found '3 4'",
    ),
    ('proc/buddyinfo', '', 'a line for each zone, found none'),
    (
        'proc/buddyinfo',
        'x',
        "lines like 'Node 0, zone Normal 1 2 3', found 'x",
    ),
    (
        'proc/buddyinfo',
        'Node 0, zone Normal 1 -2',
        "lines like 'Node 0, zone Normal 1 2 3', found 'Node 0, zone Normal",
    ),
    (
        'proc/zoneinfo',
        '',
        '8388608 KiB of memory, as in meminfo of the nodes, in pages of 4, 8,',
    ),
    (
        'proc/zoneinfo',
        'Node 0, zone Normal\n  pages free x\n  managed 2097152\n',
        "free pages and a high watermark, found '\\n  pages free x\\n  man",
    ),
]

NODES = [
    ('0-2', 'online lists NUMA node 2, and there is no '),
    ('1', 'node0, and '),
]

# What has been done to a ledger, and what is told.
LEDGERS = [
    ('UPDATE holds SET pages = -1', 'in holds: holder ', 'pages -1'),
    ("UPDATE holds SET pages = 'x'", 'in holds: holder ', "pages 'x'"),
    ('UPDATE holds SET pages = 1.5', 'in holds: holder ', 'pages 1.5'),
    ('UPDATE holds SET node = -1', 'in holds: holder ', 'node -1'),
    ('UPDATE holds SET size_kib = 0', 'in holds: holder ', 'size_kib 0'),
    ("UPDATE holds SET state = 'lost'", 'in holds: holder ', "state 'lost'"),
    ("UPDATE holds SET purpose = 'x'", 'in holds: holder ', "purpose 'x'"),
    ('UPDATE holds SET since = -1', 'in holds: holder ', 'since -1.0'),
    ("UPDATE holds SET since = 'now'", 'in holds: holder ', "since 'now'"),
    ('UPDATE holds SET since = 1e20', 'in holds: holder ', 'since 1e+20'),
    ('UPDATE accounts SET floor = -1', 'in accounts: node ', 'floor -1'),
    ("UPDATE accounts SET grown = 'x'", 'in accounts: node ', "grown 'x'"),
    ('UPDATE accounts SET announced_to = 1', 'in accounts: ', '(CHECK con'),
    ('PRAGMA user_version = 99', 'has version 99 of its schema', 'or a later'),
    ('PRAGMA user_version = -1', 'a database, but not of huge', 'is a data'),
]

EXTRA_SPECS = [
    (extra_specs.MAX_DISTANCE, value, 'an integer from 10 to 255')
    for value in ('', '9', '256', '-1', 'x', '20.5', '1e2', '0x14', '20 31')
] + [
    (extra_specs.GUEST_DISTANCES, value, "'true' or 'false'")
    for value in ('', '2', 'maybe', 'tru')
]

EXTRA_SPEC_NAMES = [
    'numa_hugepages:',
    'numa_hugepages:max_distanc',
    'numa_hugepages:max-distance',
    'numa_hugepages:guest_distance',
]

SCHEDULER = f"""
[filter_scheduler]
available_filters = nova.scheduler.filters.all_filters
available_filters = {status.FILTER_PATH}
enabled_filters = ComputeFilter,NUMAHugepagesFilter
weight_classes = nova.scheduler.weights.all_weighers,{status.WEIGHER_PATH}
"""

# What is written in the place of what, the check that tells it, and how.
CHECKS = [
    (
        ',NUMAHugepagesFilter',
        ',NumaHugePagesFilter',
        status.FILTER,
        'no filter NumaHugePagesFilter, which is in [filter_scheduler] '
        'enabled_filters. Did you mean NUMAHugepagesFilter?',
    ),
    (
        ',NUMAHugepagesFilter',
        '',
        status.FILTER,
        'not enabled. Add it to [filter_scheduler] enabled_filters.',
    ),
    (
        '= ComputeFilter',
        '= ComputeFiltr',
        status.FILTER,
        'Enabled but not available: ComputeFiltr.',
    ),
    (
        'filters.NUMAHugepagesFilter\n',
        'filters.NUMAHugepageFilter\n',
        status.FILTER,
        'Class NUMAHugepageFilter cannot be found. Did you mean '
        f'{status.FILTER_PATH}?',
    ),
    (
        'scheduler.filters.NUMA',
        'scheduler.filter.NUMA',
        status.FILTER,
        "No module named 'nova_numa_hugepages.scheduler.filter'. Did you mean "
        f'{status.FILTER_PATH}?',
    ),
    (
        f'available_filters = {status.FILTER_PATH}\n',
        '',
        status.FILTER,
        f'Add the line "available_filters = {status.FILTER_PATH}" to',
    ),
    (
        'available_filters = nova.scheduler.filters.all_filters\n',
        '',
        status.FILTER,
        'keep the line "available_filters = nova.scheduler.filters.all_',
    ),
    (
        ',NUMAHugepagesFilter',
        ',NUMAHugepagesFilter,NUMATopologyFilter',
        status.STOCK_FILTER,
        'Take it out of [filter_scheduler] enabled_filters.',
    ),
    (
        'weights.NUMAHugepagesWeigher',
        'weights.NUMAHugePagesWeigher',
        status.WEIGHER,
        'Class NUMAHugePagesWeigher cannot be found. Did you mean '
        f'{status.WEIGHER_PATH}?',
    ),
    (
        f',{status.WEIGHER_PATH}',
        '',
        status.WEIGHER,
        f'Add {status.WEIGHER_PATH} to [filter_scheduler] weight_classes',
    ),
    (
        'nova.scheduler.weights.all_weighers,',
        '',
        status.WEIGHER,
        'Add nova.scheduler.weights.all_weighers to [filter_scheduler]',
    ),
    (
        f',{status.WEIGHER_PATH}',
        f',{status.WEIGHER_PATH},{status.WEIGHER_PATH}',
        status.WEIGHER,
        'is 2 times in [filter_scheduler] weight_classes',
    ),
    (
        '[filter_scheduler]',
        '[filter_scheduler]\nhost_subset_size = 5',
        status.WEIGHER,
        'host_subset_size is 5: Nova takes any of so many best hosts',
    ),
    (
        '[filter_scheduler]',
        '[filter_scheduler]\nhost_subset_size = two',
        status.WEIGHER,
        "found 'two' in {0}, expected a number from 1 on. Set it to 1.",
    ),
    (
        '[filter_scheduler]',
        '[filter_scheduler]\nhost_subset_size = 0',
        status.WEIGHER,
        "found '0' in {0}, expected a number from 1 on. Set it to 1.",
    ),
    (
        '[filter_scheduler]',
        '[numa_hugepages]\nweight_multiplier = 0\n[filter_scheduler]',
        status.WEIGHER,
        'weight_multiplier is 0. Raise it, or take the weigher out of',
    ),
    (
        '[filter_scheduler]',
        '[numa_hugepages]\nweight_multiplier = -2\n[filter_scheduler]',
        status.WEIGHER,
        'weight_multiplier is negative',
    ),
    (
        '[filter_scheduler]',
        '[numa_hugepages]\nweight_multiplier =\n[filter_scheduler]',
        'Options of [numa_hugepages]',
        "weight_multiplier: found '', expected a finite number",
    ),
    (
        '[filter_scheduler]',
        '[numa_hugepages]\ndemand_file = /nowhere/x\n[filter_scheduler]',
        'Options of [numa_hugepages]',
        '/nowhere is not a folder that this service can write to. Name',
    ),
]

# What is written in the place of what in the example, and what is told.
SCENARIOS = [
    ('hosts:', 'host:', "{0}: 'hosts' is a required property"),
    ('hosts:', 'host:', '{0}: host: unknown key, expected one of hosts, '),
    ('flavors:', 'flavours:', 'flavours: unknown key, expected one of hosts'),
    ('hosts:', '\thosts:', '{0}: not YAML: while scanning for the next toke'),
    ('hosts:', 'hosts: {', '{2}: not YAML: while parsing a flow mapping, exp'),
]


@pytest.fixture
def host(tmp_path):
    return command_host.two_guests(tmp_path)


def told_by_show(host, capsys, *words):
    """Run ``host show`` and get the exit code and what it says."""
    code = host.run('show', '-f', 'value', '-c', 'node', *words)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(('name', 'value', 'expected'), OPTIONS)
def test_options(host, capsys, tmp_path, name, value, expected):
    path = tmp_path / 'nova.conf'
    path.write_text(f'[numa_hugepages]\n{name} = {value}\n')

    # The commands
    code, text = told_by_show(host, capsys, '--config-file', str(path))
    assert (code, text) == (
        2,
        f'{path}: [numa_hugepages] {name}: found {value!r}, expected '
        f'{expected}\n',
    )

    # The services
    (problem,) = _problems(path)
    assert problem.startswith(f'option [numa_hugepages] {name}: found ')
    assert f'{value!r}' in problem
    assert f', expected {expected}' in problem
    assert 'object' not in problem
    assert 'Location' not in problem


@pytest.mark.parametrize(('name', 'value', 'reason', 'expected'), NUMBERS)
def test_options_that_are_numbers(
    host, capsys, tmp_path, name, value, reason, expected
):
    path = tmp_path / 'nova.conf'
    path.write_text(f'[numa_hugepages]\n{name} = {value}\n')

    code, text = told_by_show(host, capsys, '--config-file', str(path))
    assert code == 2
    assert f'{name}: found {value!r}, expected {expected}' in text

    (problem,) = _problems(path)
    assert problem.startswith(f'option [numa_hugepages] {name}: ')
    assert reason in problem


def _problems(path):
    conf = cfg.ConfigOpts()
    package_conf.register_opts(conf)
    conf(['--config-file', str(path)], default_config_files=[])
    return [str(problem) for problem in package_conf.problems(conf)]


@pytest.mark.parametrize('value', RESERVED)
def test_reserved_pages(host, capsys, tmp_path, value):
    path = tmp_path / 'nova.conf'
    path.write_text(f'[DEFAULT]\nreserved_huge_pages = {value}\n')

    assert told_by_show(host, capsys, '--config-file', str(path)) == (
        2,
        f'{path}: [DEFAULT] reserved_huge_pages: found {value!r}, expected '
        'for example node:0,size:2048,count:64\n',
    )


@pytest.mark.parametrize(('value', 'pool'), NO_SUCH_POOL)
def test_reserved_pages_that_the_host_does_not_have(
    host, capsys, tmp_path, value, pool
):
    path = tmp_path / 'nova.conf'
    path.write_text(f'[DEFAULT]\nreserved_huge_pages = {value}\n')

    code, text = told_by_show(host, capsys, '--config-file', str(path))

    assert code == 0
    assert f'reserved_huge_pages names {pool}, which this host does' in text
    assert 'its pools are: 2 MiB on NUMA node 0, ' in text


@pytest.mark.parametrize(('content', 'found'), FILES)
def test_configuration_files(host, capsys, tmp_path, content, found):
    path = tmp_path / 'nova.conf'
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)

    code, text = told_by_show(host, capsys, '--config-file', str(path))

    assert code == 2
    assert text.startswith(
        f'{path}: expected a configuration file, found: {found}'
    )


@pytest.mark.parametrize(('content', 'told'), NAMES)
def test_names_in_configuration_files(host, capsys, tmp_path, content, told):
    path = tmp_path / 'nova.conf'
    path.write_text(f'{content}\n')

    code, text = told_by_show(host, capsys, '--config-file', str(path))

    assert code == 0
    assert text.startswith(f'{path}:')
    assert told in text


@pytest.mark.parametrize(('words', 'code', 'told'), ARGUMENTS)
def test_arguments(host, capfd, tmp_path, words, code, told):
    given = words.format(tmp_path).split()
    if given[:2] in (['host', 'release'], ['host', 'reconcile']):
        given += ['--root', str(host.root), '--ledger', str(host.ledger)]
        given += ['--config-file', str(host.conf)]

    try:
        found = main.run(given, host.machine)
    except SystemExit as end:
        found = end.code

    # As cliff prints to the standard output that it started with.
    text = ''.join(capfd.readouterr())
    assert found == code
    assert told.format(tmp_path) in text


@pytest.mark.parametrize(('name', 'content', 'told'), KERNEL)
def test_files_of_the_kernel(host, capsys, name, content, told):
    path = host.root / name
    path.write_text(content)

    code, text = told_by_show(host, capsys)

    assert code == 1
    assert text.startswith(f'{path}: expected {told}')


@pytest.mark.parametrize(('online', 'told'), NODES)
def test_nodes_without_folder_and_folders_without_node(
    host, capsys, online, told
):
    (host.root / NODE / 'online').write_text(online)

    code, text = told_by_show(host, capsys)

    assert code == 2
    assert told in text


@pytest.mark.parametrize(('statement', 'told', 'value'), LEDGERS)
def test_ledgers(host, capsys, statement, told, value):
    with contextlib.closing(sqlite3.connect(host.ledger)) as connection:
        connection.execute('PRAGMA ignore_check_constraints = 1')
        if 'purpose' in statement:
            connection.execute('DELETE FROM holds WHERE cell > 0')
        connection.execute(statement)
        connection.commit()

    code, text = told_by_show(host, capsys)

    assert code == 0
    assert f'The ledger of huge pages {host.ledger} ' in text
    assert told in text
    assert value in text
    assert 'Until then it is not known which pages are held' in text


@pytest.mark.parametrize('cut', [50, 99, 5000])
def test_ledgers_that_are_cut(host, capsys, tmp_path, cut):
    path = tmp_path / host.ledger.name
    shutil.copy(host.ledger, path)
    path.write_bytes(path.read_bytes()[:cut])

    code, text = told_by_show(host, capsys, '--ledger', str(path))

    assert code == 0
    assert f'The ledger of huge pages {path} is damaged: ' in text
    assert f'move {path} aside' in text


@pytest.mark.parametrize(('name', 'value', 'expected'), EXTRA_SPECS)
def test_extra_specs(name, value, expected):
    # Nova's API
    with pytest.raises(nova_exception.ValidationError) as refused:
        validators.validate(name, value)
    assert f"'{value}' is " in str(refused.value)

    # The scheduler, for a flavor that was made otherwise
    read = {
        extra_specs.MAX_DISTANCE: extra_specs.max_distance,
        extra_specs.GUEST_DISTANCES: extra_specs.guest_distances,
    }[name]
    with pytest.raises(exception.InvalidExtraSpec) as caught:
        read({name: value})
    assert str(caught.value) == (
        f'extra spec {name} is {value!r}; expected {expected}. Set it to '
        'such a value or unset it on the flavor, and create the server again.'
    )


@pytest.mark.parametrize('name', EXTRA_SPEC_NAMES)
def test_names_of_extra_specs(name):
    with pytest.raises(
        nova_exception.ValidationError,
        match=f"'{name}' does not appear to be a valid extra spec",
    ):
        validators.validate(name, '20')


@pytest.mark.parametrize(('old', 'new', 'name', 'told'), CHECKS)
def test_the_upgrade_check(capsys, tmp_path, old, new, name, told):
    assert old in SCHEDULER
    path = tmp_path / 'nova.conf'
    path.write_text(
        f'[DEFAULT]\nstate_path = {tmp_path}\n{SCHEDULER.replace(old, new)}'
    )

    code = status.run(
        ['--config-file', str(path), 'upgrade', 'check', '--json']
    )

    assert code in (1, 2)
    checks = json.loads(capsys.readouterr().out)['checks']
    (details,) = [one['details'] for one in checks if one['check'] == name]
    assert told.format(path) in details
    assert 'Traceback' not in details


@pytest.mark.parametrize(('old', 'new', 'told'), SCENARIOS)
def test_scenarios(capsys, tmp_path, old, new, told):
    path = tmp_path / 'fleet.yaml'
    text = (ETC / 'simulate.yaml').read_text()
    path.write_text(text.replace(f'\n{old}', f'\n{new}', 1))

    assert main.run(['simulate', str(path)]) == 2

    found = capsys.readouterr().err
    assert found.startswith(f'{path}:')
    hosts = text[: text.index('\nhosts:')].count('\n') + 2
    for more in range(3):
        told = told.replace(f'{{{more}}}', str(hosts + more))
    assert told in found
