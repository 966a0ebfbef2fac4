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


"""The command ``nova-numa-hugepages simulate`` as a user runs it."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
import ruamel.yaml

from nova_numa_hugepages.simulate import scenario_file
from tests.functional import commands

PIP = "pip install 'nova-numa-hugepages[simulate]'"
USE = (
    'Give either the FILE of a scenario, or --from-nova, --example or '
    '--schema. See --help.\n'
)
LENDING = """
hosts:
  solo: {nodes: 1, cores: 8, memory_gib: 40, pages: {2MiB: 16384}}
flavors:
  db:
    vcpus: 1
    memory_mib: 16384
    extra_specs:
      hw:mem_page_size: 2MB
      hw:cpu_policy: dedicated
      numa_hugepages:elastic_base_percent: "50"
arrivals: {count: 5}
"""
COMES_AND_GOES = (
    LENDING.partition('arrivals')[0]
    + 'arrivals: {count: 96, per_hour: 1, mean_lifetime: 1}\n'
)
ONE_RUN = '1 run, 2 hosts, about 11 arrivals at most.\n'


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a scenario."""
    (tmp_path / 'fleet.yaml').write_text(commands.SHORT)
    return tmp_path


def names(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def test_everything_at_once(folder: pathlib.Path) -> None:
    # Given a scenario, when all there is is asked for,
    (folder / 'fleet.yaml').write_text(commands.SCENARIO)
    code, out, err = commands.command(
        folder,
        *('simulate', 'fleet.yaml', '--seeds', '2', '--bound'),
        *('--demand', 'learned', '--jobs', '2'),
        *('--json', 'out/results.json', '--plots', 'out'),
    )

    # then tables are printed, and nothing else,
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == 'Fill: instances arrive and stay, until one is refused'
    assert 'Churn: instances arrive, and leave after a while' in lines
    assert any(line.startswith(' share of the bound') for line in lines)
    assert max(map(len, lines)) <= 80
    # files are written in full and reported,
    plots = ['fleet-churn', 'fleet-fill', 'placed', 'refusals-churn']
    written = [
        'out/results.json',
        *(f'out/{name}.{kind}' for name in plots for kind in ('png', 'svg')),
    ]
    estimate, *reported = err.splitlines()
    assert estimate == '8 runs, 2 hosts, about 124 arrivals at most.'
    assert reported == [f'Written: {name}' for name in written]
    assert names(folder) == sorted(['fleet.yaml', 'out', *written])
    # and the JSON has all runs.
    document = json.loads((folder / 'out' / 'results.json').read_text())
    assert document['complete'] is True
    assert [
        (run['phase'], run['seed'], run['policy'], run['bound'] is None)
        for run in document['runs']
    ] == [
        (phase, seed, policy, phase == 'churn')
        for phase in ('fill', 'churn')
        for seed in (1, 2)
        for policy in ('stock', 'ours')
    ]
    assert all(
        run['placed'] <= run['bound']
        for run in document['runs']
        if run['bound'] is not None
    )


def test_lending(folder: pathlib.Path) -> None:
    code, _, err = commands.command(
        folder, 'simulate', 'fleet.yaml', '--lending'
    )
    assert code == 2
    assert 'needs a flavor with the extra spec numa_hugepages:elastic' in err
    (folder / 'fleet.yaml').write_text(LENDING)

    code, out, _ = commands.command(
        folder,
        *('simulate', 'fleet.yaml', '--policy', 'ours', '--jobs', '2'),
        '--lending',
    )

    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    rows = {line[0]: line[1] for line in lines if line and line[0][0] == '1'}
    assert rows == {'1': '2', '1.1': '2', '1.25': '2', '1.5': '3'}
    assert max(map(len, out.splitlines())) <= 80


def test_pages_made_ready(folder: pathlib.Path) -> None:
    for text, said in (
        (commands.SHORT, 'needs instances that come and go'),
        (commands.SCENARIO, 'needs two days or more, and instances come for'),
    ):
        (folder / 'fleet.yaml').write_text(text)
        code, _, err = commands.command(
            folder, 'simulate', 'fleet.yaml', '--ready'
        )
        assert code == 2
        assert said in err
    (folder / 'fleet.yaml').write_text(COMES_AND_GOES)

    code, out, _ = commands.command(
        folder,
        *('simulate', 'fleet.yaml', '--phase', 'churn', '--jobs', '2'),
        '--ready',
    )

    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert any(line.startswith('idle GiB hours') for line in lines)
    assert 'Of 24 starts in the last 24 hours, after what came before' in out
    assert max(map(len, out.splitlines())) <= 80


def test_one_policy(folder: pathlib.Path) -> None:
    code, out, err = commands.command(
        folder, 'simulate', 'fleet.yaml', '--policy', 'ours', '--jobs', '1'
    )

    assert (code, err) == (0, ONE_RUN)
    assert 'stock Nova' not in out
    assert out.splitlines()[-1].startswith('This package places ')
    assert names(folder) == ['fleet.yaml']


def test_a_reader_that_has_seen_enough(folder: pathlib.Path) -> None:
    # Given a pipe whose end is closed,
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'nova_numa_hugepages.cmd.main'),
            *('simulate', 'fleet.yaml', '--policy', 'ours', '--jobs', '1'),
            *('--json', 'results.json'),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()

    # when the results are to be printed,
    assert process.stderr is not None
    err = process.stderr.read()

    # then the command ends quietly, and its files are there.
    assert process.wait() != 0
    assert err == f'{ONE_RUN}Written: results.json\n'
    assert json.loads((folder / 'results.json').read_text())['complete']


