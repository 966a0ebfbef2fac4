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

"""``host reconcile``, and which guests libvirt says there are."""

import os
import sqlite3
import sys
import types

import pytest

from nova_numa_hugepages.cmd.host import domains
from nova_numa_hugepages.virt import hugetlb
from nova_numa_hugepages.virt import ledger as ledger_module
from nova_numa_hugepages.virt import pages
from tests.fixtures import kernel
from tests.unit import hosted
from tests.unit.hosted import ONE
from tests.unit.hosted import SMALL
from tests.unit.hosted import THREE
from tests.unit.hosted import TWO

URI = 'qemu:///system'


@pytest.fixture
def host(tmp_path, monkeypatch):
    """One guest runs, another is off, each on 64 pages made for it."""
    host = hosted.Host(tmp_path, {0: kernel.FakeNode(), 1: kernel.FakeNode()})
    host.hold(ONE, (0, 64))
    host.hold(TWO, (1, 64))
    host.start(ONE, {0: 64})
    monkeypatch.setattr(hugetlb, 'DirectWriter', lambda fs: host.kernel)
    return host


@pytest.fixture
def defined(monkeypatch):
    """Have libvirt know some guests."""

    def defined(*uuids):
        monkeypatch.setattr(
            domains,
            'defined',
            lambda uri, running: (frozenset(uuids), 'libvirt knows them'),
        )

    return defined


def long_ago(host):
    """Make all holds so old that no guest is starting any more."""
    with ledger_module.Ledger.open(host.ledger) as ledger:
        for hold in ledger.holds():
            ledger.replace_holds(
                hold.holder,
                hold.purpose,
                [
                    pages.Hold(
                        hold.holder, hold.purpose, hold.cell, hold.node,
                        hold.size_kib, hold.pages, hold.grown, hold.state,
                        since=1.0,
                    )
                ],
            )  # fmt: skip


def test_nothing_to_heal(host, defined, capsys):
    defined(ONE, TWO)

    assert host.run('reconcile', '--dry-run') == 0
    assert host.run('reconcile') == 0

    assert capsys.readouterr().out == 'Nothing to heal.\n' * 2


def test_a_guest_that_is_gone(host, defined, capsys):
    # given
    long_ago(host)
    defined(ONE)

    # when, then: a look changes nothing
    assert host.run('reconcile', '--dry-run') == 3
    assert f'- guest {TWO} is gone, so its pages were released' in (
        capsys.readouterr().out
    )
    assert host.holders() == {ONE: 64, TWO: 64}
    assert host.total(1) == 64

    # when, then: healed, it is healed
    assert host.run('reconcile') == 0
    result = capsys.readouterr()
    assert result.out.startswith('Healed:\n')
    assert f'- guest {TWO} is gone, so its pages were released' in result.out
    assert '64' in result.out
    assert result.err == ''
    assert host.holders() == {ONE: 64}
    assert (host.total(0), host.total(1)) == (64, 0)
    assert host.run('reconcile') == 0
    assert capsys.readouterr().out == 'Nothing to heal.\n'


def test_a_guest_that_may_be_starting_is_left_alone(host, defined, capsys):
    defined(ONE)

    assert host.run('reconcile') == 0

    assert capsys.readouterr().out == 'Nothing to heal.\n'
    assert host.holders() == {ONE: 64, TWO: 64}


def test_a_migration_is_left_to_nova(host, defined):
    host.hold(THREE, (1, 8), purpose=pages.Purpose.INCOMING)
    long_ago(host)
    defined(ONE, TWO)

    host.run('reconcile')

    assert host.holders()[THREE] == 8


def test_without_libvirt_nobody_is_taken_for_gone(host, capsys):
    long_ago(host)

    code = host.run('reconcile', '--dry-run')

    result = capsys.readouterr()
    assert 'Which guests are defined is not known' in result.err
    assert 'libvirt is not asked with --root' in result.err
    assert 'gone' not in result.out
    assert code == 3
    assert f'guest {ONE} runs on the pages that were held' in result.out


def test_what_the_operator_changed(host, defined, capsys):
    defined(ONE, TWO)
    host.kernel.operator_writes(pages.PoolKey(0, SMALL), 100)

    assert host.run('reconcile') == 0

    assert (
        f'36 pages of {pages.PoolKey(0, SMALL)} were added by someone else'
        in capsys.readouterr().out
    )


def test_what_cannot_be_healed_is_told_again(host, defined, capsys):
    # given: pages of a guest that is off were taken away, and none can be made
    defined(ONE, TWO)
    host.kernel.operator_writes(pages.PoolKey(1, SMALL), 0)
    host.kernel.fragment(1, 4 * 1024**2, mendable_kib=0)

    # when
    code = host.run('reconcile', '--config-file', str(quick(host)))

    # then
    out = capsys.readouterr().out
    assert code == 3
    assert 'Still to heal:' in out
    assert (
        f'- 64 of 64 pages of {pages.PoolKey(1, SMALL)} that are promised to '
        'guests are not there' in out
    )


