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

"""Elastic guests on real kernels: their memory comes and goes by use."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import pytest

from tests.host import scene
from tests.host.rig import setup
from tests.host.rig import virtual

pytestmark = pytest.mark.nightly

# Inside a virtual host importing Nova alone takes a minute.
LIMIT_S = 1500
NODE = 1
BASE, CEILING = 96, 224
BLOCK = 64


@pytest.fixture(scope='module', autouse=True)
def _libvirt_python(rig: None) -> None:
    """What the driver speaks with libvirt through is there."""
    setup.prepare(with_nova=True)


def tell(
    host: scene.Host, folder: pathlib.Path, story: str, *uri: str
) -> dict[str, Any]:
    """Have a story told on a host; returns what was seen, by step."""
    ended = host.run(
        [
            # There, what guests boot is looked for in the same home.
            *('env', f'HOME={pathlib.Path.home()}'),
            *(sys.executable, '-m', 'tests.host.elastic_story'),
            *(f'/persist{folder}', story, str(NODE), *uri),
        ],
        timeout=LIMIT_S,
    )
    seen: dict[str, Any] = json.loads(ended.out)
    return seen


def on_node(count: int) -> dict[str, int]:
    """Pages of the node, and nowhere else."""
    return {str(NODE): count}


def test_it_grows_when_it_fills_and_shrinks_when_it_idles(
    host: virtual.VirtualHost, tmp_path: pathlib.Path
) -> None:
    """On the right node, and no page is held that it has given back."""
    seen = tell(host, tmp_path, 'grow_and_shrink')

    assert seen['at first'] == [on_node(BASE), on_node(BASE)]
    has, held, current = seen['when full']
    assert has == held
    assert held[str(NODE)] in (BASE + BLOCK, BASE + 2 * BLOCK)
    assert current['0'] * 1024 // 2048 == held[str(NODE)] - BASE
    assert seen['when idle'] == [on_node(BASE), on_node(BASE)]
    assert seen['warnings'] == []
    assert seen['at last'] == [0, 0]
    assert scene.totals(host) == [0, 0, 0, 0]


def test_idle_memory_is_lent_and_one_waits(
    host: virtual.VirtualHost, tmp_path: pathlib.Path
) -> None:
    """Neither has a page that the other counts on."""
    # Both have their base, and there are two blocks for both.
    pages = 2 * BASE + BLOCK
    scene.set_pools(host, 0, pages)

    seen = tell(host, tmp_path, 'lend')

    assert 'cannot be given more memory' in seen['warned']
    one, two, current = seen['waits']
    assert one == on_node(BASE + BLOCK)
    assert two == on_node(BASE)
    assert current == {'0': 0}
    one, two, has = seen['then']
    assert one[str(NODE)] + two[str(NODE)] <= pages
    assert has == two == on_node(BASE + BLOCK)
    assert seen['at last'] == [pages, 0]


def test_reset_while_it_is_large(
    host: virtual.VirtualHost, tmp_path: pathlib.Path
) -> None:
    """Its pages stay held; a service that was killed puts all right."""
    seen = tell(host, tmp_path, 'reset')

    has, held = seen['large']
    assert has == held
    assert seen['reset'] == [on_node(BASE), {'0': 0}]
    assert seen['held meanwhile']
    assert seen['healed']
    assert seen['healed again'] == [on_node(BASE), on_node(BASE)]


def test_each_cell_by_what_the_agent_says(
    host: virtual.VirtualHost, tmp_path: pathlib.Path
) -> None:
    """The one whose programs need more gets it, and the other nothing."""
    seen = tell(host, tmp_path, 'by_cell')

    assert seen['has'] == {'0': 0, '1': 128}
    assert seen['warnings'] == []


def test_how_long_it_takes(
    host: virtual.VirtualHost, tmp_path: pathlib.Path
) -> None:
    """Printed, as a multiple of what the kernel takes to make the pages."""
    seen = tell(host, tmp_path, 'by_hand')

    print(
        f'{seen["seconds"]} s from the wish to the memory inside, and '
        f'{seen["seconds of the kernel"]} s for the kernel to make the pages'
    )
    assert scene.totals(host) == [0, 0, 0, 0]


def test_pages_of_1_gib(tmp_path: pathlib.Path) -> None:
    """It grows; what it can't give back it keeps, and holds."""
    with virtual.VirtualHost(
        'large',
        node_mib=3584,
        kernel_arguments='hugepagesz=1G hugepages=1:2',
    ) as large:
        seen = tell(large, tmp_path, 'gigantic')

    assert seen['at first'] == [on_node(1), on_node(1)]
    assert seen['large'] == [on_node(2), on_node(2)]
    current, has, held = seen['asked back']
    assert has == held == on_node(1 + current // 1024)
    assert seen['at last'] == 0


def test_a_guest_without_the_driver(
    host: virtual.VirtualHost, tmp_path: pathlib.Path
) -> None:
    """It is told once, and stays at its base."""
    seen = tell(host, tmp_path, 'without_driver')

    assert len(seen['told']) == 1
    assert 'has not taken the memory' in seen['told'][0]
    assert seen['asked'] == 0
    assert seen['held'] == [on_node(BASE), on_node(BASE)]