@pytest.mark.parametrize(
    ('number', 'to_all'),
    [
        (signal.SIGINT, True),
        (signal.SIGTERM, False),
        # As systemd and timeout(1) do.
        (signal.SIGTERM, True),
    ],
)
def test_an_interrupt_tells_what_there_is(
    folder: pathlib.Path, number: signal.Signals, to_all: bool
) -> None:
    # Given a simulation that has filled the fleet, and has a long way to go,
    (folder / 'long.yaml').write_text(commands.LONG)
    with commands.session(
        folder,
        *('simulate', 'long.yaml', '--jobs', '2', '--json', 'results.json'),
    ) as session:
        session.wait_for(percent=14)
        time.sleep(1)

        # when it is interrupted,
        session.signal(number, to_all=to_all)
        code, out = session.end()

        # then it tells of the runs that are done,
        assert code == 130
        assert out.splitlines()[0].startswith('Fill: ')
        assert 'Interrupted after 2 of 4 runs' in out
        # with nothing unexpected,
        assert 'Traceback' not in session.shown
        assert session.shown.rstrip().endswith('Written: results.json')
        # and leaves no process and no half file behind.
        assert session.others() == []
    assert names(folder) == ['fleet.yaml', 'long.yaml', 'results.json']
    document = json.loads((folder / 'results.json').read_text())
    assert document['complete'] is False
    assert [run['phase'] for run in document['runs']] == ['fill', 'fill']


def test_an_interrupt_before_anything_is_done(folder: pathlib.Path) -> None:
    # Given a simulation that has just begun,
    with commands.session(
        folder, 'simulate', 'fleet.yaml', '--json', 'o.json', '--plots', 'o'
    ) as session:
        session.wait_for(percent=0)

        # when it is interrupted while its processes start,
        session.signal(signal.SIGINT, to_all=True)
        code, out = session.end()

        # then it says so, and nothing else has happened,
        assert code == 130
        assert out in ('', 'Interrupted before the first run was done.\n')
        assert 'Interrupted' in out + session.shown
        assert 'Traceback' not in session.shown
        assert 'Written' not in session.shown
        assert session.others() == []
    assert names(folder) == ['fleet.yaml']


