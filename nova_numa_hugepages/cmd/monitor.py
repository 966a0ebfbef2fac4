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

"""The command that runs the monitor of a host."""

from __future__ import annotations

import argparse
import errno
import ipaddress
import os
import pathlib
import signal
import ssl
import sys
import threading
from typing import TYPE_CHECKING

from cliff import command
from oslo_config import cfg
from oslo_log import log as logging

from nova_numa_hugepages import exception
from nova_numa_hugepages.cmd.host import errors
from nova_numa_hugepages.cmd.host import opening
from nova_numa_hugepages.cmd.host import settings
from nova_numa_hugepages.cmd.host.inspect import host_root
from nova_numa_hugepages.hugepages import virsh
from nova_numa_hugepages.hugepages.kernel import kubelet

# Loaded late: it needs what is in an extra.
if TYPE_CHECKING:
    from nova_numa_hugepages.monitor import service

PORT = 9817
LOOPBACK = '127.0.0.1'
INTERVAL_S = 15.0
# Shorter ones cost more than they tell: guests report each 10 seconds.
_SHORTEST_S = 1.0
# The history has minutes.
_LONGEST_S = 60.0


class Monitor(command.Command):
    """Watch the memory of this host and of its instances, as metrics.

    Changes nothing. For each instance and NUMA node it shows what is promised,
    what is in place and what is used inside, for each pool who has its pages.
    Runs beside the driver of this package, or beside the one of Nova, where it
    reads what is promised from libvirt.

    Metrics are served over HTTP in the format of Prometheus, on the loopback
    address unless --listen says otherwise, or written to a folder for the
    textfile collector of node_exporter. SIGTERM or Ctrl-C ends it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument(
            '--listen',
            type=_address,
            metavar='ADDRESS',
            help=f'the address to listen on (default: {LOOPBACK})',
        )
        parser.add_argument(
            '--port',
            type=_port,
            help=(
                f'the port to listen on (default: {PORT}; none with '
                '--textfile or --once)'
            ),
        )
        for name, what in (
            ('certificate', 'certificate of the server, in PEM'),
            ('key', 'private key of that certificate, in PEM'),
            (
                'client-ca',
                'certificates of those who sign for clients, in PEM; others '
                'are refused',
            ),
        ):
            parser.add_argument(
                f'--tls-{name}',
                type=pathlib.Path,
                metavar='FILE',
                help=what,
            )
        parser.add_argument(
            '--textfile',
            type=pathlib.Path,
            metavar='FOLDER',
            help='write the metrics to a file in this folder each time',
        )
        parser.add_argument(
            '--history',
            type=pathlib.Path,
            metavar='FILE',
            help=(
                'keep what the host was like in this file, up to 64 MiB, to '
                'find leaks and trends; with --once it is only read (default: '
                'in memory, until it ends)'
            ),
        )
        parser.add_argument(
            '--interval',
            type=_interval,
            default=INTERVAL_S,
            metavar='SECONDS',
            help='how often the host is looked at (default: %(default)g)',
        )
        parser.add_argument(
            '--once',
            action='store_true',
            help=(
                'look once and end; without --textfile and --html the metrics '
                'are printed'
            ),
        )
        parser.add_argument(
            '--html',
            type=pathlib.Path,
            metavar='FILE',
            help='with --once: write the page that shows the host to a file',
        )
        settings.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Run it.

        :returns: the exit code
        """
        try:
            return self._run(parsed_args)
        except exception.NUMAHugepagesError as error:
            return errors.fail(error)

    def _run(self, options: argparse.Namespace) -> int:
        _check(options)
        try:
            import prometheus_client

            from nova_numa_hugepages.monitor import alarms
            from nova_numa_hugepages.monitor import collector
            from nova_numa_hugepages.monitor import history
            from nova_numa_hugepages.monitor import insight
            from nova_numa_hugepages.monitor import service
        except ImportError as error:
            raise errors.BadInput(
                f'{error}. Install it with: pip install '
                "'nova-numa-hugepages[monitor]'"
            ) from error
        found = settings.read(options)
        _log_to_stderr()
        for note in found.notes:
            print(note, file=sys.stderr)
        if not found.ledger.exists():
            print(
                f'There is no ledger {found.ledger}, as beside the driver of '
                'Nova: what is promised is what the domains were started '
                'with, and no pages are allocated.',
                file=sys.stderr,
            )
        past = history.History(None if options.once else options.history)
        if options.once and options.history and options.history.exists():
            past.load(options.history)
        machine = self.app.machine or opening.Machine()
        fs = host_root.host_fs(options.root, machine.fs)
        monitor = service.Monitor(
            collector.Collector(
                fs,
                found.policy,
                found.ledger,
                virsh.Virsh(found.libvirt_uri) if found.libvirt_uri else None,
                kubelet_state=(
                    kubelet.STATE
                    if options.root is None
                    else host_root.below(options.root, kubelet.STATE)
                ),
            ).collect,
            alarms.load(found.thresholds),
            insight.Analyst(
                past,
                found.policy,
                dedicated=found.dedicated,
                named=found.kinds,
            ),
            options.interval,
            options.textfile,
        )
        if options.once:
            done = monitor.step()
            if options.html is not None:
                done &= _write_page(options.html, monitor)
            elif options.textfile is None:
                text = prometheus_client.generate_latest(monitor.registry)
                self.app.stdout.write(text.decode())
            return 0 if done else errors.EXIT_FAILED
        if options.port is not None or options.textfile is None:
            _serve(options, monitor)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        monitor.run(stop)
        return 0


