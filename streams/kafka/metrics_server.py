"""Metrics, readiness and life of a worker over HTTP, on loopback.

In: `Metrics`, and what says whether the worker is ready and alive. Out: `/metrics`, `/ready` and `/live`.
Must not know: what is measured. Rule: whoever asks, and however slowly, the worker goes on undisturbed.
"""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from prometheus_client.exposition import choose_encoder

from streams.kafka.metrics import Metrics

REQUESTS_AT_ONCE = 8
"""Requests answered at a time; further ones are turned away at once: a scraper and a prober need two."""

PATIENCE_S = 5.0
"""How long a client may take to send or to receive the next bytes."""

Check = Callable[[], bool | str]
"""True where all is well; otherwise False, or the reason in a sentence."""


class MetricsError(Exception):
    """Metrics cannot be served; one sentence that says where, why and what to do."""


class MetricsServer:
    """Serves metrics in threads of its own, from its making until `close`.

    Parameters
    ----------
    metrics
        What is served.
    host, port
        Where; port 0 takes any free one.
    ready
        Whether the worker may be given work: `/ready` answers 200, or 503 and the reason.
    health
        Whether the worker is alive: `/live` likewise.

    Raises
    ------
    MetricsError
        If the port is taken, or the address not of this machine.

    Examples
    --------
    >>> import urllib.request
    >>> server = MetricsServer(Metrics(), "127.0.0.1", 0, ready=lambda: True, health=lambda: True)
    >>> with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/ready") as answer:
    ...     answer.status, answer.read()
    (200, b'ready\\n')
    >>> server.close()
    """

    def __init__(self, metrics: Metrics, host: str, port: int, *, ready: Check, health: Check) -> None:
        self.host = host
        try:
            self._server = _Server(metrics, host, port, {"/ready": ready, "/live": health})
        except (OSError, OverflowError) as error:
            raise MetricsError(_why_not(host, port, error)) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _why_not(host: str, port: int, error: OSError | OverflowError) -> str:
    """One sentence on why an address cannot be had."""
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        why, then = "is taken", "stop what listens there, or set worker.metrics_port to another port or to 0"
    elif code == errno.EACCES:
        why, then = "is not allowed to this user", "set worker.metrics_port to one above 1023"
    else:
        why = f"cannot be listened on ({getattr(error, 'strerror', None) or error})"
        then = "set worker.metrics_host to an address of this machine"
    return f"port {port} of {host} for metrics {why}; {then}"


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A thread per request, few at a time."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True  # a restarted worker need not wait for old connections to be forgotten
    request_queue_size = 16

    def __init__(self, metrics: Metrics, host: str, port: int, checks: dict[str, Check]) -> None:
        self.metrics, self.checks = metrics, checks
        self._free = threading.BoundedSemaphore(REQUESTS_AT_ONCE)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread to be had
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up is no concern of the worker's log."""


class _Handler(BaseHTTPRequestHandler):
    """One request; HTTP/1.0, so that its connection ends with it."""

    timeout = PATIENCE_S
    server_version, sys_version = "shelftide", ""

    def do_GET(self) -> None:
        status, kind, body = self._answer()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self) -> tuple[HTTPStatus, str, bytes]:
        server, path = cast("_Server", self.server), self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            return HTTPStatus.OK, kind, encode(server.metrics.registry)
        if path in server.checks:
            told = _told(server.checks[path])
            status = HTTPStatus.OK if told is True else HTTPStatus.SERVICE_UNAVAILABLE
            text = path[1:] if told is True else told or f"not {path[1:]}"
        else:
            status, text = HTTPStatus.NOT_FOUND, "there are /metrics, /ready and /live"
        return status, "text/plain; charset=utf-8", f"{text}\n".encode()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a request every few seconds is no news."""


def _told(check: Check) -> bool | str:
    """What a check says; one that fails says so."""
    try:
        return check()
    except Exception as error:
        return f"the check itself failed: {type(error).__name__}: {error}"
