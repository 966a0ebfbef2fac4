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

"""Traces: guests that came and went, in a CSV file."""

from __future__ import annotations

import pathlib

import pytest

from nova_numa_hugepages.simulate import scenario
from nova_numa_hugepages.simulate import trace
from nova_numa_hugepages.yamlfile import document

FLAVORS = ('small', 'large')
HEADER = 'time,flavor,lifetime\n'


def entry(
    at: float, flavor: str, lifetime: float | None
) -> scenario.TraceEntry:
    return scenario.TraceEntry(at=at, flavor=flavor, lifetime=lifetime)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of one's own, so that messages name files only."""
    monkeypatch.chdir(tmp_path)


def read(text: str | bytes) -> tuple[scenario.TraceEntry, ...]:
    """Read a trace of this text."""
    path = pathlib.Path('trace.csv')
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return trace.read(path, FLAVORS)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        pytest.param(
            HEADER + '100,small,60\n100.5,large,\n',
            (entry(0.0, 'small', 60.0), entry(0.5, 'large', None)),
            id='seconds',
        ),
        pytest.param(
            HEADER
            + '2026-03-02T08:00:00Z,small,60\n2026-03-02T08:00:01.5Z,large,\n',
            (entry(0.0, 'small', 60.0), entry(1.5, 'large', None)),
            id='iso-8601',
        ),
        pytest.param(
            HEADER
            + '2026-03-02T08:00,small,\n2026-03-02T10:00:01+02:00,large,\n',
            (entry(0.0, 'small', None), entry(1.0, 'large', None)),
            id='utc-unless-it-says-otherwise',
        ),
        pytest.param(
            HEADER + '7,large,1\n5,small,2\n7,small,3\n5,large,4\n',
            (
                entry(0.0, 'small', 2.0),
                entry(0.0, 'large', 4.0),
                entry(2.0, 'large', 1.0),
                entry(2.0, 'small', 3.0),
            ),
            id='in-another-order',
        ),
        pytest.param(
            'lifetime, host ,flavor,time\n60,a,small,1\n,b,large,2\n',
            (entry(0.0, 'small', 60.0), entry(1.0, 'large', None)),
            id='other-columns',
        ),
        pytest.param(
            '\ufefftime,flavor,lifetime\r\n\r\n"1","small",""\r\n',
            (entry(0.0, 'small', None),),
            id='of-a-spreadsheet',
        ),
        pytest.param(
            HEADER + '1e3 , small , 0',
            (entry(0.0, 'small', 0.0),),
            id='blanks-and-no-line-end',
        ),
    ],
)
def test_trace_is_read(
    text: str, expected: tuple[scenario.TraceEntry, ...]
) -> None:
    # Given a trace, when it is read,
    found = read(text)

    # then its guests are in order of time, from 0 on.
    assert found == expected


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        pytest.param(
            '', '1: found nothing, expected time,flavor,lifetime', id='empty'
        ),
        pytest.param(
            HEADER,
            '1: found no row below the header, expected some',
            id='no-row',
        ),
        pytest.param(
            'time,flavor\n1,small\n',
            "1: found the columns 'time,flavor', expected 'lifetime' once "
            'among them',
            id='missing-column',
        ),
        pytest.param(
            'time,flavor,lifetime,time\n1,small,,1\n',
            "1: found the columns 'time,flavor,lifetime,time', expected "
            "'time' once among them",
            id='column-twice',
        ),
        pytest.param(
            HEADER + '1,small\n',
            '2: found 2 values, expected 3 as in the header',
            id='row-too-short',
        ),
        pytest.param(
            HEADER + '1,small,,\n',
            '2: found 4 values, expected 3 as in the header',
            id='row-too-long',
        ),
        pytest.param(
            HEADER + '1,small,\n\n2,medium,\n',
            "4: flavor: found 'medium', expected one of small, large",
            id='unknown-flavor',
        ),
        pytest.param(
            HEADER + '-1,small,\n',
            "2: time: found '-1', expected a finite number of 0 or more",
            id='negative-time',
        ),
        pytest.param(
            HEADER + 'nan,small,\n',
            "2: time: found 'nan', expected a finite number of 0 or more",
            id='time-is-not-a-number',
        ),
        pytest.param(
            HEADER + 'noon,small,\n',
            "2: time: found 'noon', expected seconds or a time as in ISO 8601",
            id='time-is-text',
        ),
        pytest.param(
            HEADER + ',small,\n',
            "2: time: found '', expected seconds or a time as in ISO 8601",
            id='no-time',
        ),
        pytest.param(
            HEADER + '5,small,\n2026-03-02T08:00:00Z,small,\n',
            "3: time: found '2026-03-02T08:00:00Z', expected seconds as in "
            'line 2',
            id='iso-8601-after-seconds',
        ),
        pytest.param(
            HEADER + '2026-03-02T08:00:00Z,small,\n5,small,\n',
            "3: time: found '5', expected a time as in ISO 8601 as in line 2",
            id='seconds-after-iso-8601',
        ),
        pytest.param(
            HEADER + '1,small,-0.5\n',
            "2: lifetime: found '-0.5', expected a finite number of 0 or more",
            id='negative-lifetime',
        ),
        pytest.param(
            HEADER + '1,small,1e999\n',
            "2: lifetime: found '1e999', expected a finite number of 0 or "
            'more',
            id='infinite-lifetime',
        ),
        pytest.param(
            HEADER + '1,small,long\n',
            "2: lifetime: found 'long', expected seconds, or nothing if the "
            'instance stays',
            id='lifetime-is-text',
        ),
        pytest.param(
            HEADER + '1,small,\n2,"small,\n3,small,\n',
            '3: not CSV: unexpected end of data',
            id='quote-without-end',
        ),
        pytest.param(
            HEADER + '1,"small"er,\n',
            "2: not CSV: ',' expected after '\"'",
            id='text-after-a-quote',
        ),
        pytest.param(
            HEADER + f'1,{200_000 * "s"},\n',
            '2: not CSV: field larger than field limit (131072)',
            id='endless-value',
        ),
        pytest.param(
            HEADER + '1,small,\n2,sm\0all,\n',
            "3: flavor: found 'sm\\x00all', expected one of small, large",
            id='nul',
        ),
        pytest.param(
            HEADER.encode() + b'1,sm\xffall,\n',
            '2: not UTF-8: save the file as UTF-8 text',
            id='not-utf-8',
        ),
        pytest.param(
            HEADER + '1,"a\nb",\n2,small,x\n',
            "2: flavor: found 'a\\nb', expected one of small, large\n"
            "trace.csv:4: lifetime: found 'x', expected seconds, or nothing "
            'if the instance stays',
            id='two-mistakes-and-a-row-of-two-lines',
        ),
    ],
)
def test_mistake_is_reported_with_its_line(
    text: str | bytes, problem: str
) -> None:
    # Given a trace with a mistake, when it is read,
    with pytest.raises(document.FileError) as error:
        read(text)

    # then the error names the file, the line, and what was expected.
    assert str(error.value) == f'trace.csv:{problem}'


def test_of_many_mistakes_the_first_are_reported() -> None:
    # Given a file with a mistake in each line, when it is read,
    with pytest.raises(document.FileError) as error:
        read(HEADER + 1000 * '1,small\n')

    # then the first ones are told, and that there are more.
    text = 'found 2 values, expected 3 as in the header'
    assert error.value.problems == (
        *((line, text) for line in range(2, 2 + trace.MAX_PROBLEMS)),
        (None, 'there are more problems'),
    )


def test_too_many_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a trace of more guests than a simulation takes,
    monkeypatch.setattr(scenario, 'MAX_ARRIVALS', 2)

    # when it is read,
    with pytest.raises(document.FileError) as error:
        read(HEADER + 3 * '1,small,\n')

    # then the error names the first one too many.
    assert str(error.value) == (
        'trace.csv:4: found more instances, expected 2 or fewer'
    )


def test_missing_file() -> None:
    # Given no file, when it is read,
    with pytest.raises(document.UnreadableError) as error:
        trace.read(pathlib.Path('none.csv'), FLAVORS)

    # then the error says so.
    assert str(error.value) == (
        'none.csv: cannot read it: No such file or directory'
    )