def _write_page(path: pathlib.Path, monitor: service.Monitor) -> bool:
    """Write the page to a file.

    :returns: whether there was something to show
    :raises errors.Refused: if it can't be written
    """
    from nova_numa_hugepages.monitor import page

    view = monitor.view()
    if view is None:
        return False
    try:
        path.write_text(page.render(view), encoding='utf-8')
    except OSError as error:
        raise errors.Refused(
            f'--html {path}: cannot be written: {error.strerror}'
        ) from error
    print(f'Wrote the page of this host to {path}.', file=sys.stderr)
    return True


def _log_to_stderr() -> None:
    """Log as services do, from INFO on; cliff shows warnings only."""
    conf = cfg.ConfigOpts()
    logging.register_options(conf)
    conf([], project='nova-numa-hugepages', default_config_files=[])
    conf.set_override('use_stderr', True)
    logging.setup(conf, 'nova_numa_hugepages')


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f'{error}; expected for example {LOOPBACK} or ::1'
        ) from error


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(
            f'{text!r} is no port; expected 1 to 65535'
        )
    return int(text)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no interval; expected {_SHORTEST_S:g} to '
            f'{_LONGEST_S:g} seconds'
        )
    return seconds


def _check(options: argparse.Namespace) -> None:
    """Check options that depend on each other.

    :raises errors.BadInput: if they don't go together
    """
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise errors.BadInput(
            '--tls-certificate and --tls-key belong together.'
        )
    if options.tls_client_ca is not None and options.tls_key is None:
        raise errors.BadInput('--tls-client-ca needs --tls-certificate.')
    for name in ('tls_certificate', 'tls_key', 'tls_client_ca'):
        path = getattr(options, name)
        if path is not None and not os.access(path, os.R_OK):
            raise errors.BadInput(
                f'--{name.replace("_", "-")} {path}: this user cannot read it.'
            )
    if options.once and options.port is not None:
        raise errors.BadInput('--port and --once do not go together.')
    if options.html is not None and not options.once:
        raise errors.BadInput('--html needs --once.')
    if options.textfile is not None and not options.textfile.is_dir():
        raise errors.BadInput(
            f'--textfile {options.textfile}: expected a folder, the one of '
            '--collector.textfile.directory of node_exporter.'
        )
    if options.once and (options.listen or options.tls_certificate):
        raise errors.BadInput(
            'With --once nothing is served: leave out --listen and '
            '--tls-certificate.'
        )
    if (
        options.listen is not None
        and options.port is None
        and options.textfile is not None
    ):
        raise errors.BadInput('--listen needs --port here.')
    history = options.history
    if history is not None and (history.is_dir() or not history.name):
        raise errors.BadInput(f'--history {history}: expected a file.')
    if history is not None and not history.parent.is_dir():
        raise errors.BadInput(
            f'--history {history}: there is no folder {history.parent}.'
        )


def _serve(options: argparse.Namespace, monitor: service.Monitor) -> None:
    """Serve what the monitor has found, in threads.

    :raises errors.Refused: if that can't be
    """
    from nova_numa_hugepages.monitor import web

    address = options.listen or LOOPBACK
    port = PORT if options.port is None else options.port
    tls = options.tls_certificate
    try:
        web.serve(
            monitor,
            address,
            port,
            certificate=tls,
            key=options.tls_key,
            client_ca=options.tls_client_ca,
        )
    except ssl.SSLError as error:
        raise errors.BadInput(
            f'--tls-certificate {tls}, --tls-key {options.tls_key}, '
            f'--tls-client-ca {options.tls_client_ca}: these are not a '
            f'certificate, its key and certificates in PEM: {error}'
        ) from error
    except OSError as error:
        remedy = (
            'another program listens there; choose another --port'
            if error.errno == errno.EADDRINUSE
            else 'see --listen and --port'
        )
        raise errors.Refused(
            f'cannot listen on {address} port {port}: '
            f'{error.strerror or error}; {remedy}.'
        ) from error
    print(
        f'Serving metrics on http{"s" if tls else ""}://'
        f'{f"[{address}]" if ":" in address else address}:{port}'
        f'{web.METRICS}',
        file=sys.stderr,
    )