def test_a_mistake_in_the_file_is_reported_before_anything_else(
    folder: pathlib.Path,
) -> None:
    # Given a file with two mistakes,
    (folder / 'bad.yaml').write_text(
        commands.SCENARIO.replace('cores: 4', 'cores: four').replace(
            'count: 20', 'count: -20'
        )
    )

    # when it is simulated,
    code, out, err = commands.command(
        folder,
        *('simulate', 'bad.yaml', '--bound'),
        *('--json', 'o.json', '--plots', 'plots'),
    )

    # then both are reported with their lines, and nothing is written.
    assert (code, out) == (2, '')
    assert err == (
        "bad.yaml:5: hosts.duo.cores: 'four' is not of type 'integer'\n"
        'bad.yaml:21: arrivals.count: -20 is less than the minimum of 1\n'
    )
    assert names(folder) == ['bad.yaml', 'fleet.yaml']


@pytest.mark.parametrize(
    ('arguments', 'expected', 'message'),
    [
        pytest.param([], 2, USE, id='neither'),
        pytest.param(['fleet.yaml', '--from-nova'], 2, USE, id='both'),
        pytest.param(
            ['fleet.yaml', '--save', 'new.yaml'],
            2,
            '--save goes with --from-nova only. See --help.\n',
            id='save',
        ),
        pytest.param(
            ['no.yaml'],
            2,
            'no.yaml: cannot read it: No such file or directory\n',
            id='no-file',
        ),
        pytest.param(
            ['fleet.yaml', '--json', 'no/results.json'],
            1,
            'cannot write no/results.json: No such file or directory. Make '
            'the folder no first, or name another one.\n',
            id='json',
        ),
        pytest.param(
            ['fleet.yaml', '--plots', 'fleet.yaml'],
            1,
            'cannot write fleet.yaml: File exists. It is a file: name a '
            'folder.\n',
            id='plots',
        ),
        pytest.param(
            ['trace.yaml', '--seeds', '3'],
            2,
            '--seeds does not go with a trace, which is not drawn at '
            'random.\n',
            id='seeds',
        ),
        pytest.param(
            ['fleet.yaml', '--phase', 'churn'],
            2,
            "--phase churn needs a 'mean_lifetime' in the arrivals: without "
            'one all instances stay.\n',
            id='churn',
        ),
        pytest.param(
            ['trace.yaml', '--phase', 'fill'],
            2,
            '--phase does not go with a trace.\n',
            id='phase-of-a-trace',
        ),
        pytest.param(
            ['trace.yaml', '--scale', '0.5'],
            2,
            '--scale does not go with a trace.\n',
            id='part-of-a-trace',
        ),
        pytest.param(['--example', '--schema'], 2, USE, id='print-both'),
        pytest.param(
            ['fleet.yaml', '--json', './fleet.yaml'],
            2,
            '--json fleet.yaml would overwrite a file that is read here. Name '
            'another file.\n',
            id='json-over-scenario',
        ),
        pytest.param(
            ['trace.yaml', '--json', 'trace.csv'],
            2,
            '--json trace.csv would overwrite a file that is read here. Name '
            'another file.\n',
            id='json-over-trace',
        ),
        pytest.param(
            [
                '--from-nova',
                '--save',
                'fleet.yaml',
                '--config-file',
                'fleet.yaml',
            ],
            2,
            '--save fleet.yaml would overwrite a file that is read here. Name '
            'another file.\n',
            id='save-over-configuration',
        ),
        pytest.param(
            ['--from-nova'],
            1,
            'There is no [api_database] connection in the configuration. '
            'Name the nova.conf of the cloud with --config-file.\n',
            id='no-database',
        ),
        pytest.param(
            ['--from-nova', '--save', 'no/new.yaml'],
            1,
            'cannot write no/new.yaml: No such file or directory. Make the '
            'folder no first, or name another one.\n',
            id='save-nowhere',
        ),
        pytest.param(
            ['fleet.yaml', '--config-file', 'no.conf'],
            1,
            'The configuration cannot be read: Failed to find some config '
            'files: {folder}/no.conf\n',
            id='no-configuration',
        ),
        pytest.param(
            ['fleet.yaml', '--config-file', 'broken.conf'],
            1,
            'The configuration cannot be read: Failed to parse '
            '{folder}/broken.conf: at {folder}/broken.conf:1, Invalid '
            "section (must end with ]): '[scheduler'\n",
            id='broken-configuration',
        ),
    ],
)
def test_what_is_wrong_is_reported_before_any_run(
    folder: pathlib.Path, arguments: list[str], expected: int, message: str
) -> None:
    # Given a scenario with a trace, and a configuration that is none,
    (folder / 'trace.yaml').write_text(
        commands.SCENARIO[: commands.SCENARIO.index('arrivals:')]
        + 'trace: trace.csv\n'
    )
    (folder / 'trace.csv').write_text('time,flavor,lifetime\n0,one,\n')
    (folder / 'broken.conf').write_text('[scheduler\n')
    before = names(folder)

    # when the command can't do what it is asked,
    code, out, err = commands.command(folder, 'simulate', *arguments)

    # then it says why.
    assert (code, out) == (expected, '')
    assert err == message.format(folder=folder.resolve())
    assert names(folder) == before


