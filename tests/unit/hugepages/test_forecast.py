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

"""Tests of the forecast of pages that starts will want."""

import pytest

from nova_numa_hugepages.hugepages import forecast
from nova_numa_hugepages.simulate import readiness

DAY_S = 24 * forecast.HOUR_S


def stay(start_s, pages=512, hours=1.0):
    return readiness.Stay(start_s, start_s + hours * 3600, pages)


def test_a_new_host_keeps_nothing_ready():
    stays = [stay(hour * 3600.0) for hour in range(19)]

    margins = forecast.margins(
        readiness.counted(stays, DAY_S), DAY_S, risk=0.01, began_s=0.0
    )

    assert margins == [0] * forecast.HOURS


def test_what_starts_every_hour_is_kept_always():
    stays = [stay(hour * 3600.0) for hour in range(2 * forecast.HOURS)]
    now = 2.0 * forecast.WEEK_S

    margins = forecast.margins(
        readiness.counted(stays, now), now, risk=0.01, began_s=0.0
    )

    # But for the hour or two of the week that the risk is.
    assert margins.count(512) >= forecast.HOURS - 2


def test_what_starts_each_day_at_two_is_kept_around_two():
    stays = [
        stay(day * DAY_S + 2 * 3600.0 + second, 512)
        for day in range(21)
        for second in range(20)
    ]
    now = 3.0 * forecast.WEEK_S

    margins = forecast.margins(
        readiness.counted(stays, now), now, risk=0.01, began_s=0.0
    )

    for day in range(7):
        assert margins[day * 24 + 2] == 20 * 512
        assert not any(margins[day * 24 + 3 : day * 24 + 24])
        two = day * DAY_S + 2 * 3600
        assert forecast.kept(margins, two - 299) == 20 * 512
        assert forecast.kept(margins, two - 301) == 0


def test_all_but_the_risk_is_kept():
    # One of fifty takes ten times as much.
    stays = [
        stay(hour * 3600.0, 5120 if hour % 50 == 0 else 512)
        for hour in range(5 * forecast.HOURS)
    ]
    now = 5.0 * forecast.WEEK_S
    counts = readiness.counted(stays, now)

    at_20, at_1 = (
        forecast.margins(counts, now, risk=risk, began_s=0.0)
        for risk in (0.2, 0.001)
    )

    assert set(at_20) <= {0, 512}
    assert max(at_1) == 5120


def test_old_weeks_are_forgotten():
    stays = [stay(hour * 3600.0, 5120) for hour in range(forecast.HOURS)]
    later = (forecast.WEEKS + 2) * forecast.WEEK_S
    stays += [
        stay(later + hour * 3600.0, 512) for hour in range(forecast.HOURS)
    ]
    now = later + forecast.WEEK_S

    margins = forecast.margins(
        readiness.counted(stays, now), now, risk=0.01, began_s=0.0
    )

    assert set(margins) <= {0, 512}


@pytest.mark.parametrize('need', [1, 7, 512, 513, 1000, 4097, 10**6])
def test_needs_are_rounded_up_a_little(need):
    rounded = forecast.start(0.0, need).need

    assert need <= rounded <= need * 1.13 + 1
