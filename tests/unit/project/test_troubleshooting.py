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


"""The page on troubleshooting, compared with the code.

Operators look for a line of the log in it. So each line that it quotes has to
be in the code, and each warning and error of the services has to be on it.
"""

import pathlib
import re

import pytest

from tests.unit.project import messages

TOP = pathlib.Path(__file__).parents[3]
PACKAGE = TOP / 'nova_numa_hugepages'
PAGE = TOP / 'doc/source/admin/troubleshooting.rst'

# What no service loads has no line in the log of a service.
NOT_OF_SERVICES = {'cmd', 'simulate', 'tempest', 'yamlfile'}
NOT_SEEN = {'debug', 'info', 'isEnabledFor'}
# Lines of Nova and of Python, in the words of their row.
NOT_OURS = re.compile("^(Nova|Python)'s own line")
QUOTED_FROM_ELSEWHERE = {
    'No valid host was found',
    "No module named 'nova.virt.numa_hugepages'",
}
TITLES = {'Why a guest went there', 'Why an instance went there'}

ROW = re.compile(
    r'^   \* - (.*(?:\n {7}.*)*)\n     - (.*(?:\n {7}.*)*)', re.MULTILINE
)
PHRASE = re.compile(r'(?<![*\w])\*([^*\s][^*]*)(?<!\s)\*(?![*\w])')
BEGINNING = re.compile(r'begin with \*([^*]+)\*')
ASIDE = re.compile(r'\s*\((?:or|Or:?) \*[^()]*\)|\s*At ``ERROR``\.')


def rows(page):
    """Get the rows of its tables: what is looked for, and what it means."""
    return [
        tuple(' '.join(column.split()) for column in match.groups())
        for match in ROW.finditer(page)
    ]


def lines(page):
    """Get the log lines and errors of ours that a page quotes.

    Where the text above a table says what all of its lines begin with, they
    are returned with that.
    """
    above, *tables = page.split('* - Line\n')
    found = []
    for table in tables:
        start = BEGINNING.findall(above.rpartition('\n===')[2])
        found += [
            ASIDE.sub('', ' '.join([*start, line]))
            for line, meaning in rows(table)
            if not NOT_OURS.match(meaning)
        ]
        above = table
    return found


def phrases(page):
    """Get the parts of lines that it quotes in its text."""
    found = {' '.join(phrase.split()) for phrase in PHRASE.findall(page)}
    found = {phrase for phrase in found if ' ' in phrase}
    return sorted(found - QUOTED_FROM_ELSEWHERE - TITLES)


@pytest.fixture(scope='module')
def page():
    return PAGE.read_text('utf-8')


@pytest.fixture(scope='module')
def code():
    files = sorted(PACKAGE.rglob('*.py'))
    return messages.Messages(
        [
            path
            for path in files
            if path.relative_to(PACKAGE).parts[0] not in NOT_OF_SERVICES
        ],
        TOP,
    )


def test_lines_on_the_page_are_in_the_code(page, code):
    quoted = lines(page)

    assert len(quoted) > 40
    assert [line for line in quoted if not code.are_quoted(line)] == []


def test_phrases_on_the_page_are_in_the_code(page, code):
    assert [
        phrase for phrase in phrases(page) if not code.have_in_them(phrase)
    ] == []


def test_warnings_and_errors_are_on_the_page(page, code):
    quoted = [*lines(page), *phrases(page)]
    seen = [
        call
        for call in code.log_calls
        if call.level not in NOT_SEEN
        and messages.has_words(messages.tokens(call.text))
    ]

    assert len(seen) > 15
    assert [
        call
        for call in seen
        if not any(code.quote(line, call.text) for line in quoted)
    ] == []
