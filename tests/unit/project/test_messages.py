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


"""Quotations of texts in source code."""

import pytest

from tests.unit.project import messages

SOURCE = '''
LOG.warning('Host %(host)s has %(count)d pages; %(why)s.', values)
LOG.log(level, READ_ONLY)
LOG.error('One text' if one else 'the other')
LOG.debug('%s', error)
READ_ONLY = 'Nothing is written here.'

class PageError(Exception):
    """Host of a docstring."""

    def __init__(self, reason):
        super().__init__('cannot be read: ' + reason)

def cause(key):
    return f'{key.node} of {key.size} KiB are missing'
'''


@pytest.fixture
def code(tmp_path):
    path = tmp_path / 'source.py'
    path.write_text(SOURCE)
    return messages.Messages([path], tmp_path)


@pytest.mark.parametrize(
    'quotation',
    [
        pytest.param('Host compute-7 has 12 pages; …', id='values'),
        pytest.param(
            'Host a1… has 12 pages; 3 of 2048 KiB are missing.', id='nested'
        ),
        pytest.param('Host compute-7 has 12 pages', id='up-to-a-mark'),
        pytest.param('Host … pages; …', id='left-out'),
        pytest.param('cannot be read: /sys/kernel', id='put-together'),
        pytest.param('Nothing is written here.', id='constant'),
    ],
)
def test_quotations(quotation, code):
    assert code.are_quoted(quotation)


@pytest.mark.parametrize(
    'quotation',
    [
        pytest.param('Host compute-7 had 12 pages; …', id='other-word'),
        pytest.param('Host compute-7 has 12', id='cut-short'),
        pytest.param('Host compute-7 has 12 pages; all is well', id='no-text'),
        pytest.param('Host of a docstring.', id='docstring'),
    ],
)
def test_what_is_no_quotation(quotation, code):
    assert not code.are_quoted(quotation)


def test_parts_of_a_text(code):
    assert code.have_in_them('KiB are missing')
    assert code.have_in_them('Cannot be read')
    assert not code.have_in_them('KiB were missing')


def test_log_calls(code):
    assert [
        (call.where, call.level, call.text) for call in code.log_calls
    ] == [
        ('source.py:2', 'warning', 'Host \0 has \0 pages; \0.'),
        ('source.py:3', 'log', 'Nothing is written here.'),
        ('source.py:4', 'error', 'One text'),
        ('source.py:4', 'error', 'the other'),
        ('source.py:5', 'debug', '\0'),
    ]


def test_a_quotation_of_little_more_than_values(code):
    text = code.log_calls[0].text

    assert code.quote('Host 7 has 12 pages; …', text)
    assert not code.quote('… 7; …', text)
