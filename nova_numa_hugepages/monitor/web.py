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

"""What the monitor serves over HTTP: the page, metrics, and JSON."""

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

from nova_numa_hugepages.monitor import page
from nova_numa_hugepages.monitor.service import Monitor

LOG = logging.getLogger(__name__)

METRICS = '/metrics'
ALARMS = '/alarms'
STATUS = '/status.json'
PAGE = '/'

# How long a client may take for its request, in seconds.
_TIMEOUT_S = 30

_SAFE = [
    ('Cache-Control', 'no-store'),
    ('X-Content-Type-Options', 'nosniff'),
    ('Referrer-Policy', 'no-referrer'),
]
_NO_CONTENT = ('Content-Security-Policy', "default-src 'none'")

# How often a browser reads the page again, in seconds.
_REFRESH_S = 30

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
            return _json(start, monitor.alarms())
        if path == STATUS:
            return _json(start, monitor.view())
        if path == PAGE:
            view = monitor.view()
            if view is None:
                return _late(start)
            policy = f"{page.policy()}; frame-ancestors 'none'"
            start(
                '200 OK',
                [
                    ('Content-Type', 'text/html; charset=utf-8'),
                    *_SAFE,
                    ('Content-Security-Policy', policy),
                ],
            )
            return [page.render(view, _REFRESH_S).encode()]
        return _text(
            start,
            '404 Not Found',
            f'See {PAGE}, {STATUS}, {ALARMS} and {METRICS}.',
        )

    return answer


def _json(start: _Start, value: Any) -> Iterable[bytes]:
    if value is None:
        return _late(start)
    start(
        '200 OK', [('Content-Type', 'application/json'), *_SAFE, _NO_CONTENT]
    )
    return [json.dumps(value).encode()]


def _late(start: _Start) -> Iterable[bytes]:
    return _text(
        start,
        '503 Service Unavailable',
        'The host has not been looked at of late; see the log.',
    )


def _text(start: _Start, status: str, text: str) -> Iterable[bytes]:
    start(
        status,
        [
            ('Content-Type', 'text/plain; charset=utf-8'),
            *_SAFE,
            _NO_CONTENT,
        ],
    )
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
) -> simple_server.WSGIServer:
    """Serve what a monitor has found, in threads that end with the process.

    :param certificate: of the server; with it HTTPS is spoken
    :param client_ca: who signs for clients; others are refused
    :returns: the server
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
    return server
