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

"""What the monitor serves over HTTP: metrics, and alarms as JSON."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import json
import pathlib
import socket
import socketserver
import ssl
import sys
import threading
from typing import Any
from wsgiref import simple_server

from oslo_log import log as logging
import prometheus_client

from nova_numa_hugepages.monitor.service import Monitor

LOG = logging.getLogger(__name__)

METRICS = '/metrics'
ALARMS = '/alarms'

# How long a client may take for its request, in seconds.
_TIMEOUT_S = 30

_SAFE = [
    ('Cache-Control', 'no-store'),
    ('Content-Security-Policy', "default-src 'none'"),
    ('X-Content-Type-Options', 'nosniff'),
]

_Start = Callable[..., Any]


def application(monitor: Monitor) -> Callable[..., Iterable[bytes]]:
    """Make the WSGI application."""
    metrics = prometheus_client.make_wsgi_app(monitor.registry)

    def answer(environ: dict[str, Any], start: _Start) -> Iterable[bytes]:
        path = environ.get('PATH_INFO', '')
        if environ.get('REQUEST_METHOD') not in ('GET', 'HEAD'):
            return _text(start, '405 Method Not Allowed', 'Only GET.')
        if path == METRICS:
            found: Iterable[bytes] = metrics(environ, start)
            return found
        if path == ALARMS:
            alarms = monitor.alarms()
            if alarms is None:
                return _text(
                    start,
                    '503 Service Unavailable',
                    'The host has not been looked at of late; see the log.',
                )
            start('200 OK', [('Content-Type', 'application/json'), *_SAFE])
            return [json.dumps(alarms).encode()]
        if path == '/':
            return _text(start, '200 OK', f'See {METRICS} and {ALARMS}.')
        return _text(start, '404 Not Found', f'See {METRICS} and {ALARMS}.')

    return answer


def _text(start: _Start, status: str, text: str) -> Iterable[bytes]:
    start(status, [('Content-Type', 'text/plain; charset=utf-8'), *_SAFE])
    return [f'{text}\n'.encode()]


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    # With it another program could listen on the port that is taken.
    allow_reuse_port = False

    def server_bind(self) -> None:
        """Bind, without asking for the name of the host."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log why a request failed; its client knows it already."""
        LOG.debug(
            'A request of %s failed: %s', client_address, sys.exc_info()[1]
        )


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(simple_server.WSGIRequestHandler):
    timeout = _TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a scrape every few seconds is not worth a line."""


class _TLSHandler(_Handler):
    def setup(self) -> None:
        """Shake hands in the thread of the request, so that none waits."""
        self.request.settimeout(_TIMEOUT_S)
        self.request.do_handshake()
        super().setup()


def serve(
    monitor: Monitor,
    address: str,
    port: int,
    *,
    certificate: pathlib.Path | None = None,
    key: pathlib.Path | None = None,
    client_ca: pathlib.Path | None = None,
) -> None:
    """Serve what a monitor has found, in threads that end with the process.

    :param certificate: of the server; with it HTTPS is spoken
    :param client_ca: who signs for clients; others are refused
    :raises OSError: if that can't be done
    """
    server = simple_server.make_server(
        address,
        port,
        application(monitor),
        _Server6 if ':' in address else _Server,
        _TLSHandler if certificate else _Handler,
    )
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    threading.Thread(target=server.serve_forever, daemon=True).start()
