"""HTTP connections that give up within seconds where there is no network."""

import socket
import threading
import urllib.request
from concurrent.futures import Future
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any

CONNECT_SECONDS = 6.0
"""Seconds after which a host counts as out of reach, whatever takes so long: its name, or any of its addresses."""
ADDRESS_SECONDS = 3.0
"""Seconds that one address of a host may take, so that a second one is tried where the first is silent."""


class HTTPHandler(urllib.request.HTTPHandler):
    """Opens http addresses."""

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        """Connects within `CONNECT_SECONDS`; the request's own timeout counts from then on."""
        return self.do_open(_http_connection, req)


class HTTPSHandler(urllib.request.HTTPSHandler):
    """Opens https addresses."""

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        """Connects within `CONNECT_SECONDS`; the request's own timeout counts from then on."""
        return self.do_open(_https_connection, req)


def _http_connection(host: str, **options: Any) -> HTTPConnection:
    return _quick(HTTPConnection(host, **options))


def _https_connection(host: str, **options: Any) -> HTTPConnection:
    return _quick(HTTPSConnection(host, **options))


def _quick(connection: HTTPConnection) -> HTTPConnection:
    # http.client has one timeout for connecting and reading, and looks this function up in the instance.
    connection._create_connection = _connect  # type: ignore[attr-defined]
    return connection


def _connect(address: tuple[str, int], timeout: float, source: tuple[str, int] | None = None) -> socket.socket:
    """Does what `socket.create_connection` does, but within `CONNECT_SECONDS`.

    A thread does the work, because resolving a name has no timeout of its own.

    Raises:
        TimeoutError: There is no connection in time.
    """
    limit = min(timeout, CONNECT_SECONDS)
    connected: Future[socket.socket] = Future()

    def work() -> None:
        try:
            connected.set_result(socket.create_connection(address, min(limit, ADDRESS_SECONDS), source))
        except BaseException as error:
            connected.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        connection = connected.result(limit)
    except TimeoutError as error:
        if connected.done():
            raise
        # Nobody waits for the thread any more, so that what it may still open is closed at once.
        connected.add_done_callback(_close)
        raise TimeoutError(f"no connection within {limit:g} seconds") from error
    connection.settimeout(timeout)
    return connection


def _close(late: Future[socket.socket]) -> None:
    if late.exception() is None:
        late.result().close()
