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


import json
import subprocess
import sys
import textwrap

from nova.virt import hardware
import pytest

from nova_numa_hugepages.cmd import status

SUCCESS, WARNING, FAILURE = 0, 1, 2

STOCK_WEIGHERS = 'nova.scheduler.weights.all_weighers'
GOOD = f"""
    [filter_scheduler]
    available_filters = nova.scheduler.filters.all_filters
    available_filters = {status.FILTER_PATH}
    enabled_filters = ComputeFilter,NUMAHugepagesFilter
    weight_classes = {STOCK_WEIGHERS},{status.WEIGHER_PATH}
    """


@pytest.fixture
def check(tmp_path, capsys):
    """Run the check on a configuration file.

    Gives the exit code, and by the name of each check its code and details.
    """

    def run(text, *more):
        path = tmp_path / 'nova.conf'
        state = f'[DEFAULT]\nstate_path = {tmp_path}\n'
        path.write_text(state + textwrap.dedent(text))
        code = status.run(
            ['--config-file', str(path), *more, 'upgrade', 'check', '--json']
        )
        output = json.loads(capsys.readouterr().out)
        return code, {
            result['check']: (result['result'], result['details'])
            for result in output['checks']
        }

    return run


def test_slips_in_names_are_reported_with_their_line(check, tmp_path):
    code, found = check(
        GOOD
        + """
    [numa_hugepages]
    page_pool = static
    """
    )

    assert code == WARNING
    result, details = found['Options of [numa_hugepages]']
    assert result == WARNING
    assert details.startswith(f'{tmp_path}/nova.conf:')
    assert details.endswith('Did you mean page_pools?')


@pytest.mark.parametrize(
    ('old', 'new', 'expected'),
    [
        (
            'enabled_filters',
            'host_subset_size = 3\n    enabled_filters',
            'host_subset_size is 3: Nova takes any of so many best hosts',
        ),
        (
            'weight_classes = nova.scheduler.weights.all_weighers,',
            'weight_classes = ',
            'is the only weigher',
        ),
        (
            '    [filter_scheduler]',
            '    [numa_hugepages]\n    weight_multiplier = -1\n'
            '    [filter_scheduler]',
            'weight_multiplier is negative',
        ),
    ],
)
def test_what_makes_the_weigher_useless_is_a_warning(
    check, old, new, expected
):
    assert old in GOOD

    code, found = check(GOOD.replace(old, new))

    assert code == WARNING
    result, details = found['NUMAHugepagesWeigher']
    assert (result, expected in details) == (WARNING, True), details


@pytest.mark.parametrize('name', ['NUMAHugePagesFilter', 'NumaHugepageFilter'])
def test_a_filter_whose_name_is_nearly_right(check, name):
    code, found = check(GOOD.replace(',NUMAHugepagesFilter', f',{name}'))

    assert code == FAILURE
    assert found['NUMAHugepagesFilter'] == (
        FAILURE,
        f'There is no filter {name}, which is in [filter_scheduler] '
        'enabled_filters. Did you mean NUMAHugepagesFilter?',
    )


def test_all_bad_options_are_reported(check):
    _, found = check(
        GOOD
        + """
    [numa_hugepages]
    page_pools = both
    warm_margin_mib = -1
    """
    )

    _, details = found['Options of [numa_hugepages]']
    assert '[numa_hugepages] page_pools: ' in details
    assert '[numa_hugepages] warm_margin_mib: ' in details


def test_a_state_path_that_is_not_set(tmp_path, capsys):
    path = tmp_path / 'nova.conf'
    path.write_text(textwrap.dedent(GOOD))

    status.run(['--config-file', str(path), 'upgrade', 'check', '--json'])

    output = json.loads(capsys.readouterr().out)
    [details] = [
        result['details']
        for result in output['checks']
        if result['check'] == 'Options of [numa_hugepages]'
    ]
    assert details.startswith('[DEFAULT] state_path is not set')


def details_of(checked, name, result):
    """Return the details of one check, which decides on the whole result."""
    code, results = checked
    assert (code, results[name][0]) == (result, result)
    return results[name][1]


def test_a_good_configuration_passes(check):
    code, results = check(GOOD)

    assert code == SUCCESS
    assert results == {
        'Configuration files': (SUCCESS, None),
        'Options of [numa_hugepages]': (SUCCESS, None),
        'NUMAHugepagesFilter': (SUCCESS, None),
        'NUMATopologyFilter': (SUCCESS, None),
        'NUMAHugepagesWeigher': (SUCCESS, None),
        "Nova's NUMA fit": (SUCCESS, None),
    }


def test_the_filter_may_come_from_a_function(check, monkeypatch):
    # given: available_filters names a function, as all_filters is one
    monkeypatch.setattr(
        f'{__name__}.our_filters', lambda: [_filter_class()], raising=False
    )
    text = GOOD.replace(status.FILTER_PATH, f'{__name__}.our_filters')

    code, results = check(text)

    assert results['NUMAHugepagesFilter'] == (SUCCESS, None)
    assert code == SUCCESS


