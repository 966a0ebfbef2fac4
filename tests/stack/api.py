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

"""The API of the cloud: what users do, and what administrators see."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import itertools
import time
from typing import Any
from typing import TypeVar

from openstack import exceptions

from tests.stack import cloud_setup

# On an emulated host everything takes its time.
LIMIT_S = 600.0
# Later ones don't show what hosts have reported as used.
_LAST_WITH_USE = '2.87'
_INTERVAL_S = 0.5

_numbers = itertools.count(1)


_T = TypeVar('_T')


def wait_until(
    condition: Callable[[], _T],
    problem: Callable[[], object],
    *,
    limit_s: float = LIMIT_S,
    interval_s: float = _INTERVAL_S,
) -> _T:
    """Wait until a condition is true.

    :param problem: returns what the error says if that takes too long
    :returns: the value of the condition
    """
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, problem()
        time.sleep(interval_s)
    return found


class Client:
    """A client of the cloud's API."""

    def __init__(self) -> None:
        self.cloud = cloud_setup.connect()
        self.compute = self.cloud.compute
        self._flavors: dict[Any, str] = {}
        self._images = {
            image.name: image.id for image in self.cloud.image.images()
        }

    def flavor(
        self,
        *,
        vcpus: int = 1,
        mib: int = 128,
        disk_gib: int = 0,
        **specs: str,
    ) -> str:
        """Return a flavor, which is made if there is none like it.

        :param disk_gib: with 0 the disk is as large as the image, and takes
            less time to make; that is for administrators
        :param specs: extra specs, with ``__`` for the colon
        """
        named = {
            name.replace('__', ':'): value for name, value in specs.items()
        }
        key = (vcpus, mib, disk_gib, *sorted(named.items()))
        if key not in self._flavors:
            made = self.compute.create_flavor(
                name=f'flavor{next(_numbers)}',
                vcpus=vcpus,
                ram=mib,
                disk=disk_gib,
            )
            if named:
                self.compute.create_flavor_extra_specs(made, named)
            self._flavors[key] = made.id
        return self._flavors[key]

    def pages(self, *, cells: int = 1, mib: int = 128) -> str:
        """Return a flavor on huge pages, with a dedicated CPU for each cell.

        :param mib: memory of all cells
        """
        return self.flavor(
            vcpus=cells,
            mib=mib,
            hw__cpu_policy='dedicated',
            hw__mem_page_size='2048',
            hw__numa_nodes=str(cells),
        )

    def create(
        self,
        flavor: str,
        *,
        image: str = cloud_setup.EMPTY,
        host: str | None = None,
        zone: str | None = None,
        count: int = 1,
    ) -> list[str]:
        """Create servers, and don't wait.

        :returns: their ids
        """
        name = f'server{next(_numbers)}'
        wanted: dict[str, Any] = {
            'name': name,
            'flavorRef': flavor,
            'imageRef': self._images[image],
            'networks': 'none',
            'min_count': count,
            'max_count': count,
            'return_reservation_id': True,
        }
        if host is not None:
            wanted['host'] = host
        if zone is not None:
            wanted['availability_zone'] = zone
        answer = self.compute.post('/servers', json={'server': wanted})
        exceptions.raise_from_response(answer)
        reservation = answer.json()['reservation_id']
        listed = self.compute.get(
            '/servers', params={'reservation_id': reservation}
        )
        return [server['id'] for server in listed.json()['servers']]

    def boot(self, flavor: str, **wanted: Any) -> str:
        """Create one server, and wait until it is active."""
        [server] = self.create(flavor, **wanted)
        self.wait(server, 'ACTIVE')
        return server

    def server(self, server: str) -> dict[str, Any]:
        """Return a server, as the API shows it."""
        answer = self.compute.get(f'/servers/{server}')
        exceptions.raise_from_response(answer)
        found: dict[str, Any] = answer.json()['server']
        return found

    def wait(
        self, server: str, *statuses: str, seconds: float = LIMIT_S
    ) -> dict[str, Any]:
        """Wait until a server has one of some statuses and is at rest.

        :raises AssertionError: if it has another one then, or not in time
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self.server(server)
            idle = found['OS-EXT-STS:task_state'] is None
            if idle and found['status'] in statuses:
                return found
            failed = idle and found['status'] == 'ERROR'
            assert not failed, found.get('fault')
            assert time.monotonic() < deadline, (
                f'{server} is {found["status"]} and '
                f'{found["OS-EXT-STS:task_state"]}, not {statuses}'
            )
            time.sleep(_INTERVAL_S)

    def act(self, server: str, action: str, body: Any = None) -> Any:
        """Start an action on a server, and don't wait."""
        answer = self.compute.post(
            f'/servers/{server}/action', json={action: body}
        )
        exceptions.raise_from_response(answer)
        return answer

    def delete(self, servers: Iterable[str]) -> None:
        """Delete servers, and wait until they are gone."""
        servers = list(servers)
        for server in servers:
            self.compute.delete_server(server, ignore_missing=True)
        for server in servers:
            self._wait_until_gone(server)

    def _wait_until_gone(self, server: str) -> None:
        def gone() -> bool:
            answer = self.compute.get(f'/servers/{server}')
            return bool(answer.status_code == 404)

        wait_until(gone, lambda: f'{server} is not deleted')

    def image(self, name: str) -> str:
        """Return the id of an image."""
        return self._images[name]

    def enable(self, host: str, enabled: bool) -> None:
        """Let the scheduler take a host, or not."""
        self._service(host, status='enabled' if enabled else 'disabled')

    def vcpus_used(self) -> dict[str, int]:
        """Return how many vCPUs hosts have reported as used, by name."""
        answer = self.compute.get(
            '/os-hypervisors/detail', microversion=_LAST_WITH_USE
        )
        exceptions.raise_from_response(answer)
        return {
            found['hypervisor_hostname']: found['vcpus_used']
            for found in answer.json()['hypervisors']
        }

    def force_down(self, host: str, down: bool) -> None:
        """Say that a host is down, before Nova finds out; or that it isn't."""
        self._service(host, forced_down=down)

    def _service(self, host: str, **change: Any) -> None:
        [service] = self.compute.services(binary='nova-compute', host=host)
        answer = self.compute.put(f'/os-services/{service.id}', json=change)
        exceptions.raise_from_response(answer)

    def wait_for_host(
        self, server: str, host: str, status: str = 'ACTIVE'
    ) -> None:
        """Wait until a server has moved to a host.

        :param status: which it has then
        :raises AssertionError: if it doesn't
        """

        def moved() -> bool:
            self.wait(server, 'ACTIVE', status)
            return self.host(server) == host

        wait_until(moved, lambda: self._migrations(server))

    def running_migration(self, server: str) -> int:
        """Wait until the memory of a server is on its way.

        :returns: the id of its migration
        """

        def running() -> list[int]:
            return [
                migration['id']
                for migration in self._migrations(server)
                if migration['status'] == 'running'
            ]

        return wait_until(running, lambda: self._migrations(server))[0]

    def last_migration(self, server: str) -> str:
        """Return the uuid of the last migration of a server.

        Placement has what the server had before for it.
        """
        found: str = self._migrations(server)[0]['uuid']
        return found

    def abort(self, server: str, migration: int) -> None:
        """Stop a live migration, and don't wait."""
        answer = self.compute.delete(
            f'/servers/{server}/migrations/{migration}'
        )
        exceptions.raise_from_response(answer)

    def _migrations(self, server: str) -> list[dict[str, Any]]:
        answer = self.compute.get(
            '/os-migrations', params={'instance_uuid': server}
        )
        exceptions.raise_from_response(answer)
        found: list[dict[str, Any]] = answer.json()['migrations']
        return found

    def host(self, server: str) -> str:
        """Return the name of the host of a server."""
        name: str = self.server(server)['OS-EXT-SRV-ATTR:host']
        return name

    def topology(self, server: str) -> dict[str, Any]:
        """Return the NUMA topology of a server."""
        answer = self.compute.get(f'/servers/{server}/topology')
        exceptions.raise_from_response(answer)
        found: dict[str, Any] = answer.json()
        return found

    def allocations(self, server: str) -> dict[str, dict[str, int]]:
        """Return what a server has in Placement, by the name of the host."""
        allocations = self._placement(f'/allocations/{server}')['allocations']
        return {
            self._provider(uuid): found['resources']
            for uuid, found in allocations.items()
        }

    def forget_allocations(self, host: str) -> None:
        """Delete what is left of a host without servers in Placement.

        Nova leaves there what a migration has that did not come to its end.
        Operators do this by ``nova-manage placement audit --delete``.
        """
        providers = self._placement(f'/resource_providers?name={host}')
        for provider in providers['resource_providers']:
            path = f'/resource_providers/{provider["uuid"]}/allocations'
            for consumer in self._placement(path)['allocations']:
                answer = self.cloud.placement.delete(
                    f'/allocations/{consumer}'
                )
                exceptions.raise_from_response(answer)

    def _placement(self, path: str) -> dict[str, Any]:
        answer = self.cloud.placement.get(path)
        exceptions.raise_from_response(answer)
        found: dict[str, Any] = answer.json()
        return found

    def console(self, server: str) -> str:
        """Read the console of a server."""
        text: str = self.act(server, 'os-getConsoleOutput', {}).json()[
            'output'
        ]
        return text

    def wait_for_console(
        self, server: str, text: str, *, limit_s: float
    ) -> None:
        """Wait until a server that boots has written a text on its console.

        Its emulator may crash as that of a virtual host does, and Nova finds
        that it is off then. Once, it is started again.
        """
        restarts = 0

        def written() -> bool:
            nonlocal restarts
            try:
                return text in self.console(server)
            except exceptions.NotFoundException:
                if restarts:
                    raise
            restarts += 1
            print(f'The emulator of {server} has ended: starting it again.')
            self.wait(server, 'SHUTOFF')
            self.act(server, 'os-start')
            self.wait(server, 'ACTIVE')
            return False

        wait_until(
            written,
            lambda: self.console(server),
            limit_s=limit_s,
            # To read a console takes an emulated host seconds, in which what
            # boots there has to wait.
            interval_s=15,
        )

    def _provider(self, uuid: str) -> str:
        name: str = self._placement(f'/resource_providers/{uuid}')['name']
        return name
