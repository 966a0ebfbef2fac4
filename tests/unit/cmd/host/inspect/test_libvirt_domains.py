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

"""Which guests libvirt says there are, asked one way or the other."""

import os
import sys

import pytest

from nova_numa_hugepages.cmd.host.inspect import libvirt_domains
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import THREE
from tests.unit.cmd.host.command_host import TWO

URI = 'qemu:///system'

LIBRARY = """
import time
import types

class libvirtError(Exception):
    pass

def registerErrorHandler(handler, context):
    pass

def openReadOnly(uri):
    time.sleep({takes_s})
    if uri != '{uri}':
        raise libvirtError('Failed to connect')
    return types.SimpleNamespace(
        listAllDomains=lambda: [
            types.SimpleNamespace(UUIDString=lambda uuid=uuid: uuid)
            for uuid in {uuids}
        ]
    )
"""


@pytest.fixture
def no_libvirt(monkeypatch, tmp_path):
    """A host that knows nothing of libvirt."""
    monkeypatch.setitem(sys.modules, 'libvirt', None)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(libvirt_domains, 'DEFINITIONS', tmp_path / 'qemu')
    return tmp_path


def virsh(folder, text):
    """Put a virsh on the path."""
    path = folder / 'virsh'
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)


def library(monkeypatch, folder, *uuids, uri=URI, takes_s=0):
    """Install a Python library of libvirt."""
    folder = folder / 'python'
    folder.mkdir(exist_ok=True)
    (folder / 'libvirt.py').write_text(
        LIBRARY.format(uri=uri, takes_s=takes_s, uuids=uuids)
    )
    monkeypatch.delitem(sys.modules, 'libvirt', raising=False)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv('PYTHONPATH', str(folder))


def test_no_way_to_know(no_libvirt):
    found, why = libvirt_domains.defined(URI, [])

    assert found is None
    assert why == (
        'the libvirt of Python: not installed; virsh: not installed; the '
        'domains in /etc/libvirt/qemu: there are none'
    )


def test_virsh_is_asked_for_the_right_libvirt(no_libvirt):
    virsh(no_libvirt, f'test "$4" = {URI} && echo {ONE} && echo {TWO}')

    assert libvirt_domains.defined(URI, [ONE])[0] == {ONE, TWO}


def test_a_virsh_that_fails(no_libvirt):
    virsh(no_libvirt, 'echo first >&2; echo error: no >&2; exit 1')

    found, why = libvirt_domains.defined(URI, [])

    assert found is None
    assert 'virsh: error: no;' in why


def test_a_virsh_that_hangs(no_libvirt, monkeypatch):
    monkeypatch.setattr(libvirt_domains, 'TIME_LIMIT_S', 0.1)
    virsh(no_libvirt, 'exec /bin/sleep 5')

    assert (
        'virsh: no answer within 0.1 s' in libvirt_domains.defined(URI, [])[1]
    )


def test_a_libvirt_that_lacks_a_guest_that_runs_is_another_one(no_libvirt):
    virsh(no_libvirt, f'echo {TWO}')

    found, why = libvirt_domains.defined(URI, [ONE])

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

    assert libvirt_domains.defined(URI, [])[0] == {ONE, TWO}
    assert libvirt_domains.defined('xen:///', [])[0] is None


@pytest.mark.parametrize('known', [[], [THREE]])
def test_a_library_that_knows_no_holder_is_not_believed(
    no_libvirt, monkeypatch, known
):
    # given: no guest runs, as after a reboot
    library(monkeypatch, no_libvirt, *known)
    virsh(no_libvirt, f'echo {TWO}')

    # when, then: the next way is taken, or none
    assert libvirt_domains.defined(URI, [], [ONE, TWO])[0] == {TWO}
    found, why = libvirt_domains.defined(URI, [], [ONE])
    assert found is None
    assert (
        'the libvirt of Python knows none of the guests that hold pages (if '
        'that is right, add --force); virsh knows none' in why
    )

    # when, then: nobody holds any
    assert libvirt_domains.defined(URI, [], [])[0] == set(known)


def test_files_that_know_no_holder_are_not_believed(no_libvirt):
    (no_libvirt / 'qemu').mkdir()
    path = no_libvirt / 'qemu/g.xml'
    path.write_text(f'<domain><uuid>{THREE}</uuid></domain>')

    found, why = libvirt_domains.defined(URI, [], [ONE])

    assert found is None
    assert 'qemu knows none of the guests that hold pages' in why
    assert libvirt_domains.defined(URI, [], [ONE, THREE])[0] == {THREE}


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_files_that_may_not_be_read(no_libvirt):
    (no_libvirt / 'qemu').mkdir()
    path = no_libvirt / 'qemu' / 'g.xml'
    path.touch(mode=0)

    assert 'Permission denied' in libvirt_domains.defined(URI, [])[1]


def test_the_library_of_libvirt_comes_first(no_libvirt, monkeypatch):
    library(monkeypatch, no_libvirt, ONE)
    virsh(no_libvirt, f'echo {TWO}')

    assert libvirt_domains.defined(URI, [ONE]) == (
        {ONE},
        'the libvirt of Python knows 1 domains',
    )


def test_a_libvirt_that_does_not_answer(no_libvirt, monkeypatch):
    library(monkeypatch, no_libvirt, ONE, uri='another')
    assert (
        'the libvirt of Python: Failed to connect; virsh: '
        in libvirt_domains.defined(URI, [])[1]
    )

    virsh(no_libvirt, f'echo {TWO}')
    assert libvirt_domains.defined(URI, [])[0] == {TWO}


def test_a_libvirt_that_hangs(no_libvirt, monkeypatch):
    # given: a service that takes connections, and doesn't answer
    monkeypatch.setattr(libvirt_domains, 'TIME_LIMIT_S', 1)
    library(monkeypatch, no_libvirt, ONE, takes_s=20)

    # when, then: the other ways are taken
    assert (
        'the libvirt of Python: no answer within 1 s; virsh: not installed'
        in libvirt_domains.defined(URI, [])[1]
    )
    virsh(no_libvirt, f'echo {TWO}')
    assert libvirt_domains.defined(URI, [])[0] == {TWO}
