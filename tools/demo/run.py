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


"""The demo: a scenario on an embedded cloud."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import pathlib
import string
import time
from typing import Any

from rich import console as rich_console
from rich import padding
from rich import progress as rich_progress
from rich import rule
from rich import table
from rich import text

from nova_numa_hugepages.simulate.scenario import HostType
from tests.fixtures import cloud as embedded
from tools.demo import demo_scenario
from tools.demo import elastic
from tools.demo import explanation
from tools.demo import hostmap
from tools.demo import verdicts

LETTERS = string.ascii_lowercase + string.ascii_uppercase


class DemoError(Exception):
    """The demo did not show what it was meant to show."""


class RefusedError(DemoError):
    """Nova's API refuses what the scenario asks for."""


class Demo:
    """Play a scenario.

    :param play: what to show
    :param console: where to show it
    :param page: the file for the monitor's page of a host
    """

    def __init__(
        self,
        play: demo_scenario.DemoScenario,
        console: rich_console.Console,
        page: pathlib.Path,
    ) -> None:
        self._page = page
        self._play = play
        self._console = console
        self._hosts = {host.name: host for host in play.hosts}
        self._flavors = {flavor.name: flavor for flavor in play.flavors}
        self._placed: list[explanation.Placed] = []
        self._failures: list[str] = []
        self._refused: list[str] = []
        self._corrected: list[str] = []

    def run(self) -> None:
        """Play it.

        :raises: `DemoError` if a guest is not where it was meant to be, if
            the API refuses something, or if anything is left in use
        """
        begin = time.monotonic()
        guests = self._play.guests
        with _progress(self._console) as progress:
            task = progress.add_task(
                'starting Nova', total=3 + 2 * len(guests)
            )
            cloud = embedded.EmbeddedCloud(
                [_host_spec(host) for host in self._play.hosts],
                numa_weigher=True,
            )
            watch = verdicts.VerdictsFixture()
            with cloud, watch:
                progress.advance(task, 2)
                self._heading(
                    'A Nova with '
                    f'{explanation.count(len(self._hosts), "host")} answers '
                    f'on {cloud.url}'
                )
                progress.update(task, description='creating flavors')
                flavor_ids = self._create_flavors(cloud)
                self._heading('Guests')
                self._say(explanation.WEIGHER, style='dim')
                for guest in guests:
                    progress.update(task, description=f'booting {guest.name}')
                    self._boot(cloud, watch, guest, flavor_ids[guest.flavor])
                    progress.advance(task)
                self._heading('Hosts with all guests')
                self._draw(cloud)
                progress.update(task, description='deleting all guests')
                self._delete(cloud)
                progress.advance(task, len(guests))
                self._heading('Pages that are made as they are needed')
                self._grow()
                progress.update(task, description='stopping Nova')
            progress.advance(task)
        self._summary(time.monotonic() - begin)

    def _create_flavors(self, cloud: embedded.EmbeddedCloud) -> dict[str, str]:
        ids = {}
        for flavor in self._play.flavors:
            try:
                ids[flavor.name] = cloud.api.create_flavor(
                    flavor.name,
                    vcpus=flavor.vcpus,
                    ram_mib=flavor.memory_mib,
                    extra_specs=flavor.extra_specs,
                )
            except embedded.APIError as error:
                raise RefusedError(
                    f'{self._play.file}:{flavor.line}: the API refuses the '
                    f'flavor {flavor.name!r} ({error})'
                ) from error
        return ids

    def _boot(
        self,
        cloud: embedded.EmbeddedCloud,
        watch: verdicts.VerdictsFixture,
        guest: demo_scenario.DemoGuest,
        flavor_id: str,
    ) -> None:
        found = watch.start(guests=guest.count, compare=guest.compare)
        try:
            ids = cloud.api.boot(
                guest.name, flavor=flavor_id, count=guest.count
            )
        except embedded.APIError as error:
            raise RefusedError(
                f'{self._play.file}:{guest.line}: the API refuses the guest '
                f'{guest.name!r} ({error})'
            ) from error
        servers = [cloud.api.wait(server_id) for server_id in ids]
        self._console.print()
        self._say(
            explanation.request(self._flavors[guest.flavor], guest.count),
            head=guest.name,
        )
        if guest.note:
            self._say(guest.note, style='italic')
        failed = [s for s in servers if s['status'] != 'ACTIVE']
        for server in servers:
            if server in failed:
                self._say(
                    f'{server["name"]} is refused: '
                    f'{server.get("fault", {}).get("message", "")}',
                    style='red',
                )
                cloud.api.delete(server['id'])
            else:
                self._place(cloud, server['id'], server['name'])
        self._explain(servers, found)
        if guest.compare and found.stock is not None:
            self._compare(guest, servers, found)
        if failed and not guest.refused:
            self._failures.append(
                f'{self._play.file}:{guest.line}: guest {guest.name!r} is '
                'refused, expected it to be placed'
            )
        elif guest.refused and not failed:
            self._failures.append(
                f'{self._play.file}:{guest.line}: guest {guest.name!r} is '
                'placed, expected it to be refused'
            )
        elif guest.refused:
            self._refused.append(guest.name)

    def _explain(
        self, servers: Sequence[dict[str, Any]], found: verdicts.Verdicts
    ) -> None:
        taken = _taken(servers)
        grid = table.Table.grid(padding=(0, 1, 0, 0))
        for index, line in enumerate(
            explanation.decision(found, list(self._hosts), taken)
        ):
            grid.add_row('' if index else 'why:', line)
        self._console.print(_indented(grid))

    def _place(
        self, cloud: embedded.EmbeddedCloud, server_id: str, name: str
    ) -> None:
        instance = cloud.instance(server_id)
        placed = explanation.Placed(
            name=name,
            letter=LETTERS[len(self._placed)],
            server_id=server_id,
            host=instance.host,
            topology=instance.numa_topology,
        )
        self._placed.append(placed)
        first, *cells = explanation.placement(placed, self._hosts[placed.host])
        self._say(first, style=hostmap.colour(placed.letter))
        for line in cells:
            self._say(line)

    def _compare(
        self,
        guest: demo_scenario.DemoGuest,
        servers: Sequence[dict[str, Any]],
        found: verdicts.Verdicts,
    ) -> None:
        rows = explanation.comparison(found)
        agrees = not any(differs for *_, differs in rows)
        if not agrees:
            grid = table.Table(
                'host', 'stock Nova', 'ours', box=None, padding=(0, 3, 0, 0)
            )
            for host, stock, ours, differs in rows:
                style = 'bold' if differs else ''
                grid.add_row(host, stock, ours, style=style)
            self._console.print(_indented(grid))
        taken = _taken(servers)
        self._say(explanation.stock_choice(found, taken, agrees=agrees))
        if not agrees or found.stock_choice != taken[servers[0]['name']]:
            self._corrected.append(guest.name)

    def _draw(self, cloud: embedded.EmbeddedCloud) -> None:
        for host in self._play.hosts:
            here = [p for p in self._placed if p.host == host.name]
            self._console.print(
                hostmap.draw(
                    host.name,
                    cloud.topology(host.name),
                    {cpu: p.letter for p in here for cpu in p.cpus()},
                    '  '.join(f'{p.letter} {p.name}' for p in here),
                    explanation.distances(host),
                )
            )
        for line in hostmap.LEGEND:
            self._say(line, style='dim')

    def _delete(self, cloud: embedded.EmbeddedCloud) -> None:
        self._heading('Deleting all guests')
        for placed in self._placed:
            cloud.api.delete(placed.server_id)
        left = cloud.wait_until_empty()
        if left:
            raise DemoError(
                'still in use after all guests are deleted:\n'
                + '\n'.join(f'  {thing}' for thing in left)
            )
        self._say(
            f'{explanation.count(len(self._placed), "guest")} deleted. On '
            f'{explanation.count(len(self._hosts), "host")} no CPU is pinned, '
            'no page and no memory used, no guest defined; Placement counts '
            'no usage.'
        )

    def _grow(self) -> None:
        try:
            elastic.play(self._console, self._page)
        except elastic.ElasticError as error:
            raise DemoError(str(error)) from error

    def _summary(self, seconds: float) -> None:
        if self._failures:
            raise DemoError('\n'.join(self._failures))
        self._heading('Summary')
        self._say(f'{explanation.count(len(self._placed), "guest")} placed')
        self._say(
            f'{len(self._refused)} refused, as expected: '
            f'{", ".join(self._refused) or "none"}'
        )
        self._say(
            'decided otherwise than by stock Nova: '
            f'{", ".join(self._corrected) or "none"}'
        )
        self._say(f'{seconds:.0f} seconds')
        self._say(
            'What nova-numa-hugepages monitor showed of the last host while '
            f'its guest ran, to be opened in a browser: {self._page}'
        )

    def _heading(self, title: str) -> None:
        self._console.print()
        self._console.print(rule.Rule(title, align='left', characters='-'))

    def _say(self, line: str, *, head: str = '', style: str = '') -> None:
        words = text.Text(line, style)
        if head:
            words = text.Text.assemble((head, 'bold'), '  ', words)
            self._console.print(words)
        else:
            # What is wrapped stays behind its beginning.
            deeper = len(line) - len(line.lstrip())
            words = text.Text(line.lstrip(), style)
            self._console.print(_indented(words, 2 + deeper))


def _taken(servers: Sequence[dict[str, Any]]) -> explanation.Taken:
    return {
        server['name']: server['OS-EXT-SRV-ATTR:host'] for server in servers
    }


def _indented(
    what: rich_console.RenderableType, left: int = 2
) -> padding.Padding:
    return padding.Padding(what, (0, 0, 0, left), expand=False)


@contextlib.contextmanager
def _progress(
    console: rich_console.Console,
) -> Iterator[rich_progress.Progress]:
    """Show the progress, if the console is a terminal."""
    with rich_progress.Progress(
        rich_progress.SpinnerColumn(),
        rich_progress.TextColumn('{task.description}'),
        rich_progress.BarColumn(),
        rich_progress.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield progress


def _host_spec(host: HostType) -> embedded.HostSpec:
    return embedded.HostSpec(
        name=host.name,
        nodes=tuple(
            embedded.NodeSpec(
                cores=node.cores,
                threads=node.threads,
                memory_mib=node.memory_mib,
                pages=node.pages,
                reserved=node.reserved,
                shared_cores=node.shared_cores,
                socket=node.socket,
            )
            for node in host.nodes
        ),
        distances=host.distances,
        runs_us=host.runs_us,
    )
