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

"""Errors that this package raises.

They are plain Python exceptions, so that they can be raised and caught where
Nova isn't installed. A host that does not fit is never an exception; it is a
value, a rejection.
"""

from collections.abc import Sequence


class NUMAHugepagesError(Exception):
    """Any error that this package raises on purpose."""


class SignatureMismatch(NUMAHugepagesError):
    """The fit of the installed Nova is not the one that ours can replace.

    :param expected: the signature that this package was written for
    :param found: the signature in the installed Nova
    """

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(
            'nova.virt.hardware.numa_fit_instance_to_host cannot be replaced: '
            f'this package was written for the signature {expected}, and the '
            f'installed Nova has {found}. Install a nova-numa-hugepages that '
            'supports this Nova, or take NUMAHugepagesFilter out of '
            '[filter_scheduler] enabled_filters and put NUMATopologyFilter '
            'back.'
        )


class InvalidStats(NUMAHugepagesError):
    """A host reports a value of ``numa_hugepages`` that cannot be read."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the host's 'numa_hugepages' stats cannot be read: {reason}"
        )


class InvalidExtraSpec(NUMAHugepagesError):
    """A flavor has an extra spec with a value that has no meaning.

    :param name: the name of the extra spec, with its namespace
    :param expected: what the value has to be
    """

    def __init__(self, name: str, value: str, expected: str) -> None:
        super().__init__(
            f'extra spec {name} is {value!r}; expected {expected}. Set it to '
            'such a value or unset it on the flavor, and create the server '
            'again.'
        )


class ElasticRefused(NUMAHugepagesError):
    """An instance can't have elastic memory as its flavor asks.

    :param reason: why not
    :param remedy: what to do
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(
            f'elastic memory is not possible: {reason}. {remedy}, or unset '
            'numa_hugepages:elastic_base_percent and '
            'numa_hugepages:elastic_base_mib on the flavor.'
        )


class InvalidOption(NUMAHugepagesError):
    """An option in the configuration of the service has a bad value.

    :param reason: what is wrong with the value, and where it was found
    """

    def __init__(self, group: str, name: str, reason: str) -> None:
        self.group = group
        self.name = name
        super().__init__(f'option [{group}] {name}: {reason}')


class InvalidDomain(NUMAHugepagesError):
    """The XML of a domain doesn't say what has to be known of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f'the XML of the domain cannot be used: {reason}')


class GuestAgentError(NUMAHugepagesError):
    """The agent of a guest is too slow, or answers what it wasn't asked.

    :param command: what it was asked
    :param found: what it does, or answers
    """

    def __init__(self, command: str, found: str) -> None:
        short = found if len(found) <= 80 else f'{found[:77]}...'
        super().__init__(f'the guest agent, asked for {command}: {short}')


class LibvirtError(NUMAHugepagesError):
    """Libvirt doesn't answer, or not with what was asked for.

    :ivar timed_out: whether it took too long, and so may the next time
    :ivar asked: whether it was asked at all
    :param uri: how it is reached
    """

    def __init__(
        self,
        uri: str,
        reason: str,
        *,
        timed_out: bool = False,
        asked: bool = True,
    ) -> None:
        self.timed_out = timed_out
        self.asked = asked
        super().__init__(f'virsh -c {uri}: {reason}')


class KernelError(NUMAHugepagesError):
    """A file of the kernel can't be read, or has unexpected content.

    :param found: what was found, or why it can't be read
    :param expected: what the kernel writes there
    """

    def __init__(self, path: object, found: str, expected: str) -> None:
        super().__init__(f'{path}: expected {expected}, found {found}')


class PoolsReadOnly(NUMAHugepagesError):
    """This process can't change the page pools of this host."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f'huge page pools cannot be changed: {reason}')


class NotEnoughPages(NUMAHugepagesError):
    """A guest needs more huge pages than are free or can be allocated.

    :param shortages: one sentence with numbers for each pool that has too
        few
    """

    def __init__(self, shortages: Sequence[str]) -> None:
        self.shortages = tuple(shortages)
        super().__init__('not enough huge pages: ' + '; '.join(shortages))


class LedgerError(NUMAHugepagesError):
    """The ledger of held pages can't be used."""

    def __init__(self, path: object, reason: str, remedy: str) -> None:
        super().__init__(f'the ledger of huge pages {path} {reason}. {remedy}')


class LedgerMissing(LedgerError):
    """There is no ledger where one was expected."""

    def __init__(self, path: object) -> None:
        super().__init__(
            path,
            'is not there, or is empty',
            'nova-compute makes it when it starts.',
        )


class LedgerDamaged(LedgerError):
    """The ledger is no ledger, or is damaged."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(path, reason, _without_ledger(path))


class LedgerTooNew(LedgerError):
    """The ledger was written by a newer version of this package.

    :param known: the latest version that this package knows
    """

    def __init__(self, path: object, version: int, known: int) -> None:
        super().__init__(
            path,
            f'has version {version} of its schema, and this '
            f'nova-numa-hugepages knows versions up to {known}',
            'Install the nova-numa-hugepages that wrote it, or a later one. '
            f'If there is none: {_without_ledger(path)}',
        )


def _without_ledger(path: object) -> str:
    """Say how to go on without a ledger that can't be used."""
    return (
        f'Stop nova-compute, move {path} aside, together with {path}-wal and '
        f'{path}-shm if they are there, and start nova-compute: it makes '
        'another ledger from the running domains, and leaves the page pools '
        'as they are.'
    )
