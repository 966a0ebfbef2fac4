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

"""Which guests are defined on this host, running or not."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from importlib import util
import pathlib
import re
import shutil
import subprocess
import sys

DEFINITIONS = pathlib.Path('/etc/libvirt/qemu')
TIME_LIMIT_S = 10

_UUID = re.compile(
    r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
)
_ELEMENT = re.compile(rf'<uuid>\s*({_UUID.pattern})\s*</uuid>')

# The library prints errors by itself, unless they are handled.
_PROGRAM = """
import sys
import libvirt

libvirt.registerErrorHandler(lambda *_: None, None)
try:
    for domain in libvirt.openReadOnly(sys.argv[1]).listAllDomains():
        print(domain.UUIDString())
except libvirt.libvirtError as error:
    sys.exit(str(error))
"""


class _Unknown(Exception):
    """It can't be told this way; the text says why."""


def defined(
    uri: str | None, running: Collection[str], holders: Collection[str] = ()
) -> tuple[frozenset[str] | None, str]:
    """Ask libvirt, one way or the other.

    :param uri: how libvirt is reached; None if it isn't to be asked
    :param running: uuids of guests that run here, and so have to be among
        them
    :param holders: uuids of guests that hold pages, some of which have to be
        among them, too: who knows none of them is another libvirt, or has
        lost its guests
    :returns: uuids of all domains, or None if that can't be told; and how
        they are known, or why not
    """
    if uri is None:
        return None, 'libvirt is not asked with --root'
    reasons = []
    for name, way in _WAYS.items():
        try:
            found = way(uri)
        except _Unknown as error:
            reasons.append(f'{name}: {error}')
            continue
        missing = sorted(set(running) - found)
        if missing:
            reasons.append(
                f'{name} does not know guest {missing[0]}, which runs here'
            )
        elif holders and found.isdisjoint(holders):
            reasons.append(
                f'{name} knows none of the guests that hold pages (if that '
                'is right, add --force)'
            )
        else:
            return found, f'{name} knows {len(found)} domains'
    return None, '; '.join(reasons)


def _library(uri: str) -> frozenset[str]:
    """Ask the library of libvirt."""
    # It is installed with libvirt, and not by pip.
    if util.find_spec('libvirt') is None:
        raise _Unknown('not installed')
    # In a process of its own, since a call of the library can't be ended
    # while libvirt hangs. The folder one is in is no place for libraries.
    return _ask([sys.executable, '-P', '-c', _PROGRAM, uri])


def _virsh(uri: str) -> frozenset[str]:
    """Ask virsh."""
    program = shutil.which('virsh')
    if program is None:
        raise _Unknown('not installed')
    return _ask([program, '-q', '-r', '-c', uri, 'list', '--all', '--uuid'])


def _ask(command: Sequence[str]) -> frozenset[str]:
    """Run a program that asks libvirt, for as long as it may take."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _Unknown(f'no answer within {TIME_LIMIT_S} s') from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ['it failed']
        raise _Unknown(lines[-1])
    return frozenset(_UUID.findall(done.stdout))


def _files(uri: str) -> frozenset[str]:
    """Read what libvirt keeps, which also works while it is down."""
    if uri != 'qemu:///system':
        raise _Unknown(f'they are not those of {uri}')
    try:
        texts = [
            path.read_text(encoding='utf-8', errors='replace')
            for path in DEFINITIONS.glob('*.xml')
        ]
    except OSError as error:
        raise _Unknown(str(error.strerror)) from error
    # With libvirt in a container, the host has an empty folder, or none.
    if not texts:
        raise _Unknown('there are none')
    return frozenset(uuid for text in texts for uuid in _ELEMENT.findall(text))


_WAYS: dict[str, Callable[[str], frozenset[str]]] = {
    'the libvirt of Python': _library,
    'virsh': _virsh,
    f'the domains in {DEFINITIONS}': _files,
}
