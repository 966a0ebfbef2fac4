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

"""Arms as guests of libvirt on this host, pinned, with pages of the host.

Guests have no disk and no network: they boot an initramfs, and are told on a
serial port what to run. In them all programs ask for transparent huge pages;
what differs are the pages and nodes of the host.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
import platform
import re
import shlex
import shutil
import socket
import subprocess
import time
import uuid

from nova_numa_hugepages.experiment import guest_domain
from nova_numa_hugepages.experiment import guest_image
from nova_numa_hugepages.experiment import in_place
from nova_numa_hugepages.experiment import local_needs
from nova_numa_hugepages.experiment import local_pages
from nova_numa_hugepages.experiment import probe
from nova_numa_hugepages.experiment.plan import Arm
from nova_numa_hugepages.experiment.plan import IDLE
from nova_numa_hugepages.experiment.plan import Plan
from nova_numa_hugepages.experiment.plan import THP
from nova_numa_hugepages.experiment.trial import Trial
from nova_numa_hugepages.experiment.trial import TrialError
from nova_numa_hugepages.experiment.workload import Workload
from nova_numa_hugepages.hugepages.kernel import hostfs
from nova_numa_hugepages.hugepages.kernel import hugetlb
from nova_numa_hugepages.hugepages.kernel import processes

DEFAULT_URI = 'qemu:///system'

KVM, QEMU = 'kvm', 'qemu'

_PROGRAMS = {'virsh': 'libvirt-clients', **guest_image.PROGRAMS}
_BOOT_S = 300.0
_LIMIT_S = 900.0
# QEMU has memory of its own, the more if it emulates.
_LEAST_SHARE = 0.6
# For its kernel, its programs and their files.
_GUEST_MIB = 256
_BOOTED = re.compile('^booted$', re.MULTILINE)
_READY = re.compile('^ready$', re.MULTILINE)
_ENDED = re.compile(r'^ended (\d+) ([\d.]+) ([\d.]+)$', re.MULTILINE)
_TICKS_PER_S = os.sysconf('SC_CLK_TCK')


class _Guest:
    """A guest that runs.

    :ivar arm: what it has
    :ivar turn: in which pair it was booted
    """

    def __init__(
        self,
        arm: Arm,
        turn: int,
        name: str,
        uuid_: str,
        files: guest_domain.GuestFiles,
        cpu: int,
    ) -> None:
        self.arm = arm
        self.turn = turn
        self.name = name
        self.uuid = uuid_
        self.cpu = cpu
        self._files = files
        self._socket: socket.socket | None = None
        self._text = ''

    def wait_until_booted(self) -> None:
        """Wait until it can be told something. What came before is lost.

        :raises TrialError: if it doesn't boot in time
        """
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(self._files.port))
        self._socket.settimeout(1.0)
        self.wait_for(_BOOTED, _BOOT_S)
        # It may say so once more.
        self.send('true')
        self.wait_for(_ENDED, _LIMIT_S)

    def send(self, line: str) -> None:
        """Send it a line."""
        assert self._socket is not None
        self._text = ''
        self._socket.sendall(f'{line}\n'.encode())

    def wait_for(self, pattern: re.Pattern[str], limit_s: float) -> str:
        """Wait until it has written something.

        :returns: all that it has written since it was told something
        :raises TrialError: if it doesn't in time, or ends
        """
        assert self._socket is not None
        deadline = time.monotonic() + limit_s
        while not pattern.search(self._text):
            try:
                some = self._socket.recv(65536)
            except TimeoutError:
                some = None
            if some == b'' or time.monotonic() > deadline:
                raise TrialError(
                    f'The guest of the arm {self.arm.name} '
                    + ('ended' if some == b'' else 'does not answer')
                    + f': {self._text.strip()[-200:] or "no output"}; its '
                    f'console: {self.console() or "empty"}'
                )
            self._text += (some or b'').decode(errors='replace')
            self._text = self._text.replace('\r', '')
        return self._text

    def console(self) -> str:
        """Return the end of what its kernel has written."""
        try:
            text = self._files.console.read_text(errors='replace')
        except OSError:
            return ''
        return text.strip()[-300:]

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()


class LibvirtHost:
    """Guests of the libvirt of this host.

    :param folder: for images, consoles and sockets; QEMU has to be able to
        read it
    :param kernel: what guests boot; that of this host if None
    :param virt_type: `KVM`, or `QEMU` to emulate guests; if None, the first
        one where this host has it
    :param allocate: as for `local.LocalHost`
    """

    def __init__(
        self,
        plan: Plan,
        folder: pathlib.Path,
        fs: hostfs.HostFS,
        *,
        uri: str = DEFAULT_URI,
        kernel: pathlib.Path | None = None,
        virt_type: str | None = None,
        allocate: bool = False,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._fs = fs
        self._uri = uri
        self._kernel = kernel or pathlib.Path(
            f'/boot/vmlinuz-{platform.release()}'
        )
        self._virt_type = virt_type or (
            KVM if os.access('/dev/kvm', os.R_OK | os.W_OK) else QEMU
        )
        self._allocate = allocate
        self._hugetlb = hugetlb.Hugetlb(fs, hugetlb.write_number)
        self._pages = local_pages.AllocatedPages(self._hugetlb)
        self._place = local_needs.choose(fs)
        self._image = folder / 'none'
        self._memory_mib = 0
        self._guests: dict[str, _Guest] = {}

    @property
    def emulates(self) -> bool:
        """Whether guests are emulated here."""
        return self._virt_type == QEMU

    def prepare(self, workloads: Sequence[Workload]) -> None:
        """Check that the plan can be carried out, and make all ready.

        :raises local_needs.NotHere: if something is missing; nothing was
            changed then
        """
        problems = []
        if set(self._plan.loads) != {IDLE}:
            problems.append(
                'Guests of libvirt have no loads beside. Leave them out.'
            )
        if not self._kernel.exists():
            problems.append(
                f'There is no kernel {self._kernel} for guests. Name one with '
                '--kernel.'
            )
        if shutil.which('virsh') is not None:
            problems += self._libvirt_problems()
        self._memory_mib = _GUEST_MIB + 2 * max(
            workload.memory_mib for workload in workloads
        )
        wanted = local_needs.check(
            self._fs,
            self._plan,
            workloads,
            self._place,
            memory_mib=self._memory_mib,
            pools=self._hugetlb,
            allocate=self._allocate,
            programs=_PROGRAMS,
            problems=problems,
        )
        program = probe.compile_to(self._folder, static=True)
        self._image = guest_image.build(
            self._folder / 'image', program, workloads
        )
        # QEMU may run as another user.
        for path in (self._folder, self._image.parent, self._image):
            path.chmod(0o755)
        for key, pages in wanted.items():
            self._pages.allocate(key, pages)

    def run(
        self, workload: Workload, load: str, arms: Sequence[Arm], turn: int
    ) -> tuple[bool, list[Trial]]:
        """Run a workload once in each arm, as `trial.Place.run`.

        Guests are booted for each pair, and run all workloads of it.
        """
        cpus = self._place.order(turn)
        if len(cpus) >= len(arms):
            on = self._place.cpus_of(arms, turn)
            guests = [self._guest(arm, turn, on[arm]) for arm in arms]
            return True, self._trials(workload, guests)
        trials = []
        for arm in arms:
            guest = self._guest(arm, turn, cpus[0])
            trials += self._trials(workload, [guest])
            self._stop(guest)
        return False, trials

    def close(self) -> None:
        """End the guests, and give back what was allocated."""
        try:
            for guest in list(self._guests.values()):
                self._stop(guest)
        finally:
            self._pages.give_back()

    def _libvirt_problems(self) -> list[str]:
        tried = self._virsh('version')
        if tried.returncode:
            return [
                f'libvirt does not answer at {self._uri}: '
                f'{tried.stderr.strip().splitlines()[-1:] or "no reason"}. '
                'Start it, or name another one with --libvirt URI.'
            ]
        return []

    def _virsh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ['virsh', '-q', '-c', self._uri, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def _guest(self, arm: Arm, turn: int, cpu: int) -> _Guest:
        """Get the guest of an arm for a pair; boot it if there is none."""
        guest = self._guests.get(arm.name)
        if guest is not None and guest.turn == turn and guest.cpu == cpu:
            return guest
        # Those of the pair before have memory, and a CPU.
        for other in list(self._guests.values()):
            if other.turn != turn or other.arm == arm:
                self._stop(other)
        return self._boot(arm, turn, cpu)

    def _boot(self, arm: Arm, turn: int, cpu: int) -> _Guest:
        name = f'experiment-{uuid.uuid4().hex[:8]}'
        files = guest_domain.GuestFiles(
            self._kernel.resolve(),
            self._image,
            self._folder / f'{name}.console',
            self._folder / f'{name}.port',
        )
        guest = _Guest(arm, turn, name, str(uuid.uuid4()), files, cpu)
        path = self._folder / f'{name}.xml'
        path.write_text(
            guest_domain.describe(
                name,
                guest.uuid,
                arm,
                files,
                virt_type=self._virt_type,
                memory_mib=self._memory_mib,
                cpu=cpu,
                node=self._place.node(arm),
            )
        )
        # Noted before, so that it is ended whatever happens then.
        self._guests[arm.name] = guest
        created = self._virsh('create', str(path))
        if created.returncode:
            raise TrialError(
                f'libvirt did not start the guest of the arm {arm.name}: '
                f'{created.stderr.strip()}'
            )
        guest.wait_until_booted()
        return guest

    def _stop(self, guest: _Guest) -> None:
        guest.close()
        self._virsh('destroy', guest.name)
        self._guests.pop(guest.arm.name, None)

    def _trials(
        self, workload: Workload, guests: Sequence[_Guest]
    ) -> list[Trial]:
        command = shlex.join(
            workload.command(guest_image.PROBE, THP, guest_image.WORK)
        )
        began = {guest: self._cpu_s(guest) for guest in guests}
        tunables = 'GLIBC_TUNABLES=glibc.malloc.hugetlb=1'
        for guest in guests:
            guest.send(f'{tunables} {command}')
        if workload.waits:
            for guest in guests:
                guest.wait_for(_READY, _LIMIT_S)
            for guest in guests:
                guest.send('go')
        outputs = [guest.wait_for(_ENDED, _LIMIT_S) for guest in guests]
        return [
            self._trial(workload, guest, output, began[guest])
            for guest, output in zip(guests, outputs, strict=True)
        ]

    def _trial(
        self, workload: Workload, guest: _Guest, output: str, cpu_s: float
    ) -> Trial:
        ended = _ENDED.search(output)
        assert ended is not None
        if ended[1] != '0':
            raise TrialError(
                f'The workload {workload.name} failed in the guest of the arm '
                f'{guest.arm.name} with status {ended[1]}: '
                f'{output[: ended.start()].strip()[-300:] or "no output"}'
            )
        wall_s = float(ended[3]) - float(ended[2])
        # QEMU keeps the memory that the guest had.
        place = in_place.read(self._fs, self._pid(guest))
        return Trial(
            guest.arm.name,
            workload.values(output[: ended.start()], wall_s),
            self._cpu_s(guest) - cpu_s,
            wall_s,
            (0, 0),
            0.0,
            {},
            place.as_json(),
            in_place.problems(
                place,
                guest.arm,
                workload.memory_mib,
                self._place.node(guest.arm),
                frozenset({guest.cpu}),
                least_share=_LEAST_SHARE,
            ),
        )

    def _pid(self, guest: _Guest) -> int:
        found = processes.running(self._fs).get(guest.uuid)
        if found is None:
            raise TrialError(
                f'The guest of the arm {guest.arm.name} has ended; its '
                f'console: {guest.console() or "empty"}'
            )
        return found.pid

    def _cpu_s(self, guest: _Guest) -> float:
        """Read the time of CPUs that the QEMU of a guest has taken."""
        stat = self._fs.text(self._fs.proc / str(self._pid(guest)) / 'stat')
        words = stat.rpartition(')')[2].split()
        return (int(words[11]) + int(words[12])) / _TICKS_PER_S