def test_a_filter_that_is_not_enabled_fails(check):
    checked = check(GOOD.replace(',NUMAHugepagesFilter', ''))

    details = details_of(checked, 'NUMAHugepagesFilter', FAILURE)
    assert 'not enabled' in details


def test_a_filter_that_is_not_available_fails_with_the_line_to_add(check):
    checked = check(
        GOOD.replace(f'available_filters = {status.FILTER_PATH}', '')
    )

    details = details_of(checked, 'NUMAHugepagesFilter', FAILURE)
    assert f'available_filters = {status.FILTER_PATH}' in details


def test_an_available_filter_that_cannot_be_loaded_fails(check):
    checked = check(GOOD.replace(status.FILTER_PATH, 'no.such.Filter'))

    details = details_of(checked, 'NUMAHugepagesFilter', FAILURE)
    assert 'no.such.Filter' in details


def test_another_filter_of_the_same_name_fails(check, monkeypatch):
    impostor = type('NUMAHugepagesFilter', (_filter_class(),), {})
    monkeypatch.setattr(f'{__name__}.impostor', impostor, raising=False)

    checked = check(GOOD.replace(status.FILTER_PATH, f'{__name__}.impostor'))

    details = details_of(checked, 'NUMAHugepagesFilter', FAILURE)
    assert 'not the one of this package' in details


def test_the_stock_filter_beside_ours_is_a_warning(check):
    checked = check(
        GOOD.replace(
            ',NUMAHugepagesFilter', ',NUMAHugepagesFilter,NUMATopologyFilter'
        )
    )

    details = details_of(checked, 'NUMATopologyFilter', WARNING)
    assert 'enabled_filters' in details


def test_an_option_out_of_range_fails_by_name(check):
    checked = check(f'{GOOD}\n    [numa_hugepages]\n    rejection_reasons = 0')

    details = details_of(checked, 'Options of [numa_hugepages]', FAILURE)
    assert '[numa_hugepages] rejection_reasons' in details


def test_options_of_a_config_dir_count(check, tmp_path):
    # given: a good file, and a folder of files that override it
    folder = tmp_path / 'nova.conf.d'
    folder.mkdir()
    (folder / '10.conf').write_text(
        '[numa_hugepages]\nstock_claim_search_limit = 0\n'
    )

    code, results = check(GOOD, '--config-dir', str(folder))

    assert code == FAILURE
    assert results['Options of [numa_hugepages]'][0] == FAILURE


def test_a_nova_with_another_fit_fails_with_both_signatures(
    check, monkeypatch
):
    monkeypatch.setattr(
        hardware, 'numa_fit_instance_to_host', lambda host, theirs: None
    )

    checked = check(GOOD)

    details = details_of(checked, "Nova's NUMA fit", FAILURE)
    assert 'written for the signature (host_topology, ' in details
    assert 'the installed Nova has (host, theirs)' in details


def test_no_configuration_file_is_a_warning(capsys, monkeypatch):
    # given: a machine without any nova.conf
    monkeypatch.setattr('oslo_config.cfg.find_config_files', lambda *_: [])
    monkeypatch.setattr('oslo_config.cfg.find_config_dirs', lambda *_: [])

    status.run(['upgrade', 'check', '--json'])

    results = {
        result['check']: result
        for result in json.loads(capsys.readouterr().out)['checks']
    }
    assert results['Configuration files']['result'] == WARNING
    assert '--config-file' in results['Configuration files']['details']


def test_a_file_that_is_not_there_is_an_error_without_a_traceback(capsys):
    code = status.run(['--config-file', '/no/such/file', 'upgrade', 'check'])

    assert code == status.CANNOT_RUN
    captured = capsys.readouterr()
    assert '/no/such/file' in captured.err
    assert 'Traceback' not in captured.out + captured.err


def test_a_file_that_cannot_be_parsed_is_an_error_with_its_line(
    capsys, tmp_path
):
    path = tmp_path / 'nova.conf'
    path.write_text('[filter_scheduler]\nwhat is this\n')

    code = status.run(['--config-file', str(path), 'upgrade', 'check'])

    assert code == status.CANNOT_RUN
    assert f'{path}:2' in capsys.readouterr().err


def test_the_table_for_people_names_every_check(capsys, tmp_path):
    path = tmp_path / 'nova.conf'
    state = f'[DEFAULT]\nstate_path = {tmp_path}\n'
    path.write_text(state + textwrap.dedent(GOOD))

    code = status.run(['--config-file', str(path), 'upgrade', 'check'])

    assert code == SUCCESS
    table = capsys.readouterr().out
    for name, _ in status.Checks._upgrade_checks:
        assert f'Check: {name}' in table


def _filter_class():
    from nova_numa_hugepages.scheduler import filters

    return filters.NUMAHugepagesFilter


