"""Runs the application: socket, signals, graceful shutdown."""

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
from str_app.serve.http.service import Service
from str_app.serve.operations import memory
from str_app.serve.operations.logs import configure_logging, logger
from str_app.serve.settings import Settings, misspelt_variables

if TYPE_CHECKING:
    from str_app.pipeline import CanvasReader


class Server(uvicorn.Server):
    """uvicorn that keeps serving for a while after SIGTERM, so that load balancers see readiness turn 503 first.

    SIGHUP reloads the weights.

    Attributes:
        failed: whether it stops because nothing can be read any more.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._stop_at = float("inf")
        self._reload_requested = False
        self._reloading: asyncio.Task[None] | None = None
        self.failed = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First SIGTERM or SIGINT: drain, finish accepted requests, exit with 0. Second: exit at once."""
        if self._service.lifecycle.draining:
            os._exit(128 + sig)
        self._service.lifecycle.draining = True
        self._stop_at = time.monotonic() + self._service.settings.drain_delay_s

    def handle_hangup(self, sig: int, frame: FrameType | None) -> None:
        """SIGHUP: reload; if a reload is running, once more after it."""
        self._reload_requested = True

    async def on_tick(self, counter: int) -> bool:
        if self._reload_requested and (self._reloading is None or self._reloading.done()):
            self._reload_requested = False
            if not self._service.lifecycle.draining:  # the exit would wait for it
                self._reloading = asyncio.create_task(self._service.reload())
        if not self._service.batcher.alive and not self.failed:
            logger.critical("an inference thread has ended: stopping, so that the server is started again")
            self.failed = self.should_exit = True
        if not self.should_exit and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def run(settings: Settings, load: Callable[[], CanvasReader] | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: of the server.
        load: makes the reader, at startup and at each reload, instead of loading `settings.model`.

    Raises:
        StrAppError: the address is not available, or startup failed; exceptions from loading the model pass through.
    """
    configure_logging(settings.log_format, settings.log_level)
    for name, setting in misspelt_variables(os.environ):
        logger.warning("%s is not a setting: did you mean %s?", name, setting)
    # Bind and load before uvicorn starts, so that failures become one line and an exit code.
    listener = _listen(settings.host, settings.port)
    with listener:
        # Process 1 of a container ignores SIGTERM unless it has a handler; uvicorn's comes later.
        signal.signal(signal.SIGTERM, lambda sig, frame: os._exit(128 + sig))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Model processes are spawned; nothing in the working directory may shadow what they import.
        os.environ.setdefault("PYTHONSAFEPATH", "1")
        _allow_many_connections()
        memory.release_large_blocks()
        app = create_app(settings, load)
        service: Service = app.state.service
        service.start()
        service.batcher.loaded.result()
        # Long-lived objects are exempt from garbage collection: a full one would stop the process for 0.3 s. A higher
        # threshold, since under overload collecting took a tenth of the event loop's time and freed next to nothing.
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
                body_timeout_s=settings.upload_timeout_s,
                max_body_bytes=settings.max_body_bytes,
                metrics=service.metrics,
            ),
            ws="none",
            log_config=None,
            access_log=False,  # Telemetry logs requests
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=ceil(settings.keep_alive_s),
            timeout_graceful_shutdown=ceil(settings.upload_timeout_s + settings.deadline_s),
        )
        # Only now: whoever connects earlier would wait for the model instead of asking another replica.
        try:
            listener.listen(config.backlog)
        except OSError as error:  # another server has loaded its model faster: until one listens, both may bind
            raise _cannot_listen(settings.host, settings.port, error) from None
        host, port = listener.getsockname()[:2]
        logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        server = Server(config, service)
        signal.signal(signal.SIGHUP, server.handle_hangup)
        try:
            server.run([listener])
        except SystemExit:
            raise StrAppError("the server could not start; see its log") from None
        if server.failed:
            raise StrAppError("the model cannot be run any more; see the log")
        logger.info("stopped")


def _allow_many_connections() -> None:
    """Raise the limit of open files to the hard limit: idle connections must not use up the usual 1024."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is given explicitly; without it each response is 40 ms late.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> StrAppError:
    return StrAppError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --host or --port")
