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

"""SSH from one virtual host to the other, by which Nova copies disks.

The server is unpacked and not installed: installed, it would listen on the
machine that the virtual hosts run on.
"""

from __future__ import annotations

import subprocess

from tests.host.rig import packages
from tests.host.rig import virtual
from tests.stack import locations

# As `packages.PROGRAMS`.
PROGRAMS = dict.fromkeys(('ssh', 'scp', 'ssh-keygen'), ('openssh-client',))
_SERVER = 'openssh-server'

# The root of a virtual host is its own as far as it is written to.
_START = """
[ ! -e /run/sshd.pid ] || exit 0
cp -a {folder}/{server}/usr/. /usr/
mkdir -p /run/sshd
grep -q ^sshd: /etc/passwd || echo sshd:x:65533:65534::/run/sshd:/bin/false \
    >>/etc/passwd
# Nobody has a password, and root's account is not locked.
sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow
mkdir -p -m 700 /root/.ssh
cat >/root/.ssh/config <<END
IdentityFile {folder}/key
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
END
cat >/run/sshd.conf <<END
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
PasswordAuthentication no
PidFile /run/sshd.pid
StrictModes no
Subsystem sftp internal-sftp
UsePAM no
END
/usr/sbin/sshd -f /run/sshd.conf -E /var/log/sshd.log
"""


def prepare() -> None:
    """Install what is missing, and make the key. Idempotent."""
    packages.install(PROGRAMS)
    folder = locations.folder() / 'ssh'
    packages.unpack_once(_SERVER, 'lib', folder / _SERVER)
    key = folder / 'key'
    if not key.exists():
        subprocess.run(
            ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', key],
            check=True,
        )


def start(machine: virtual.VirtualHost) -> None:
    """Let the other host log in. Idempotent.

    Both have the same key, for themselves and for root.
    """
    machine.run(
        _START.format(folder=locations.folder() / 'ssh', server=_SERVER)
    )
