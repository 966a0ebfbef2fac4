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

"""When alarms are raised."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Thresholds:
    """The operator's thresholds, for this host.

    :ivar used_percent: share of its memory that an instance uses
    :ivar unused_percent: share of its memory that an instance leaves unused
    :ivar free_percent: share of a NUMA node's memory that instances can still
        have
    :ivar fragmented_percent: share of the instances of a kind that would fit,
        which don't because memory is fragmented
    :ivar after_s: how long it has to be so, in seconds, where an alarm has no
        time of its own
    """

    used_percent: int = 90
    unused_percent: int = 75
    free_percent: int = 5
    fragmented_percent: int = 10
    after_s: float = 300.0


DEFAULTS = Thresholds()
