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

"""The command that lists the alarms of a host."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Sequence
import datetime
import http.client
import json
import ssl
from typing import Any
import urllib.error
import urllib.parse
import urllib.request

from cliff import lister

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.monitor.alarms import SEVERITIES

URL = 'http://127.0.0.1:9817'
EXIT_RAISED = 3

COLUMNS = (
    'severity',
    'alarm',
    'since',
    'resource',
    'node',
    'page_size',
    'text',
    'remedy',
)

_TIMEOUT_S = 10.0
_MOST_BYTES = 64 * 1024 * 1024


class Alarms(lister.Lister):
    """List the alarms that the monitor of this host has raised.

    Asks ``nova-numa-hugepages monitor``, which has to run. For scripts, the
    exit status is 3 if there are alarms.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            '--url',
            default=URL,
            help='where the monitor listens (default: %(default)s)',
        )
        parser.add_argument(
            '--ca-file',
            metavar='FILE',
            help='certificates of those who sign for the monitor, in PEM',
        )
        parser.add_argument(
            '--certificate',
            metavar='FILE',
            help='a certificate that the monitor knows this client by, in PEM',
        )
        parser.add_argument(
            '--key',
            metavar='FILE',
            help='the private key of that certificate, in PEM',
        )
        parser.add_argument(
            '--severity',
            choices=SEVERITIES,
            default=SEVERITIES[0],
            help=(
                'list alarms of this severity or worse (default: %(default)s)'
            ),
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        try:
            found = _read(parsed_args)
            self._rows = [
                _row(alarm)
                for alarm in found
                if SEVERITIES.index(alarm['severity'])
                >= SEVERITIES.index(parsed_args.severity)
            ]
            if self._rows or parsed_args.formatter != 'table':
                super().run(parsed_args)
            else:
                self.app.stdout.write('No alarms.\n')
        except exception.NUMAHugepagesError as error:
            return errors.fail(error)
        return EXIT_RAISED if self._rows else 0

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[Sequence[str], Iterable[Any]]:
        """Return names of columns, and rows."""
        return COLUMNS, self._rows


def _row(alarm: dict[str, Any]) -> tuple[Any, ...]:
    since = datetime.datetime.fromtimestamp(alarm['since'], datetime.UTC)
    shown = {**alarm, 'since': since.isoformat(timespec='seconds')}
    return tuple(shown[name] for name in COLUMNS)


def _read(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Ask the monitor.

    :raises errors.BadInput: if the options are not right
    :raises errors.Refused: if it doesn't answer as it should
    """
    try:
        scheme = urllib.parse.urlsplit(options.url).scheme
    except ValueError:
        scheme = ''
    if scheme not in ('http', 'https'):
        raise errors.BadInput(
            f'--url {options.url}: expected http://… or https://…'
        )
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as error:
        raise errors.BadInput(
            f'--ca-file {options.ca_file}, --certificate '
            f'{options.certificate}, --key {options.key}: {error}'
        ) from error
    url = f'{options.url.rstrip("/")}/alarms'
    # A proxy is another host.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=context),
    )
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            found = json.loads(answer.read(_MOST_BYTES))
        for alarm in found:
            if alarm['severity'] not in SEVERITIES or not set(COLUMNS) <= set(
                alarm
            ):
                raise ValueError(f'{alarm!r:.80} is no alarm')
            datetime.datetime.fromtimestamp(alarm['since'], datetime.UTC)
    except urllib.error.HTTPError as error:
        text = error.read(1000).decode('utf-8', 'replace').strip()
        raise errors.Refused(f'{url}: {error.code} {text}') from error
    except http.client.InvalidURL as error:
        raise errors.BadInput(f'--url {options.url}: {error}') from error
    except (OSError, http.client.HTTPException) as error:
        raise errors.Refused(
            f'{url}: {getattr(error, "reason", None) or repr(error)}; see '
            'whether nova-numa-hugepages monitor runs, and --url'
        ) from error
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise errors.Refused(
            f'{url}: expected alarms as JSON, found something else: {error}; '
            'see whether it is nova-numa-hugepages monitor that listens there'
        ) from error
    return list(found)