def test_a_flavor_that_fits_on_no_host_is_left_out(
    folder: pathlib.Path,
) -> None:
    (folder / 'fleet.yaml').write_text(
        commands.SCENARIO.replace(
            'flavors:\n',
            'flavors:\n'
            '  odd:\n'
            '    vcpus: 1\n'
            '    memory_mib: 2049\n'
            '    extra_specs: {hw:mem_page_size: 2MB}\n',
        )
    )
    assert 'odd' in (folder / 'fleet.yaml').read_text()

    code, _, err = commands.command(
        folder, 'simulate', 'fleet.yaml', '--policy', 'ours', '--json', 'a'
    )

    assert code == 0
    assert err.startswith('Flavor odd fits on no host of the fleet (')
    assert err.splitlines()[0].endswith('It is left out.')
    runs = json.loads((folder / 'a').read_text())['runs']
    assert all(run['placed'] > 1 for run in runs if run['phase'] == 'fill')


@pytest.mark.parametrize('phase', ['fill', 'churn'])
def test_one_phase_of_a_part_of_the_fleet(
    folder: pathlib.Path, phase: str
) -> None:
    (folder / 'fleet.yaml').write_text(commands.SCENARIO)

    code, _, err = commands.command(
        folder,
        *('simulate', 'fleet.yaml', '--policy', 'ours', '--phase', phase),
        *('--scale', '0.5', '--json', 'results.json'),
    )

    assert code == 0
    most = {'fill': 5, 'churn': 10}[phase]
    assert err.splitlines()[:2] == [
        '1 of 2 hosts are simulated.',
        f'1 run, 1 hosts, about {most} arrivals at most.',
    ]
    document = json.loads((folder / 'results.json').read_text())
    assert [run['phase'] for run in document['runs']] == [phase]


def test_the_example_can_be_simulated(folder: pathlib.Path) -> None:
    code, out, err = commands.command(folder, 'simulate', '--example')
    assert (code, err) == (0, '')

    (folder / 'example.yaml').write_text(out)
    code, _, err = commands.command(
        folder,
        *('simulate', 'example.yaml', '--policy', 'ours'),
        *('--phase', 'fill', '--scale', '0.1'),
    )
    assert code == 0
    assert err.splitlines()[0] == '2 of 12 hosts are simulated.'


def test_the_schema_takes_the_example(folder: pathlib.Path) -> None:
    code, out, err = commands.command(folder, 'simulate', '--schema')

    assert (code, err) == (0, '')
    schema = json.loads(out)
    checker = jsonschema.validators.validator_for(schema)
    checker.check_schema(schema)
    example = ruamel.yaml.YAML(typ='safe').load(scenario_file.example())
    assert not [*checker(schema).iter_errors(example)]
    del example['hosts']['duo']['cores']
    assert [*checker(schema).iter_errors(example)]


