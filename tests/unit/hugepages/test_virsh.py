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

"""What libvirt says of its domains, with a virsh that says what we like."""

from __future__ import annotations

from collections.abc import Callable
import pathlib

import pytest

from nova_numa_hugepages import exception
from nova_numa_hugepages.hugepages import virsh

URI = 'qemu:///system'
ONE = '00000000-0000-4000-8000-000000000001'

Install = Callable[[str], None]


@pytest.fixture
def install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Install:
    """Install a virsh that runs a line of the shell, and no other."""
    monkeypatch.setenv('PATH', str(tmp_path))

    def write(line: str) -> None:
        path = tmp_path / 'virsh'
        path.write_text(f'#!/bin/sh\n{line}\n')
        path.chmod(0o755)

    return write


def why(libvirt: virsh.Virsh) -> str:
    """Get why libvirt can't be asked."""
    with pytest.raises(exception.LibvirtError) as raised:
        libvirt.stats()
    return str(raised.value)


def test_it_only_reads(install: Install) -> None:
    install('echo "$@"')
    assert virsh.Virsh(URI).xml(ONE) == f'-q -r -c {URI} dumpxml {ONE}\n'


def test_statistics(install: Install) -> None:
    install(
        'echo "Domain: \'instance-00000001\'"\n'
        "echo '  balloon.current=1048576'\n"
        "echo '  vcpu.0.delay=12'\n"
        "echo '  odd line'\n"
        'echo\n'
        "echo \"Domain: 'it's <b>odd</b>'\"\n"
        "echo '  balloon.current=4'"
    )
    assert virsh.Virsh(URI).stats() == {
        'instance-00000001': {
            'balloon.current': '1048576',
            'vcpu.0.delay': '12',
        },
        "it's <b>odd</b>": {'balloon.current': '4'},
    }


def test_no_virsh(install: Install) -> None:
    assert why(virsh.Virsh(URI)) == (
        f'virsh -c {URI}: virsh is not installed; it is in the package '
        'libvirt-clients or libvirt-client'
    )


def test_a_virsh_that_fails(install: Install) -> None:
    install('echo first >&2; echo error: no >&2; exit 1')
    assert why(virsh.Virsh(URI)) == (
        f'virsh -c {URI}: error: no; see whether libvirt is running'
    )


def test_a_virsh_that_hangs(install: Install) -> None:
    install('exec /bin/sleep 5')
    assert why(virsh.Virsh(URI, 0.1)) == (
        f'virsh -c {URI}: no answer within 0.1 s; see whether libvirt hangs'
    )


def test_a_virsh_that_cannot_be_run(
    install: Install, tmp_path: pathlib.Path
) -> None:
    install('')
    (tmp_path / 'virsh').write_bytes(b'#!/no/such/shell\n')
    assert 'cannot be run' in why(virsh.Virsh(URI))
