"""Running the application: socket, signals, orderly end."""

from __future__ import annotations

import os
import signal
import socket
import time
from math import ceil
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from serve.app import create_app, load_reader
from serve.settings import Settings
from serve.telemetry import Lifecycle, log_config, logger
from str_app.errors import StrAppError

if TYPE_CHECKING:
    from str_app.reader import Reader


class Server(uvicorn.Server):
    """uvicorn that goes on serving for a while after SIGTERM, so that balancers see the 503 of readiness first."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_delay_s: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_delay_s = drain_delay_s
        self._stop_at = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First SIGTERM or SIGINT: drain, finish what was accepted, exit 0. Second: exit at once."""
        if self._lifecycle.draining:
            os._exit(128 + sig)
        self._lifecycle.draining = True
        self._stop_at = time.monotonic() + self._drain_delay_s

    async def on_tick(self, counter: int) -> bool:
        if not self.should_exit and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def run(settings: Settings, reader: Reader | None = None) -> None:
    """Serve until told to stop.

    Args:
        settings: all of them.
        reader: instead of loading `settings.model`.

    Raises:
        StrAppError: the address cannot be listened on, or the start failed; errors of loading the model pass through.
    """
    # Both before the server starts, so that what is wrong is said in one line and not in a log.
    listener = _listen(settings.host, settings.port)
    with listener:
        # As process 1 of a container SIGTERM would be ignored until the server has its own handler.
        signal.signal(signal.SIGTERM, lambda sig, frame: os._exit(128 + sig))
        app = create_app(settings, reader or load_reader(settings))
        config = uvicorn.Config(
            app,
            lifespan="on",
            loop="asyncio",
            http="h11",
            ws="none",
            log_config=log_config(settings.log_format, settings.log_level),
            access_log=False,  # one line a request comes from the telemetry
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,  # above the 60 s of common balancers, which must be first to close
            timeout_graceful_shutdown=ceil(settings.upload_timeout_s + settings.deadline_s),
        )
        host, port = listener.getsockname()[:2]
        logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        server = Server(config, app.state.lifecycle, settings.drain_delay_s)
        try:
            server.run([listener])
        except SystemExit:
            raise StrAppError("the server could not start; its log has the reason") from None
        logger.info("stopped")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it each answer comes 40 ms late.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StrAppError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another --host or --port"
        ) from None
    return listener
