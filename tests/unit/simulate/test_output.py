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


"""Tests of the results as files."""

import errno
import json
import os
import pathlib
import stat

import pytest

from nova_numa_hugepages.simulate import output
from tests.unit.simulate.simulated import churn
from tests.unit.simulate.simulated import fill
from tests.unit.simulate.simulated import found
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import sample
from tests.unit.simulate.simulated import STOCK

DOCUMENT = pathlib.Path(__file__).with_name('output.json')


def test_all_of_a_run_is_written_down():
    # given
    run = fill(
        OURS,
        2,
        bound=4,
        counted={'small': 1, 'large': 2},
        samples=(sample(1, 0.1), sample(3, 1 / 3, 0.5)),
    )

    # when
    text = output.dump(found(run, complete=False))

    # then
    assert text == DOCUMENT.read_text(encoding='utf-8')


def test_ratios_are_written_down():
    document = json.loads(
        output.dump(found(fill(STOCK, 40), fill(OURS, 60, samples=())))
    )

    assert document['summary']['fill']['ratios'] == {
        'placed': {
            'median': 1.5,
            'low': None,
            'high': None,
            'interval': None,
        }
    }


def test_no_runs_are_written_down():
    assert json.loads(output.dump(found(complete=False))) == {
        'version': 2,
        'scenario': 'fleet.yaml',
        'complete': False,
        'summary': {},
        'runs': [],
    }


def test_the_same_runs_give_the_same_text_whatever_order_flavors_are_in():
    counted = {'large': 100, 'small': 100}
    backwards = dict(reversed(counted.items()))

    one, other = (
        output.dump(found(churn(OURS, {'small': 1}, counted=order)))
        for order in (counted, backwards)
    )

    assert one == other


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_written_and_replaced(tmp_path):
    # given
    (tmp_path / 'old.json').write_bytes(b'old and longer')

    # when
    written = []
    output.write(
        {tmp_path / 'old.json': b'new', tmp_path / 'new.json': b'new, too'},
        written.append,
    )

    # then
    assert written == [tmp_path / 'old.json', tmp_path / 'new.json']
    assert contents(tmp_path) == {'old.json': b'new', 'new.json': b'new, too'}


def test_no_file_is_touched_if_one_of_them_cannot_be_written(tmp_path):
    # given: a folder in the place of the second one
    (tmp_path / 'old.json').write_bytes(b'old')
    (tmp_path / 'folder').mkdir()
    written = []

    # when
    with pytest.raises(output.OutputError, match='folder: Is a directory'):
        output.write(
            {
                tmp_path / 'old.json': b'new',
                tmp_path / 'folder': b'new',
                tmp_path / 'new.json': b'new',
            },
            written.append,
        )

    # then
    assert written == []
    assert sorted(tmp_path.rglob('*')) == [
        tmp_path / 'folder',
        tmp_path / 'old.json',
    ]
    assert (tmp_path / 'old.json').read_bytes() == b'old'


def test_files_that_are_there_in_spite_of_a_failure_are_reported(
    tmp_path, monkeypatch
):
    # given: the second one can't take its name
    def fails(source, target, replace=os.replace):
        if target.name == 'two':
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        replace(source, target)

    monkeypatch.setattr(os, 'replace', fails)
    written = []

    # when
    with pytest.raises(output.OutputError, match='two: Permission denied'):
        output.write(
            {tmp_path / name: b'new' for name in ('one', 'two', 'three')},
            written.append,
        )

    # then
    assert written == [tmp_path / 'one']
    assert contents(tmp_path) == {'one': b'new'}


def test_a_missing_folder(tmp_path):
    missing = tmp_path / 'missing' / 'new.json'

    with pytest.raises(output.OutputError) as caught:
        output.write({missing: b'new'}, print)

    assert str(caught.value) == (
        f'cannot write {missing}: No such file or directory. Make the folder '
        f'{missing.parent} first, or name another one.'
    )


def test_a_full_disk():
    with pytest.raises(output.OutputError) as caught:
        output.write({pathlib.Path('/dev/full'): b'new'}, print)

    assert str(caught.value) == (
        'cannot write /dev/full: No space left on device. Make room there, or '
        'name a file in another folder.'
    )


@pytest.mark.parametrize(
    ('failure', 'expected'),
    [
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
            pytest.raises(output.OutputError, match='you may write to'),
        ),
        (KeyboardInterrupt(), pytest.raises(KeyboardInterrupt)),
    ],
)
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, failure, expected
):
    # given
    def fails(*_):
        raise failure

    monkeypatch.setattr(os, 'replace', fails)
    path = tmp_path / 'results.json'
    path.write_bytes(b'old')

    # when
    with expected:
        output.write({path: b'new'}, print)

    # then
    assert contents(tmp_path) == {'results.json': b'old'}


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(output.OutputError, match='name a file'):
        output.write({tmp_path: b'new'}, print)


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path):
    # given
    (tmp_path / 'there').mkdir()
    target = tmp_path / 'there' / 'results.json'
    target.write_bytes(b'old')
    link = tmp_path / 'link.json'
    link.symlink_to(target)

    # when
    output.write({link: b'new'}, print)

    # then
    assert link.is_symlink()
    assert contents(target.parent) == {'results.json': b'new'}


def test_a_device_is_written_to_and_not_replaced():
    output.write({pathlib.Path(os.devnull): b'new'}, print)

    assert pathlib.Path(os.devnull).is_char_device()


def test_a_file_keeps_its_mode(tmp_path):
    # given
    path = tmp_path / 'results.json'
    path.write_bytes(b'old')
    path.chmod(0o640)

    # when
    output.write({path: b'new'}, print)

    # then
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_folder_is_made_with_those_above_it(tmp_path):
    folder = tmp_path / 'plots' / 'today'

    output.make_folder(folder)
    output.make_folder(folder)

    assert folder.is_dir()


def test_a_file_in_the_way_of_a_folder(tmp_path):
    path = tmp_path / 'plots'
    path.write_bytes(b'')

    with pytest.raises(output.OutputError, match='name a folder'):
        output.make_folder(path)


def test_a_folder_that_can_be_made_is_not_made_by_asking(tmp_path):
    output.check_folder(tmp_path / 'plots' / 'today')
    output.check_folder(tmp_path)

    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ('name', 'remedy'),
    [
        ('plots', 'File exists. It is a file: name a folder.'),
        ('plots/today', 'Not a directory. Make the folder {} first'),
    ],
)
def test_a_folder_that_cannot_be_made(tmp_path, name, remedy):
    # given
    path = tmp_path / 'plots'
    path.write_bytes(b'')

    # when
    with pytest.raises(output.OutputError) as caught:
        output.check_folder(tmp_path / name)

    # then
    assert remedy.format(path) in str(caught.value)
