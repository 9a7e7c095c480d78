"""Run the application under uvicorn: socket, signals, graceful shutdown and log lines."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from sparsebert.errors import InputError
from sparsebert.serving.connections import Connection, Idle

log = logging.getLogger("sparsebert.serving")

_BACKLOG = 2048
_UNIX = "unix:"
_MAX_CONNECTIONS = 4096
_OTHER_FILES = 128  # file descriptors reserved for anything but connections
_WORTH_TRIMMING = 1 << 24  # bytes
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None  # in glibc


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket. Raises InputError if the address is not available.

    ``host`` is a host name, an address (``::`` for all of IPv6 and IPv4) or ``unix:PATH``, for
    which ``port`` is not used. Port 0 is any free port.
    """
    if host.startswith(_UNIX):
        return _listen_at(host.removeprefix(_UNIX))
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
        )
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}, port {port}: {_reason(error)}.") from None


def _listen_at(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        if Path(path).is_socket() and not _answers(path):
            Path(path).unlink()  # left behind by a server that was killed
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(f"cannot listen on {_UNIX}{path}: {_reason(error)}.") from None
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _reason(error: OSError | OverflowError) -> str:
    number = getattr(error, "errno", None) or 0
    reason = os.strerror(number) if number > 0 else getattr(error, "strerror", str(error))
    return str(reason).lower()


def run(
    app: FastAPI,
    listener: socket.socket,
    *,
    keep_alive: int = 75,
    shutdown_delay: int = 0,
    shutdown_timeout: int = 30,
) -> None:
    """Serve until SIGTERM or SIGINT, then shut down gracefully and return.

    Must be called from the main thread. After the signal, the server continues for
    ``shutdown_delay`` seconds, but reports itself unhealthy and closes each connection after its
    response, so that a load balancer sends requests elsewhere. Then it accepts no more connections
    and finishes the requests in flight; those that take more than ``shutdown_timeout`` seconds are
    dropped. A second SIGINT drops them at once. A connection may be idle for ``keep_alive``
    seconds.
    """
    raise_file_limit()
    server = make_server(
        app,
        timeout_keep_alive=keep_alive,
        shutdown_delay=shutdown_delay,
        timeout_graceful_shutdown=shutdown_timeout,
    )
    # After draining, uvicorn raises the signal again for the handlers that it had replaced: these,
    # so that the process then runs on to its normal end. Until uvicorn installs its own handlers,
    # these stop the server.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    address = listener.getsockname()
    server.run(sockets=[listener])
    if isinstance(address, str):
        Path(address).unlink(missing_ok=True)
    log.info("stopped")


def make_server(app: FastAPI, *, shutdown_delay: int = 0, **settings: Any) -> Server:
    """A server of ``app``; ``settings`` are `uvicorn.Config`'s."""
    config = uvicorn.Config(
        app,
        http=partial(Connection, idle=Idle(_max_connections())),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,  # the middleware logs requests
        server_header=False,
        proxy_headers=False,
        **settings,
    )
    return Server(config, shutdown_delay)


def raise_file_limit() -> None:
    """Raise the limit on open files (often 1,024) to the maximum: each connection takes one."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _max_connections() -> int:
    try:
        import resource
    except ImportError:
        return _MAX_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(1, min(_MAX_CONNECTIONS, soft - _OTHER_FILES))


class Server(uvicorn.Server):
    """uvicorn's server, with log lines, connection limits and a delayed shutdown."""

    def __init__(self, config: uvicorn.Config, shutdown_delay: int) -> None:
        super().__init__(config)
        assert isinstance(config.app, FastAPI)
        self._service = config.app.state.service
        self._ticks = 10 * shutdown_delay  # left, counted from the signal on
        self._most_bytes = 0  # peak in flight since memory was last returned

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            log.info("listening", extra={"fields": {"address": _url(listener)}})

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; returning True starts the shutdown."""
        if counter % 10 == 0:
            self._enforce_limits()
            self._give_memory_back()
        if not await super().on_tick(counter):
            return False
        self._begin_to_stop()
        self._ticks -= 1
        return self.force_exit or self._ticks < 0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._begin_to_stop()  # if it was stopped before its first tick
        await super().shutdown(sockets)

    def _begin_to_stop(self) -> None:
        if not self._service.stopping:
            self._service.stopping = True  # reported by /health
            in_flight = len(self.server_state.tasks)
            log.info("stopping", extra={"fields": {"in_flight": in_flight}})

    def _enforce_limits(self) -> None:
        for connection in list(self.server_state.connections):
            assert isinstance(connection, Connection)
            connection.enforce_limits(connection.loop.time())

    def _give_memory_back(self) -> None:
        """Have the C library return memory to the system after large requests."""
        now = self._service.admission.bytes
        self._most_bytes = max(now, self._most_bytes)
        if self._most_bytes - now > _WORTH_TRIMMING and _trim is not None:
            self._most_bytes = now
            _trim(0)


def _url(listener: socket.socket) -> str:
    address = listener.getsockname()
    if isinstance(address, str):
        return _UNIX + address
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def set_up_logging(level: str, *, as_json: bool) -> None:
    """Log to standard error, from ``level`` (such as "info") upwards, as logfmt or JSON lines.

    Of uvicorn's events, only warnings and errors are logged, unless ``level`` is "debug". No text
    that a client sent is ever logged.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(as_json))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    if level != "debug":
        logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))


class _Lines(logging.Formatter):
    """One line for each event, with its ``fields``."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if self._as_json:
            return json.dumps(fields)
        return " ".join(f"{name}={_logfmt(value)}" for name, value in fields.items())


def _logfmt(value: object) -> str:
    text = str(value)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "=')
    return text if plain and text else json.dumps(text)
