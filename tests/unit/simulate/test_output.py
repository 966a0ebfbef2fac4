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
import textwrap

import pytest

from nova_numa_hugepages.simulate import output
from tests.unit.simulate.simulated import churn
from tests.unit.simulate.simulated import fill
from tests.unit.simulate.simulated import found
from tests.unit.simulate.simulated import OURS
from tests.unit.simulate.simulated import sample
from tests.unit.simulate.simulated import STOCK


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
    assert text == textwrap.dedent("""\
        {
          "version": 1,
          "scenario": "fleet.yaml",
          "complete": false,
          "summary": {
            "fill": {
              "policies": {
                "ours": {
                  "seeds": [1],
                  "figures": {
                    "placed": {
                      "median": 2.0,
                      "low": null,
                      "high": null
                    },
                    "cpus_used_percent": {
                      "median": 33.333333,
                      "low": null,
                      "high": null
                    },
                    "cpus_stranded_percent": {
                      "median": 50.0,
                      "low": null,
                      "high": null
                    },
                    "pages_used_percent": {
                      "median": 16.666667,
                      "low": null,
                      "high": null
                    },
                    "pages_stranded_percent": {
                      "median": 25.0,
                      "low": null,
                      "high": null
                    },
                    "bound": {
                      "median": 4.0,
                      "low": null,
                      "high": null
                    },
                    "of_bound_percent": {
                      "median": 50.0,
                      "low": null,
                      "high": null
                    }
                  },
                  "first_refused": {
                    "large": 1
                  },
                  "by_flavor": {
                    "large": {
                      "arrivals": 2,
                      "refused": 1,
                      "refused_percent": 50.0
                    },
                    "small": {
                      "arrivals": 1,
                      "refused": 0,
                      "refused_percent": 0.0
                    }
                  }
                }
              },
              "ratios": {}
            }
          },
          "runs": [
            {
              "policy": "ours",
              "phase": "fill",
              "seed": 1,
              "arrivals": 3,
              "placed": 2,
              "bound": 4,
              "first_refused": "large",
              "counted": {
                "large": 2,
                "small": 1
              },
              "refused": {
                "large": 1
              },
              "seconds": 1.5,
              "samples": {
                "arrivals": [1, 3],
                "guests": [1, 3],
                "cpus_used": [0.1, 0.333333],
                "pages_used": [0.05, 0.166667],
                "cpus_stranded": [0.0, 0.5],
                "pages_stranded": [0.0, 0.25]
              }
            }
          ]
        }
        """)


def test_ratios_are_written_down():
    document = json.loads(
        output.dump(found(fill(STOCK, 40), fill(OURS, 60, samples=())))
    )

    assert document['summary']['fill']['ratios'] == {
        'placed': {'median': 1.5, 'low': None, 'high': None}
    }


def test_no_runs_are_written_down():
    assert json.loads(output.dump(found(complete=False))) == {
        'version': 1,
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
    output.write_all(
        {tmp_path / 'old.json': b'new', tmp_path / 'new.json': b'new, too'}
    )

    # then
    assert contents(tmp_path) == {'old.json': b'new', 'new.json': b'new, too'}


def test_nothing_is_touched_if_one_file_cannot_be_written(tmp_path):
    # given: the second one's folder is missing
    (tmp_path / 'old.json').write_bytes(b'old')
    missing = tmp_path / 'missing' / 'new.json'

    # when
    with pytest.raises(output.OutputError) as caught:
        output.write_all({tmp_path / 'old.json': b'new', missing: b'new'})

    # then
    assert str(caught.value) == (
        f'cannot write {missing}: No such file or directory. Make the folder '
        f'{missing.parent} first, or name another one.'
    )
    assert contents(tmp_path) == {'old.json': b'old'}


@pytest.mark.parametrize(
    ('number', 'remedy'),
    [
        (errno.ENOSPC, 'Make room there, or name a file in another folder.'),
        (errno.EACCES, 'Name a file in a folder that you may write to.'),
    ],
)
def test_what_was_written_of_a_file_goes_away_when_the_rest_fails(
    tmp_path, monkeypatch, number, remedy
):
    # given: a disk that tells late
    def fails(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'fsync', fails)
    path = tmp_path / 'results.json'

    # when
    with pytest.raises(output.OutputError) as caught:
        output.write_all({path: b'new'})

    # then
    assert (caught.value.path, caught.value.remedy) == (path, remedy)
    assert contents(tmp_path) == {}


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    # given
    def interrupts(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', interrupts)

    # when
    with pytest.raises(KeyboardInterrupt):
        output.write_all({tmp_path / 'results.json': b'new'})

    # then
    assert contents(tmp_path) == {}


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(output.OutputError, match='name a file'):
        output.write_all({tmp_path: b'new'})


def test_a_link_stays_one_and_its_file_is_replaced(tmp_path):
    # given
    (tmp_path / 'there').mkdir()
    target = tmp_path / 'there' / 'results.json'
    target.write_bytes(b'old')
    link = tmp_path / 'link.json'
    link.symlink_to(target)

    # when
    output.write_all({link: b'new'})

    # then
    assert link.is_symlink()
    assert contents(target.parent) == {'results.json': b'new'}


def test_a_device_is_written_to_and_not_replaced():
    output.write_all({pathlib.Path(os.devnull): b'new'})

    assert pathlib.Path(os.devnull).is_char_device()


def test_a_file_keeps_its_mode(tmp_path):
    # given
    path = tmp_path / 'results.json'
    path.write_bytes(b'old')
    path.chmod(0o640)

    # when
    output.write_all({path: b'new'})

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
