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

"""Set-up of all that a virtual host boots from."""

from __future__ import annotations

import os
import shutil

from tests.host.rig import folders
from tests.host.rig import images
from tests.host.rig import packages


def prepare(*, with_nova: bool = False) -> None:
    """Install and fetch what is missing, and build the images. Idempotent.

    :param with_nova: whether Nova is to run there, too
    :raises SystemExit: with what to do, if it can't be done
    """
    if os.geteuid() != 0:
        raise SystemExit(
            'The tests on real kernels need root: they change the page pools '
            'of this machine, and put them back. Run them as root, or in a '
            'virtual machine of your own.'
        )
    folder = folders.folder()
    lock = folders.alone(folder / 'setup.lock')
    if lock is None:
        raise SystemExit(f'Another run is setting up {folder}.')
    with lock:
        packages.install()
        kernel, busybox = packages.fetch(folder / 'packages')
        target = folder / 'images'
        target.mkdir(exist_ok=True)
        shutil.copyfile(kernel.image, target / 'kernel.new')
        (target / 'kernel.new').replace(target / 'kernel')
        agent = folder / 'packages' / 'agent'
        packages.unpack_once('qemu-guest-agent', 'lib', agent)
        images.build(
            target, kernel, busybox, next(agent.glob('**/sbin/qemu-ga'))
        )
        if with_nova:
            packages.build_libvirt_python(folders.libvirt_python())
    print(
        f'Virtual hosts boot {kernel.release}; their logs are in '
        f'{folder / "logs"}',
        flush=True,
    )