def test_a_filter_of_nova_that_is_not_available_fails(check):
    # given: the line for Nova's own filters is missing
    checked = check(
        GOOD.replace(
            'available_filters = nova.scheduler.filters.all_filters', ''
        )
    )

    details = details_of(checked, 'NUMAHugepagesFilter', FAILURE)
    assert 'ComputeFilter' in details
    assert 'available_filters = nova.scheduler.filters.all_filters' in details


@pytest.mark.parametrize('content', [None, b'[DEFAULT]\nhost = \xe9\n'])
def test_what_cannot_be_read_is_an_error(tmp_path, capsys, content):
    # given: a folder, or a file that is no text
    path = tmp_path
    if content is not None:
        path = tmp_path / 'nova.conf'
        path.write_bytes(content)

    code = status.run(['--config-file', str(path), 'upgrade', 'check'])

    assert code == status.CANNOT_RUN
    assert 'The configuration cannot be read' in capsys.readouterr().err


@pytest.mark.parametrize('missing', ['no.such.Filter', 'Filter'])
def test_what_is_no_filter_fails(check, missing):
    code, results = check(GOOD.replace(status.FILTER_PATH, missing))

    assert code == FAILURE
    assert results['NUMAHugepagesFilter'][0] == FAILURE


class TestWeigher:
    NAME = 'NUMAHugepagesWeigher'

    def test_without_it_there_is_a_warning_that_says_what_to_add(self, check):
        checked = check(GOOD.replace(f',{status.WEIGHER_PATH}', ''))

        details = details_of(checked, self.NAME, WARNING)
        assert 'The filter works without it' in details
        assert (
            f'Add {status.WEIGHER_PATH} to [filter_scheduler] weight_classes'
            in details
        )

    @pytest.mark.parametrize(
        'path', ['no.such.Weigher', 'Weigher', 'os.path.join', 'os.nothing']
    )
    def test_one_that_cannot_be_loaded_fails(self, check, path):
        checked = check(GOOD.replace(STOCK_WEIGHERS, path))

        details = details_of(checked, self.NAME, FAILURE)
        assert details.startswith(
            f'The weigher {path} of [filter_scheduler] weight_classes cannot '
            'be loaded: '
        )

    @pytest.mark.parametrize(
        ('before', 'after', 'problem'),
        [
            (
                status.WEIGHER_PATH,
                f'{status.WEIGHER_PATH},{status.WEIGHER_PATH}',
                'is 2 times in [filter_scheduler] weight_classes',
            ),
            (',NUMAHugepagesFilter', '', 'without NUMAHugepagesFilter'),
        ],
    )
    def test_one_that_is_enabled_wrongly_is_a_warning(
        self, check, before, after, problem
    ):
        _, results = check(GOOD.replace(before, after))

        result, details = results[self.NAME]
        assert result == WARNING
        assert problem in details

    @pytest.mark.parametrize('multiplier', ['0', '-0.0'])
    def test_one_without_effect_is_a_warning(self, check, multiplier):
        checked = check(
            f'{GOOD}\n    [numa_hugepages]\n'
            f'    weight_multiplier = {multiplier}'
        )

        details = details_of(checked, self.NAME, WARNING)
        assert '[numa_hugepages] weight_multiplier is 0' in details

    def test_all_that_is_wrong_is_reported(self, check):
        twice = f'{status.WEIGHER_PATH},{status.WEIGHER_PATH}'
        text = GOOD.replace(status.WEIGHER_PATH, twice)

        _, results = check(
            f'{text}\n    [numa_hugepages]\n    weight_multiplier = 0'
        )

        assert 'is 2 times' in results[self.NAME][1]
        assert 'weight_multiplier is 0' in results[self.NAME][1]

    @pytest.mark.parametrize(
        ('name', 'value', 'problem'),
        [
            ('weight_multiplier', 'much', 'weight_multiplier: '),
            ('demand_mix', 'small:many', 'flavor small has the share'),
            ('demand_file', 'no/such/demand.json', 'is not a folder that'),
            ('demand_file', '.', 'is a folder.'),
        ],
    )
    def test_its_options_are_checked(self, check, name, value, problem):
        checked = check(f'{GOOD}\n    [numa_hugepages]\n    {name} = {value}')

        details = details_of(checked, 'Options of [numa_hugepages]', FAILURE)
        assert f'[numa_hugepages] {name}' in details
        assert problem in details

    def test_a_file_that_is_not_written_need_not_be_writable(self, check):
        # given: the weigher is not enabled, or keeps nothing
        section = '\n    [numa_hugepages]\n    demand_file ='
        without = GOOD.replace(f',{status.WEIGHER_PATH}', '')

        for text in (f'{GOOD}{section}', f'{without}{section} no/such/file'):
            _, results = check(text)
            assert results['Options of [numa_hugepages]'] == (SUCCESS, None)


def test_what_libraries_warn_of_each_other_is_not_shown():
    done = subprocess.run(
        [sys.executable, '-m', 'nova_numa_hugepages.cmd.status', '--help'],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ''
