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

"""Domains that libvirt has on this host, running or not."""

from __future__ import annotations

from collections.abc import Collection
import re
import shutil
import subprocess

TIME_LIMIT_S = 10

_UUID = re.compile(
    r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
)


class DomainsUnknown(Exception):
    """The domains cannot be listed, or the list cannot be right.

    The text says why, and what to do.
    """


def defined(
    uri: str | None, running: Collection[str], holders: Collection[str] = ()
) -> frozenset[str]:
    """Return the uuids of all domains.

    :param uri: how libvirt is reached; None with `--root`
    :param running: uuids of guests that run here, and so must be among them
    :param holders: uuids of guests that hold pages, one of which must be
        among them: a libvirt that knows none is another one, or has lost its
        domains
    :raises DomainsUnknown: if libvirt does not answer, or with a list that
        cannot be that of this host
    """
    if uri is None:
        raise DomainsUnknown('libvirt is not asked with --root')
    found = _list(uri)
    missing = sorted(set(running) - found)
    if missing:
        raise DomainsUnknown(
            f'the libvirt at {uri} does not know guest {missing[0]}, which '
            'runs here; set [libvirt] connection_uri to that of nova-compute'
        )
    if holders and found.isdisjoint(holders):
        raise DomainsUnknown(
            f'the libvirt at {uri} knows none of the guests that hold pages; '
            'if that is right, add --force'
        )
    return found


def _list(uri: str) -> frozenset[str]:
    """List the domains with virsh, which is ended if libvirt hangs."""
    program = shutil.which('virsh')
    if program is None:
        raise DomainsUnknown(
            'virsh is not installed; it is in the package libvirt-clients or '
            'libvirt-client'
        )
    try:
        done = subprocess.run(
            [program, '-q', '-r', '-c', uri, 'list', '--all', '--uuid'],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DomainsUnknown(
            f'virsh -c {uri} had no answer within {TIME_LIMIT_S} s; see '
            'whether libvirt hangs'
        ) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ['it failed']
        raise DomainsUnknown(
            f'virsh -c {uri}: {lines[-1]}; see whether libvirt is running'
        )
    return frozenset(_UUID.findall(done.stdout))
