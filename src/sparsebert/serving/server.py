"""Running the application under uvicorn: the socket, the signals, the drain."""

from __future__ import annotations

import logging
import os
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sparsebert.errors import InputError

log = logging.getLogger("sparsebert.serving")

_BACKLOG = 2048
_KEEP_ALIVE = 60  # seconds that a connection may be idle: clients keep theirs in a pool


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. InputError, saying why, if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", str(error))
        raise InputError(f"cannot listen on {host}, port {port}: {reason.lower()}.") from None


def run(app: FastAPI, listener: socket.socket, *, shutdown_timeout: int) -> None:
    """Serve until SIGTERM or SIGINT; then accept no more, answer what is in flight, and return.

    What is not answered ``shutdown_timeout`` seconds later is dropped; a second SIGINT drops it at
    once. In the main thread.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # the gate's own lines say more
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=shutdown_timeout,
    )
    server = _Server(config)
    # uvicorn raises the signal again when it has drained, for handlers that were there before it:
    # these, so that the process goes on to its own end. Until uvicorn listens they stop it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    server.run(sockets=[listener])
    log.info("stopped")


class _Server(uvicorn.Server):
    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            where = f"[{host}]" if ":" in host else host
            log.info("listening", extra={"fields": {"address": f"http://{where}:{port}"}})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        assert isinstance(app, FastAPI)
        app.state.service.stopping = True  # health says so to whoever still asks
        log.info("stopping", extra={"fields": {"in_flight": app.state.service.in_flight}})
        await super().shutdown(sockets)
