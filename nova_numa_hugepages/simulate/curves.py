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

"""The samples of several runs as one curve.

Runs are sampled at moments of their own, and those that fill a fleet end at
different ones.
"""

from __future__ import annotations

from collections.abc import Sequence
import statistics

from nova_numa_hugepages.simulate import results

_POINTS = 400


def grid(runs: Sequence[results.Run]) -> list[float]:
    """Choose the moments of a curve, in arrivals, in ascending order.

    From 0 to the median of the ends of the runs.
    """
    ends = [run.samples[-1].arrivals for run in runs if run.samples]
    end = statistics.median(ends) if ends else 0
    return [end * point / _POINTS for point in range(_POINTS + 1)]


def median(
    runs: Sequence[results.Run], field: str, arrivals: Sequence[float]
) -> list[float]:
    """Return the median of the runs at some moments.

    Between samples a run is a straight line, before the first one from 0, and
    after the last one it stays as it was.

    :param field: a field of `results.Sample`
    :param arrivals: the moments, not below 0
    :returns: for each moment; 0 without samples
    """
    # Installed with matplotlib, which is what curves are for.
    import numpy

    lines = [
        numpy.interp(
            arrivals,
            [0, *(sample.arrivals for sample in run.samples)],
            [0.0, *(getattr(sample, field) for sample in run.samples)],
        )
        for run in runs
        if run.samples
    ]
    if not lines:
        return [0.0] * len(arrivals)
    return [float(value) for value in numpy.median(lines, axis=0)]
