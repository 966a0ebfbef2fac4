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


"""The costs of hosts in the report of the demo."""

from __future__ import annotations

import pytest

from nova_numa_hugepages.scheduler import score
from tools.demo import explanation
from tools.demo import verdicts
from tools.demo import weighing


def weighed(**scores: score.Score) -> weighing.Weighed:
    """Get the cost of an instance with a NUMA topology on hosts."""
    return weighing.Weighed(scores)


@pytest.mark.parametrize(
    ('costs', 'expected'),
    [
        pytest.param(
            (0.3, 0.04, 0.0),
            'best costs 0 % of what is scarce, next 4 %, last 30 %',
            id='whole',
        ),
        pytest.param(
            (0.3, 0.0041, 0.0043),
            'next costs 0.41 % of what is scarce, best 0.43 %, last 30.00 %',
            id='near',
        ),
        pytest.param(
            (0.3, 0.2, 0.0004),
            'best costs 0.04 % of what is scarce, next 20.00 %, last 30.00 %',
            id='little-is-not-nothing',
        ),
    ],
)
def test_costs_look_different_if_they_are(
    costs: tuple[float, ...], expected: str
) -> None:
    # Given what a guest cost on three hosts, the last one first,
    last, next_, best = map(score.Score, costs)
    found = verdicts.Verdicts(
        weighed=[weighed(last=last, next=next_, best=best)]
    )
    taken = 'best' if best < next_ else 'next'

    # when it is explained why the best one was taken,
    lines = explanation.costs(found, {'guest': taken})

    # then one line has what it costs there, and on the others.
    assert lines == [expected]


def test_only_the_next_best_hosts_are_reported() -> None:
    # Given four hosts, when it is explained why the best one was taken,
    found = verdicts.Verdicts(
        weighed=[
            weighed(
                **{
                    name: score.Score(cost / 100)
                    for name, cost in (('d', 4), ('c', 3), ('b', 2), ('a', 1))
                }
            )
        ]
    )
    lines = explanation.costs(found, {'guest': 'a'})

    # then the worst one is left out.
    assert lines == ['a costs 1 % of what is scarce, b 2 %, c 3 %']


@pytest.mark.parametrize(
    ('other', 'reason'),
    [
        pytest.param(
            score.Score(0.1, grow_kib=2048),
            'it has to allocate fewer pages',
            id='pages',
        ),
        pytest.param(
            score.Score(0.1, imbalance=0.5),
            'its nodes stay in the better balance',
            id='balance',
        ),
        pytest.param(score.Score(0.1), "Nova's weighers decide", id='equal'),
    ],
)
def test_tie_is_reported_with_what_decided(
    other: score.Score, reason: str
) -> None:
    # Given two hosts on which a guest costs the same,
    found = verdicts.Verdicts(
        weighed=[weighed(taken=score.Score(0.1), other=other)]
    )

    # when it is explained why one of them was taken,
    lines = explanation.costs(found, {'guest': 'taken'})

    # then the line says what decided.
    assert lines == [
        f'taken costs 10 % of what is scarce, other 10 %; {reason}'
    ]


def test_floating_guest_is_reported_what_hosts_hold() -> None:
    # Given a guest without a NUMA wish,
    found = verdicts.Verdicts(
        weighed=[
            weighing.Weighed(
                {'poor': score.Score(0.0), 'rich': score.Score(0.5)},
                floats=True,
            )
        ]
    )

    # when it is explained why a host was taken,
    lines = explanation.costs(found, {'guest': 'poor'})

    # then the line says what the hosts hold.
    assert lines == ['poor holds 0 % of what is scarce, rich 50 %']


def test_each_guest_of_a_request_has_its_line() -> None:
    # Given four guests of one request: the second one goes where the first
    # one is, the third one elsewhere, for the last one there is no choice,
    one, other = score.Score(0.1), score.Score(0.2)
    found = verdicts.Verdicts(
        reasons=[
            (0, 'the first one is explained elsewhere'),
            (2, 'one is full'),
        ],
        weighed=[
            weighed(one=one, other=other),
            weighed(one=one, other=other),
            weighed(other=one, third=other),
            weighed(),
        ],
    )

    # when it is explained why,
    lines = explanation.costs(
        found, {'a': 'one', 'b': 'one', 'c': 'other', 'd': 'third'}
    )

    # then there is a line where the host changes, and why hosts were lost.
    assert lines == [
        'a: one costs 10 % of what is scarce, other 20 %',
        'c: one is full',
        'c: other costs 10 % of what is scarce, third 20 %',
    ]


@pytest.mark.parametrize(
    ('choice', 'accepted', 'agrees', 'expected'),
    [
        pytest.param(
            'b',
            ['a', 'b'],
            True,
            'stock Nova accepts the same hosts; its weighers take b',
            id='other-host',
        ),
        pytest.param(
            'a',
            ['a', 'b'],
            True,
            'stock Nova accepts the same hosts; its weighers take a as well',
            id='same-host',
        ),
        pytest.param(
            'a', ['a'], True, 'stock Nova accepts the same host', id='one-host'
        ),
        pytest.param(
            None,
            [],
            True,
            "stock Nova's filter accepts none either",
            id='none',
        ),
        pytest.param(
            'b', ['a'], False, 'stock Nova would take b', id='other-verdict'
        ),
        pytest.param(
            None, ['a'], False, 'stock Nova would refuse it', id='refusal'
        ),
    ],
)
def test_choice_of_stock_nova_is_reported(
    choice: str | None, accepted: list[str], agrees: bool, expected: str
) -> None:
    # Given what stock Nova would have done with a guest that is on a,
    found = verdicts.Verdicts(accepted=accepted, stock_choice=choice)

    # when that is reported,
    line = explanation.stock_choice(found, {'guest': 'a'}, agrees=agrees)

    # then it is one short line.
    assert line == expected
