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

import pathlib

import pytest

from nova_numa_hugepages.experiment import in_place
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.hugepages.kernel import hostfs

MIB = 1024
SMALL, THP = Arm('control'), Arm('transparent', 'thp')
HUGE = Arm('huge', '2048')
CPUS = frozenset({3})

MAPS = (
    '55d0c0a00000 bind:1 file=/usr/bin/sort mapped=20 mapmax=3 N0=20 '
    'kernelpagesize_kB=4\n'
    '55d0c1c00000 bind:1 heap anon=256 dirty=256 N1=256 kernelpagesize_kB=4\n'
    '7f0000000000 bind:1 file=/anon_hugepage\\040(deleted) huge anon=32 '
    'dirty=32 N1=31 N0=1 kernelpagesize_kB=2048\n'
)
ROLLUP = """\
55d0c0a00000-7fff00000000 ---p 00000000 00:00 0 [rollup]
Rss:                1200 kB
Anonymous:          1024 kB
AnonHugePages:         0 kB
Private_Hugetlb:   65536 kB
"""


def found(
    anonymous_mib: int = 0,
    transparent_mib: int = 0,
    node: int = 1,
    **huge: int,
) -> in_place.InPlace:
    huge_kib = {int(name[1:]): mib * MIB for name, mib in huge.items()}
    total = anonymous_mib * MIB + sum(huge_kib.values())
    return in_place.InPlace(
        anonymous_mib * MIB,
        transparent_mib * MIB,
        huge_kib,
        {node: total},
        CPUS,
    )


def test_reading(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / '42'
    folder.mkdir()
    (folder / 'numa_maps').write_text(MAPS)
    (folder / 'smaps_rollup').write_text(ROLLUP)
    (folder / 'status').write_text('Name:\tsort\nCpus_allowed_list:\t3\n')

    assert in_place.read(hostfs.HostFS(proc=tmp_path), 42) == in_place.InPlace(
        1024, 0, {2048: 65536}, {1: 1024 + 31 * 2048, 0: 2048}, CPUS
    )


@pytest.mark.parametrize(
    ('arm', 'place'),
    [
        (SMALL, found(64)),
        (THP, found(64, 60)),
        (HUGE, found(2, h2048=64)),
    ],
)
def test_as_it_says(arm: Arm, place: in_place.InPlace) -> None:
    assert in_place.problems(place, arm, 64, 1, CPUS) == []


@pytest.mark.parametrize(
    ('arm', 'place', 'problem'),
    [
        (
            SMALL,
            found(64, 32),
            '50% of its memory is on small pages',
        ),
        (
            SMALL,
            found(16, h2048=48),
            '25% of its memory is on small pages',
        ),
        (
            THP,
            found(64, 32),
            '50% of its memory is on transparent huge pages',
        ),
        (HUGE, found(64), '0% of its memory is on pages of 2 MiB'),
        (
            HUGE,
            found(h1048576=1024),
            '0% of its memory is on pages of 2 MiB',
        ),
        (SMALL, found(64, node=0), '0% of its memory is on NUMA node 1'),
        (
            SMALL,
            found(8),
            'it was seen with 8 MiB only, of about 64 MiB',
        ),
    ],
)
def test_not_as_it_says(
    arm: Arm, place: in_place.InPlace, problem: str
) -> None:
    assert in_place.problems(place, arm, 64, 1, CPUS) == [problem]


def test_other_cpus() -> None:
    assert in_place.problems(found(64), SMALL, 64, 1, frozenset({0, 1})) == [
        'it may run on CPUs 3 instead of 0-1'
    ]


def test_memory_that_is_not_what_it_is_about() -> None:
    assert in_place.problems(found(64, 64), SMALL, 0, 0, CPUS) == []
