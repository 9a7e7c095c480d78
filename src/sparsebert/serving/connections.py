"""HTTP/1.1 connections: uvicorn's protocol, with the rules and limits that it leaves to a proxy.

uvicorn parses HTTP with httptools here, in a third of the time that h11, the parser in Python,
takes. This adds what h11 or a reverse proxy would do:

- `Upgrade` is ignored (RFC 9110, 7.8), and the request is answered over HTTP/1.1. httptools assumes
  that the other protocol follows the headers: the body would be parsed as a second request.
- Timeouts for headers, body and a client that does not read; a limit on the size of the headers.
- Backpressure: pipelined requests are read only as fast as they are answered.
- Beyond the maximum number of connections, the one that has been idle longest is closed.
"""

from __future__ import annotations

import asyncio
import http
from functools import partial
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

ABORT = "sparsebert.abort"
"""The ASGI extension whose "call" closes the connection at once, from any thread."""

HEAD_SECONDS = 20.0  # from its first byte, or from the opening of the connection, to its last byte
BODY_SECONDS = 30.0  # from the end of the head
WRITE_SECONDS = 20.0  # for a client to read some tens of kilobytes of its response
HEAD_BYTES = 1 << 16


class Idle:
    """The idle connections of a server, least recently used first."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._connections: dict[Connection, None] = {}

    def add(self, connection: Connection) -> None:
        """Call when ``connection`` has been opened, or when its response is complete."""
        self._connections[connection] = None
        if len(connection.connections) > self._max_connections:
            # There is always one: the new connection itself, if no other is idle.
            next(iter(self._connections)).abort()

    def remove(self, connection: Connection) -> None:
        self._connections.pop(connection, None)


class Connection(HttpToolsProtocol):
    """One client's connection; ``idle`` is shared by all connections of a server."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        idle: Idle,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._idle = idle
        self._read_since: float | None = None  # when it began to wait for headers or body
        self._head_bytes = 0
        self._in_body = False
        self._write_since: float | None = None  # when the client stopped reading

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        abort = partial(self.loop.call_soon_threadsafe, self.abort)
        self._extensions: dict[str, dict[object, object]] = {ABORT: {"call": abort}}
        self._read_since = self.loop.time()
        self._idle.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.remove(self)
        super().connection_lost(exc)
        self._extensions.clear()  # breaks a reference cycle that would keep the data read

    def abort(self) -> None:
        """Close the connection at once, dropping what is still to be written."""
        self._idle.remove(self)
        self.transport.abort()

    def enforce_limits(self, now: float) -> None:
        """Close the connection if its client takes too long; called once a second."""
        if self._write_since is None and self.transport.is_closing():  # the end of a response
            self._write_since = now
        if self._write_since is not None:
            if now - self._write_since > WRITE_SECONDS:
                self.abort()
            return
        if self._read_since is None or self.pipeline:
            return
        if now - self._read_since > (BODY_SECONDS if self._in_body else HEAD_SECONDS):
            if self._in_body or self._head_bytes:
                self._refuse(408, "The request did not arrive in time.")
            else:
                self.transport.close()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # Reading from the client

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._read_since is None and not self._answering:
            self._read_since = self.loop.time()
        if not self._in_body:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
        else:
            if self._head_bytes > HEAD_BYTES:
                self._refuse(431, "The head of the request is too large.")

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._read_since, self._head_bytes, self._in_body = self.loop.time(), 0, True
        self._idle.remove(self)
        self.scope["extensions"] = self._extensions
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._read_since, self._in_body = None, False
        if not self._answering:  # it was answered before its body had arrived
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _read_without_upgrade(self, rest: bytes) -> None:
        """Parse the same headers again without `Upgrade`, and then what follows them."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(501, "This server is not a proxy.")
            return
        head = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*head, b"", rest]))

    def _refuse(self, status: int, message: str) -> None:
        """Send an error response to an invalid or incomplete request, and close.

        During another response, only reading stops, and the connection closes after that response.
        """
        if self.transport.is_closing():
            return
        self.flow.pause_reading()
        if self._answering and (self.pipeline or not self._in_body):
            self.cycle.keep_alive = False
            return
        if self._in_body and self.cycle.response_started:
            self.transport.close()
            return
        phrase = http.HTTPStatus(status).phrase
        self.transport.write(
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(message)}\r\nconnection: close\r\n\r\n{message}".encode()
        )
        self.transport.close()

    # Writing to the client

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._read_since is not None:  # reading may have been paused until now
            self._read_since = self.loop.time()
        if not self._answering and not self.transport.is_closing():
            self._idle.add(self)

    def pause_writing(self) -> None:
        self._write_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._write_since = None
        super().resume_writing()


class _Flow(FlowControl):
    """Pauses reading while pipelined requests wait for their response."""

    def __init__(self, transport: asyncio.Transport, pipeline: Any) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()