@pytest.mark.parametrize('found', ['0', '1.1', 'nan', 'half'])
def test_parts_that_are_none(folder: pathlib.Path, found: str) -> None:
    code, out, err = commands.command(
        folder, 'simulate', 'fleet.yaml', f'--scale={found}'
    )

    assert (code, out) == (2, '')
    assert err.endswith(
        f'error: argument --scale: found {found!r}, expected a number above '
        '0, up to 1\n'
    )


@pytest.mark.parametrize(
    ('option', 'found'),
    [('--jobs', '0'), ('--jobs', 'abc'), ('--seeds', '-1')],
)
def test_numbers_that_are_none(
    folder: pathlib.Path, option: str, found: str
) -> None:
    code, out, err = commands.command(
        folder, 'simulate', 'fleet.yaml', f'{option}={found}'
    )

    assert (code, out) == (2, '')
    assert err.endswith(
        f'error: argument {option}: found {found!r}, expected an integer '
        'from 1 to 1000\n'
    )


def test_an_option_out_of_range(folder: pathlib.Path) -> None:
    # Given an option of ours that is no number,
    (folder / 'nova.conf').write_text(
        '[numa_hugepages]\nweight_multiplier = much\n'
    )

    # when it is used,
    code, out, err = commands.command(
        folder, 'simulate', 'fleet.yaml', '--config-file', 'nova.conf'
    )

    # then it is named.
    assert (code, out) == (1, '')
    assert 'option [numa_hugepages] weight_multiplier' in err
    assert 'Traceback' not in err


@pytest.mark.parametrize(
    ('library', 'arguments', 'purpose'),
    [
        ('matplotlib', ['--plots', 'plots'], 'Plotting'),
        ('scipy', ['--bound'], 'The bound'),
        ('numpy', [], 'A simulation'),
        ('rich', [], 'A simulation'),
        ('ruamel', [], 'A simulation'),
    ],
)
def test_a_library_that_is_not_installed(
    folder: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
    library: str,
    arguments: list[str],
    purpose: str,
) -> None:
    # Given a Python that does not have it,
    path = tmp_path_factory.mktemp('path')
    (path / f'{library}.py').write_text(
        f'raise ModuleNotFoundError("no", name={library!r})\n'
    )

    # when it is needed,
    code, out, err = commands.command(
        folder, 'simulate', 'fleet.yaml', *arguments, PYTHONPATH=str(path)
    )

    # then the command says how to install it.
    assert (code, out) == (1, '')
    assert err == (
        f'{purpose} needs {library}, which is not installed. Install it: '
        f'{PIP}\n'
    )
    assert names(folder) == ['fleet.yaml']


def test_without_plots_matplotlib_is_not_needed(
    folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp('path')
    (path / 'matplotlib.py').write_text('raise ModuleNotFoundError("no")\n')

    code, out, err = commands.command(
        folder,
        *('simulate', 'fleet.yaml', '--policy', 'ours', '--jobs', '1'),
        PYTHONPATH=str(path),
    )

    assert (code, err) == (0, ONE_RUN)
    assert 'This package places ' in out


@pytest.mark.parametrize('arguments', [[], ['help'], ['--help'], ['-v']])
def test_without_a_command_it_tells_which_there_are(
    folder: pathlib.Path, arguments: list[str]
) -> None:
    code, out, err = commands.command(folder, *arguments)

    assert (code, err) == (0, '')
    assert (
        '\n  simulate       Simulate a fleet, and compare this package with '
        'stock Nova on it'
    ) in out


def test_help_fits_a_terminal(folder: pathlib.Path) -> None:
    code, out, err = commands.command(folder, 'simulate', '--help')

    assert (code, err) == (0, '')
    assert max(map(len, out.splitlines())) <= 80
    assert '--from-nova           read hosts and flavors' in out


def test_an_unknown_command(folder: pathlib.Path) -> None:
    code, _, err = commands.command(folder, 'emulate')

    assert code == 2
    assert 'Traceback' not in err


def test_the_version(folder: pathlib.Path) -> None:
    code, out, err = commands.command(folder, '--version')

    assert (code, err) == (0, '')
    assert out.split()[-1][0].isdigit()
