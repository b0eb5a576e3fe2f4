"""Running the application: socket, signals, orderly end."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from math import ceil
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from str_app.errors import StrAppError
from str_app.serve.http.app import create_app
from str_app.serve.http.connections import Connection
from str_app.serve.inference.service import Service
from str_app.serve.operations.logs import log_config, logger
from str_app.serve.settings import Settings

if TYPE_CHECKING:
    from str_app.pipeline import CanvasReader


class Server(uvicorn.Server):
    """uvicorn that goes on serving for a while after SIGTERM, so that balancers see the 503 of readiness first.

    SIGHUP makes it load the weights again.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._stop_at = float("inf")
        self._reload_wanted = False
        self._reloading: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First SIGTERM or SIGINT: drain, finish what was accepted, exit 0. Second: exit at once."""
        if self._service.lifecycle.draining:
            os._exit(128 + sig)
        self._service.lifecycle.draining = True
        self._stop_at = time.monotonic() + self._service.settings.drain_delay_s

    def handle_hangup(self, sig: int, frame: FrameType | None) -> None:
        """SIGHUP; while a reload runs, another one follows it."""
        self._reload_wanted = True

    async def on_tick(self, counter: int) -> bool:
        if self._reload_wanted and (self._reloading is None or self._reloading.done()):
            self._reload_wanted = False
            self._reloading = asyncio.create_task(self._service.reload())
        if not self.should_exit and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def run(settings: Settings, load: Callable[[], CanvasReader] | None = None) -> None:
    """Serve until told to stop.

    Args:
        settings: all of them.
        load: makes the reader, at the start and at each reload, instead of loading `settings.model`.

    Raises:
        StrAppError: the address cannot be listened on, or the start failed; errors of loading the model pass through.
    """
    # All before the server starts, so that what is wrong is said in one line and not in a log.
    listener = _listen(settings.host, settings.port)
    with listener:
        # As process 1 of a container SIGTERM would be ignored until the server has its own handler.
        signal.signal(signal.SIGTERM, lambda sig, frame: os._exit(128 + sig))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _allow_many_connections()
        app = create_app(settings, load)
        service: Service = app.state.service
        service.batcher.start()
        service.batcher.loaded.result()
        # What lives as long as the process is not looked through again and again: a full collection stops it for 0.3 s.
        # Nor what waits, as soon as it is a few hundred objects: under overload that took a tenth of the event loop's
        # time, up to 0.2 s at once, and found next to nothing.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        config = uvicorn.Config(
            app,
            lifespan="on",
            loop="asyncio",
            http=partial(  # type: ignore[arg-type]
                Connection,
                header_timeout_s=settings.header_timeout_s,
                write_timeout_s=settings.upload_timeout_s,
                metrics=service.metrics,
            ),
            ws="none",
            log_config=log_config(settings.log_format, settings.log_level),
            access_log=False,  # one line a request comes from the telemetry
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=ceil(settings.keep_alive_s),
            timeout_graceful_shutdown=ceil(settings.upload_timeout_s + settings.deadline_s),
        )
        host, port = listener.getsockname()[:2]
        logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        server = Server(config, service)
        signal.signal(signal.SIGHUP, server.handle_hangup)
        try:
            server.run([listener])
        except SystemExit:
            raise StrAppError("the server could not start; its log has the reason") from None
        logger.info("stopped")


def _allow_many_connections() -> None:
    """As many open files as the system lets us have: idle connections must not use up the usual 1024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
