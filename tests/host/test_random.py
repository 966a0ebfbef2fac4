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

"""Random operations on the kernel of this machine, which others use, too."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from tests.host import random_pools
from tests.host import tracer

_OPERATIONS = 2500

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() != 0
        or hugetlb.read_only_reason(hostfs.HostFS()) is not None,
        reason='needs root on a host with huge pages',
    ),
    pytest.mark.skipif(
        not tracer.SUPPORTED, reason='the tracer is for x86-64'
    ),
]


def _run(seed: int) -> None:
    done = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', '-m', random_pools.__name__),
            *(str(seed), str(_OPERATIONS)),
        ],
        capture_output=True,
        text=True,
        timeout=900,
    )
    # A violation has its seed in it.
    print(done.stdout, done.stderr)
    if done.returncode == random_pools.IN_USE:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('seed', range(1, 5))
def test_the_accounts_stay_right(seed: int) -> None:
    """10,000 operations, the same ones each time."""
    _run(seed)


@pytest.mark.nightly
@pytest.mark.parametrize('number', range(40))
def test_the_accounts_stay_right_at_length(number: int) -> None:
    """100,000 operations, others each time."""
    _run(random.SystemRandom().randrange(10**9))
