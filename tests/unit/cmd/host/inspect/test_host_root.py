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

"""``--root``: nothing of this host is mixed in, and no copy is changed."""

import json
import shutil

import pytest

from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import host_root
from nova_numa_hugepages.hugepages.kernel import hostfs
from tests.unit.cmd.host import command_host
from tests.unit.cmd.host.command_host import ONE
from tests.unit.cmd.host.command_host import TWO


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with its ledger below it, and another one at home."""
    monkeypatch.setattr(settings, 'STATE_PATH', tmp_path / 'state')
    host = command_host.two_guests(tmp_path)
    below = host.root / host.state.relative_to('/')
    shutil.copytree(host.state, below)
    (below / host.ledger.name).rename(below / 'theirs')
    return host


def run(host, *words):
    """Run a command without naming a ledger."""
    return host.call(*words, '--root', str(host.root))


def theirs(host):
    """Put the ledger where it belongs below the root."""
    below = host.root / host.state.relative_to('/')
    (below / 'theirs').rename(below / host.ledger.name)
    return below / host.ledger.name


def test_the_ledger_is_looked_for_below_the_root(host, capsys):
    # given: none there, and one of the same name on this host
    run(host, 'show', '-f', 'json')
    below = host.root / host.ledger.relative_to('/')
    assert f'There is no ledger {below}, so' in capsys.readouterr().err

    # given: one there
    theirs(host)
    run(host, 'show', '-f', 'json')
    result = capsys.readouterr()
    assert 'There is no ledger' not in result.err
    assert {row['held'] for row in json.loads(result.out)} == {0, 64, 132}


def test_the_state_path_of_a_configuration_is_below_the_root_too(
    host, capsys, tmp_path
):
    path = tmp_path / 'nova.conf'
    path.write_text('[DEFAULT]\nstate_path = /srv/nova\n')

    run(host, 'show', '-f', 'json', '--config-file', str(path))

    assert f'There is no ledger {host.root}/srv/nova/' in (
        capsys.readouterr().err
    )


def test_a_link_that_leads_out_of_a_copy_is_not_followed(host, capsys):
    below = theirs(host)
    below.unlink()
    below.symlink_to(host.ledger)

    assert run(host, 'show') == 2

    assert f'leads out of it, to {host.ledger}' in capsys.readouterr().err


@pytest.mark.parametrize('words', [('reconcile',), ('release', '--yes', TWO)])
def test_a_copy_is_not_changed(host, capsys, words):
    host.change(fs=hostfs.HostFS())
    ledger = theirs(host)
    before = ledger.read_bytes(), host.ledger.read_bytes()

    assert run(host, *words) == 2

    assert capsys.readouterr().err == (
        f'--root {host.root}: {host.root}/sys is not a mounted sysfs, so '
        'nothing is changed there. A copy can only be shown: '
        f'nova-numa-hugepages host show --root {host.root}\n'
    )
    assert (ledger.read_bytes(), host.ledger.read_bytes()) == before
    assert host.total(1) == 132


def test_a_dry_run_on_a_copy_changes_nothing(host):
    host.change(fs=hostfs.HostFS())
    theirs(host)

    assert run(host, 'reconcile', '--dry-run') == 4


def test_a_mount_of_this_kernel_may_be_changed(host):
    host.long_ago()
    shutil.copy(host.ledger, theirs(host))

    given = ('--config-file', str(host.conf))
    assert run(host, 'release', '--yes', TWO, *given) == 0

    assert host.total(1) == 32
    assert host.holders() == {ONE: 96, TWO: 100}


@pytest.mark.parametrize(
    ('old', 'new', 'reason'),
    [
        (' - proc proc', ' - ext4 /dev/vdb', 'is not a mounted proc'),
        ('/sys rw', '/other rw', 'is not a mounted sysfs'),
        ('0:21 / ', '0:21 /kernel ', 'is not a mounted sysfs'),
    ],
)
def test_what_is_mounted_there_is_something_else(
    host, capsys, old, new, reason
):
    path = host.own / 'self/mountinfo'
    path.write_text(path.read_text().replace(old, new))

    assert run(host, 'reconcile') == 2

    assert reason in capsys.readouterr().err


def test_a_mount_over_the_kernels_files_hides_them(host, capsys):
    path = host.own / 'self/mountinfo'
    with path.open('a') as file:
        file.write(f'25 23 0:25 / {host.root}/sys rw - tmpfs tmpfs rw\n')

    assert run(host, 'reconcile') == 2

    assert 'is not a mounted sysfs' in capsys.readouterr().err


def test_another_boot_is_another_kernel(host, capsys):
    link = host.own / 'sys'
    link.unlink()
    (link / 'kernel/random').mkdir(parents=True)
    (link / 'kernel/random/boot_id').write_text('another\n')

    assert run(host, 'reconcile') == 2

    assert 'is that of another kernel' in capsys.readouterr().err


def test_a_folder_with_a_blank_is_found_among_the_mounts(tmp_path):
    folder = tmp_path / 'my host'
    folder.mkdir()
    host = command_host.Host(folder)

    host_root.check_live(host.root, host.machine.fs)