def quick(host):
    """Configure a time limit that a test can wait for."""
    path = host.state / 'nova.conf'
    path.write_text('[numa_hugepages]\ngrow_time_limit = 1\n')
    return path


def test_a_ledger_that_is_too_new(host, capsys):

    with sqlite3.connect(host.ledger) as connection:
        connection.execute('PRAGMA user_version = 999')

    assert host.run('reconcile') == 1

    assert str(host.ledger) in capsys.readouterr().err


def test_no_ledger(host, capsys):
    host.ledger.unlink()

    assert host.run('reconcile', '--dry-run') == 1

    assert str(host.ledger) in capsys.readouterr().err


# Which guests there are.


@pytest.fixture
def no_libvirt(monkeypatch, tmp_path):
    """A host that knows nothing of libvirt."""
    monkeypatch.setitem(sys.modules, 'libvirt', None)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(domains, 'DEFINITIONS', tmp_path / 'qemu')
    return tmp_path


def virsh(folder, text):
    """Put a virsh on the path."""
    path = folder / 'virsh'
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)


def test_no_way_to_know(no_libvirt):
    found, why = domains.defined(URI, [])

    assert found is None
    assert why == (
        'the libvirt of Python: not installed; virsh: not installed; the '
        'domains in /etc/libvirt/qemu: there are none'
    )


def test_virsh_is_asked_for_the_right_libvirt(no_libvirt):
    virsh(no_libvirt, f'test "$4" = {URI} && echo {ONE} && echo {TWO}')

    assert domains.defined(URI, [ONE])[0] == {ONE, TWO}


def test_a_virsh_that_fails(no_libvirt):
    virsh(no_libvirt, 'echo first >&2; echo error: no >&2; exit 1')

    found, why = domains.defined(URI, [])

    assert found is None
    assert 'virsh: error: no;' in why


def test_a_virsh_that_hangs(no_libvirt, monkeypatch):
    monkeypatch.setattr(domains, 'TIME_LIMIT_S', 0.1)
    virsh(no_libvirt, 'exec /bin/sleep 5')

    assert 'virsh: no answer within 0.1 s' in domains.defined(URI, [])[1]


def test_a_libvirt_that_lacks_a_guest_that_runs_is_another_one(no_libvirt):
    virsh(no_libvirt, f'echo {TWO}')

    found, why = domains.defined(URI, [ONE])

    assert found is None
    assert f'virsh does not know guest {ONE}, which runs here' in why


def test_the_files_of_libvirt(no_libvirt):
    folder = no_libvirt / 'qemu'
    (folder / 'networks').mkdir(parents=True)
    for uuid in (ONE, TWO):
        (folder / f'{uuid[:3]}.xml').write_text(
            f'<domain type="kvm">\n  <name>g</name>\n  <uuid>{uuid}</uuid>\n'
            '  <metadata/>\n</domain>\n'
        )
    (folder / 'networks' / 'default.xml').write_text(f'<uuid>{THREE}</uuid>')

    assert domains.defined(URI, [])[0] == {ONE, TWO}
    assert domains.defined('xen:///', [])[0] is None


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_files_that_may_not_be_read(no_libvirt):
    (no_libvirt / 'qemu').mkdir()
    path = no_libvirt / 'qemu' / 'g.xml'
    path.touch(mode=0)

    assert 'Permission denied' in domains.defined(URI, [])[1]


class FakeLibvirt(types.ModuleType):
    """The Python library of libvirt."""

    class libvirtError(Exception):
        """An error."""

    def __init__(self, uuids) -> None:
        super().__init__('libvirt')
        self.uuids = uuids
        self.closed = False

    def registerErrorHandler(self, handler, context):
        """Take a handler."""

    def openReadOnly(self, uri):
        """Connect."""
        if self.uuids is None:
            raise self.libvirtError('Failed to connect')
        assert uri == URI
        return self

    def listAllDomains(self):
        """List domains."""
        return [
            types.SimpleNamespace(UUIDString=lambda uuid=uuid: uuid)
            for uuid in self.uuids
        ]

    def close(self):
        """Disconnect."""
        self.closed = True


def test_the_library_of_libvirt_comes_first(no_libvirt, monkeypatch):
    library = FakeLibvirt([ONE])
    monkeypatch.setitem(sys.modules, 'libvirt', library)
    virsh(no_libvirt, f'echo {TWO}')

    assert domains.defined(URI, [ONE]) == (
        {ONE},
        'the libvirt of Python knows 1 domains',
    )
    assert library.closed


def test_a_libvirt_that_does_not_answer(no_libvirt, monkeypatch):
    monkeypatch.setitem(sys.modules, 'libvirt', FakeLibvirt(None))
    virsh(no_libvirt, f'echo {TWO}')

    assert domains.defined(URI, [])[0] == {TWO}
