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

"""The page pools of this machine that the tests change, as they were."""

from __future__ import annotations

import json
import pathlib
from typing import IO

from tests.host.rig import folders

_NODES = pathlib.Path('/sys/devices/system/node')
_BOOT = pathlib.Path('/proc/sys/kernel/random/boot_id')

# For all users and checkouts: the pools are the machine's.
_FOLDER = pathlib.Path('/run/lock')
_NAME = 'nova-numa-hugepages-tests'

# The only pages that the tests use on this machine. Other pools may change
# meanwhile, and are not theirs.
_SIZE_KIB = 2048


class InUse(Exception):
    """Another run is changing the pools."""


class Keeper:
    """Remembers the pools that the tests change, and puts them back.

    They are remembered in a file too, so that the next run puts back what a
    run that was killed has left. One at a time does so, on the whole machine.
    """

    def __init__(self) -> None:
        self._file = _FOLDER / f'{_NAME}.json'
        self._boot = _BOOT.read_text().strip()
        self._pools: dict[str, int] = {}
        self._lock: IO[str] | None = None

    def __enter__(self) -> Keeper:
        """Remember the pools.

        :raises InUse: if another run has them
        """
        self._lock = folders.alone(self._file.with_suffix('.lock'))
        if self._lock is None:
            raise InUse(
                'Another run has the page pools of this machine, and holds '
                f'{self._file.with_suffix(".lock")}: tests on real kernels. '
                'Wait for its end.'
            )
        if self._file.exists():
            left = json.loads(self._file.read_text())
            if left['boot'] == self._boot:
                _write(left['pools'])
        self._pools = _read()
        new = self._file.with_suffix('.new')
        new.write_text(json.dumps({'boot': self._boot, 'pools': self._pools}))
        new.replace(self._file)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._lock is not None
        with self._lock:
            _write(self._pools)
            self._file.unlink(missing_ok=True)


def _read() -> dict[str, int]:
    """Read the persistent pages of each pool, by the folder of the pool."""
    return {
        str(folder): _number(folder / 'nr_hugepages')
        - _number(folder / 'surplus_hugepages')
        for folder in sorted(
            _NODES.glob(f'node*/hugepages/hugepages-{_SIZE_KIB}kB')
        )
    }


def _write(pools: dict[str, int]) -> None:
    for folder, count in pools.items():
        # A write that changes nothing may still be refused.
        if _read().get(folder, count) != count:
            (pathlib.Path(folder) / 'nr_hugepages').write_text(str(count))


def _number(path: pathlib.Path) -> int:
    return int(path.read_text())
