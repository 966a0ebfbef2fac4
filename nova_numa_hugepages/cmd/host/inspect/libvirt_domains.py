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

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import virsh


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
    try:
        found = virsh.Virsh(uri).uuids()
    except exception.LibvirtError as error:
        raise DomainsUnknown(str(error)) from error
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
