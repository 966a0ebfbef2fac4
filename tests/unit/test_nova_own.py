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


"""The list of tests of Nova that are not run."""

import pytest

from tests.nova_own import __main__ as nova_own


def test_exclusions_are_read_with_their_reasons():
    lines = ['# a comment', '', 'nova.a.T.test_b: it repeats b03: twice', '\n']

    assert nova_own.read_exclusions(lines) == {
        'nova.a.T.test_b': 'it repeats b03: twice'
    }


@pytest.mark.parametrize('line', ['nova.a.T.test_b', 'nova.a.T.test_b:  '])
def test_an_exclusion_without_a_reason_is_refused(line):
    with pytest.raises(nova_own.UsageError, match=r'line 1: .* no reason'):
        nova_own.read_exclusions([line])


def test_an_exclusion_given_twice_is_refused():
    with pytest.raises(nova_own.UsageError, match=r'line 2: .* twice'):
        nova_own.read_exclusions(['t: one', 't: two'])


def test_an_exclusion_that_matches_no_test_is_refused(
    tmp_path, monkeypatch, capsys
):
    exclusions = tmp_path / 'exclusions.txt'
    exclusions.write_text('nova.no.such.test: gone')
    monkeypatch.setattr(nova_own, 'EXCLUSIONS', exclusions)
    monkeypatch.setattr(nova_own, 'list_ids', lambda modules: ['nova.a.test'])

    assert nova_own.main([]) == 1
    assert 'no such test: nova.no.such.test' in capsys.readouterr().err


def test_no_test_to_run_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(nova_own, 'read_exclusions', lambda lines: {})
    monkeypatch.setattr(nova_own, 'list_ids', lambda modules: ['nova.a.test'])

    assert nova_own.main(['nothing-like-this']) == 1
    assert 'no test to run' in capsys.readouterr().err


def test_a_test_that_did_not_run_is_a_failure(monkeypatch, capsys):
    # given: workers that end without a word
    monkeypatch.setattr(nova_own, 'read_exclusions', lambda lines: {})
    monkeypatch.setattr(
        nova_own, 'list_ids', lambda modules: ['nova.tests.unit.gone.T.test']
    )
    monkeypatch.setattr(nova_own, 'WORKER', ('false',))

    assert nova_own.main(['--jobs', '2']) == 1

    output = capsys.readouterr().out
    assert 'FAILED nova.tests.unit.gone.T.test' in output
    assert '1 tests, 1 failed' in output
