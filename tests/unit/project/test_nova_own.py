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

import sys

import pytest

from tests.nova_own import __main__ as nova_own
from tests.nova_own import workers


def test_exclusions_are_read_with_their_reasons():
    lines = ['# a comment', '', 'nova.a.T.test_b: it repeats b03: twice', '\n']

    assert nova_own.read_exclusions(lines) == {
        'nova.a.T.test_b': 'it repeats b03: twice'
    }


@pytest.mark.parametrize(('release', 'known'), [('33.0.2', 1), ('34.0.0', 0)])
def test_an_exclusion_may_be_for_some_releases(release, known):
    exclusions = nova_own.read_exclusions(['t.test_b (<34): why'], release)

    assert exclusions == ({'t.test_b': 'why'} if known else {})


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


DEVICES = f'{nova_own.NIGHTLY}T.test_devices'
PLAIN = 'nova.tests.unit.plain.T.test'


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ([], {PLAIN}),
        (['--nightly'], {PLAIN, DEVICES}),
        (['test_devices'], {DEVICES}),
        (['unit', '--nightly'], {PLAIN}),
    ],
)
def test_which_tests_run(monkeypatch, words, expected):
    chosen = set()

    def run(tests, **_):
        chosen.update(name for names in tests.values() for name in names)
        return []

    monkeypatch.setattr(nova_own, 'read_exclusions', lambda lines: {})
    monkeypatch.setattr(nova_own, 'list_ids', lambda _: [PLAIN, DEVICES])
    monkeypatch.setattr(workers, 'run', run)

    nova_own.main(words)

    assert chosen == expected


def test_a_test_that_did_not_run_is_a_failure(monkeypatch, capsys):
    # given: workers that end without a word
    monkeypatch.setattr(nova_own, 'read_exclusions', lambda lines: {})
    monkeypatch.setattr(
        nova_own, 'list_ids', lambda modules: ['nova.tests.unit.gone.T.test']
    )
    monkeypatch.setattr(workers, 'COMMAND', ('false',))

    assert nova_own.main(['--jobs', '2']) == 1

    output = capsys.readouterr().out
    assert 'FAILED nova.tests.unit.gone.T.test' in output
    assert '1 tests, 1 failed' in output


# Runs its tests until one of them hangs. It is called with "run" and the
# package, and gets the tests on its standard input.
HANGING = """
import json, pathlib, sys, time
for test in sys.stdin.read().split():
    seen = pathlib.Path({folder!r}, test)
    if test in {hanging!r} and seen.read_text().count("x") < {times}:
        seen.write_text(seen.read_text() + "x")
        time.sleep(60)
    report = dict(id=test, outcome="passed", detail="")
    print(json.dumps(report), flush=True)
"""


def run_hanging(tmp_path, monkeypatch, times):
    (tmp_path / 'p.b').touch()
    code = HANGING.format(folder=str(tmp_path), hanging=['p.b'], times=times)
    monkeypatch.setattr(workers, 'COMMAND', (sys.executable, '-c', code))
    monkeypatch.setattr(workers, 'HANG_S', 3.0)
    ids = ['p.a', 'p.b', 'p.c']
    outcomes = workers.run({'p': ids}, stock=False, jobs=1)
    assert sorted(outcome.test_id for outcome in outcomes) == ids
    return {outcome.test_id: outcome for outcome in outcomes}


def test_a_test_that_hangs_is_repeated(tmp_path, monkeypatch, capsys):
    outcomes = run_hanging(tmp_path, monkeypatch, 1)

    assert {one.outcome for one in outcomes.values()} == {'passed'}
    assert 'p.b hangs and is repeated' in capsys.readouterr().out


def test_a_test_that_hangs_twice_has_failed(tmp_path, monkeypatch):
    outcomes = run_hanging(tmp_path, monkeypatch, 2)

    assert [outcomes[f'p.{name}'].outcome for name in 'abc'] == [
        'passed',
        'failed',
        'passed',
    ]
    assert 'twice' in outcomes['p.b'].detail
