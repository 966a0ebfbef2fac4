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

"""The domains of libvirt, as virsh lists them."""

import functools

import pytest

from nova_numa_hugepages.cmd.host.inspect import libvirt_domains
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import THREE
from tests.unit.cmd.host.command_host import TWO

URI = 'qemu:///system'


@pytest.fixture
def virsh(monkeypatch, tmp_path):
    """Install a virsh that runs a line of the shell, and no other."""
    monkeypatch.setenv('PATH', str(tmp_path))
    return functools.partial(command_host.install_virsh, tmp_path)


def unknown(*known):
    """Get why the domains are not known."""
    with pytest.raises(libvirt_domains.DomainsUnknown) as raised:
        libvirt_domains.defined(*known)
    return str(raised.value)


def test_the_right_libvirt_is_asked(virsh):
    virsh(f'test "$4" = {URI} && echo {ONE} && echo {TWO}')

    assert libvirt_domains.defined(URI, [ONE]) == {ONE, TWO}


def test_with_root_no_libvirt_is_asked(virsh):
    virsh(f'echo {ONE}')

    assert unknown(None, []) == 'libvirt is not asked with --root'


def test_a_virsh_that_fails(virsh):
    virsh('echo first >&2; echo error: no >&2; exit 1')

    assert unknown(URI, []) == (
        f'virsh -c {URI}: error: no; see whether libvirt is running'
    )


def test_a_libvirt_without_a_guest_that_runs_is_another_one(virsh):
    virsh(f'echo {TWO}')

    assert unknown(URI, [ONE]) == (
        f'the libvirt at {URI} does not know guest {ONE}, which runs here; '
        'set [libvirt] connection_uri to that of nova-compute'
    )


@pytest.mark.parametrize('line', ['true', f'echo {THREE}'])
def test_a_libvirt_that_knows_no_holder_is_not_believed(virsh, line):
    # given: no guest runs, as after a reboot
    virsh(line)

    assert unknown(URI, [], [ONE, TWO]) == (
        f'the libvirt at {URI} knows none of the guests that hold pages; if '
        'that is right, add --force'
    )


def test_a_libvirt_that_knows_one_holder_is_believed(virsh):
    virsh(f'echo {TWO}; echo {THREE}')

    assert libvirt_domains.defined(URI, [], [ONE, TWO]) == {TWO, THREE}
    assert libvirt_domains.defined(URI, []) == {TWO, THREE}
