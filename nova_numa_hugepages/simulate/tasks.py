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


"""The runs of a simulation, and the Nova that they need."""

from __future__ import annotations

from collections.abc import Sequence
import enum
from typing import NamedTuple
import warnings

from nova_numa_hugepages.simulate import results
from nova_numa_hugepages.simulate import scenario


class Learning(enum.StrEnum):
    """The ways in which our weigher gets to know the demand.

    LEARNED: from the guests that arrive alone. FLAVORS: it knows the flavors,
    too, as in a cloud with an API database. PINNED: it is given the mix.
    """

    LEARNED = 'learned'
    FLAVORS = 'flavors'
    PINNED = 'pinned'


class Task(NamedTuple):
    """One run of a simulation."""

    play: scenario.Scenario
    policy: results.PlacementPolicy
    phase: results.Phase
    seed: int
    learning: Learning = Learning.FLAVORS


def load_nova(config_files: Sequence[str]) -> None:
    """Import Nova and set it up. Takes seconds; to be done once a process.

    :param config_files: none for Nova's defaults
    :raises oslo_config.cfg.Error: if a file can't be read
    :raises exception.InvalidOption: if an option of ours is out of range
    """
    # Of what Nova's dependencies think of each other.
    warnings.simplefilter('ignore')
    from nova import conf as nova_conf
    from nova import objects

    from nova_numa_hugepages import conf

    objects.register_all()
    conf.register_opts(nova_conf.CONF)
    nova_conf.CONF([], project='nova', default_config_files=[*config_files])
    conf.validate(nova_conf.CONF)
