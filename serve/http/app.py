"""The ASGI application: its parts, its lifespan, and the endpoints for operations and pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from str_app.serve.errors import ProblemError
from str_app.serve.http import problems, routes_v1, routes_v2, schema
from str_app.serve.http.access import PUBLIC_PATHS, Access, read_keys
from str_app.serve.http.admission import Admission
from str_app.serve.http.service import Service
from str_app.serve.http.telemetry import Lifecycle, Telemetry
from str_app.serve.http.uploads import UploadMemory
from str_app.serve.inference.batcher import Batcher, split_cores
from str_app.serve.inference.image_decoder import ImageDecoder
from str_app.serve.operations.metrics import Metrics
from str_app.serve.operations.tracing import Tracer
from str_app.serve.operations.usage import UsageRecord
from str_app.serve.settings import Settings

if TYPE_CHECKING:
    from str_app.photos.photo_reader import PhotoPipeline
    from str_app.pipeline import CanvasReader

# Each takes the `Service` and returns an `APIRouter`; matched in this order.
ROUTERS = [routes_v1.routes, routes_v2.routes]
STATIC = Path(__file__).parent.parent / "static"
# Browsers must revalidate, or the page of a new version would run scripts of the old one.
REVALIDATE = {"Cache-Control": "no-cache"}
UNAUTHORIZED = "The API key is missing or wrong."
NOT_READY = problems.documented({503: "Warming up, or stopping."})
NOT_ALIVE = problems.documented({503: "The inference thread has ended."})


def load_reader(settings: Settings, record: UsageRecord) -> CanvasReader:
    """Load the model in as many processes as the batcher has threads, on a GPU in one; `record` counts them."""
    from str_app.serve.inference.model_processes import ModelProcesses

    processes, threads = split_cores(settings.threads)
    return ModelProcesses(settings, 1 if settings.device.startswith("cuda") else processes, threads, record)


def load_photos(settings: Settings) -> PhotoPipeline | None:
    """What finds words in photographs; None if no detector is asked for by name and none is installed.

    Raises:
        StrAppError: the detector asked for is unknown or not installed.
    """
    from str_app.photos.load import installed, load_pipeline

    if settings.detector == "none" or (settings.detector == "auto" and not installed()):
        return None
    return load_pipeline(settings.detector, threads=1)


def create_app(
    settings: Settings | None = None,
    load: Callable[[], CanvasReader] | None = None,
    photos: PhotoPipeline | None = None,
) -> FastAPI:
    """Create the ASGI application.

    Model and detector are loaded at startup. The model is warmed up while the application already answers: `/healthz`
    is 200 at once, `/readyz` after every batch size has been computed at every canvas width. Applications share no
    state.

    Args:
        settings: by default from the environment.
        load: makes the reader, at startup and at each reload, instead of loading `settings.model`.
        photos: finds the words of photographs, instead of loading `settings.detector`.

    Raises:
        StrAppError: the file of keys cannot be read, or the extra `tracing` is not installed. A model or detector that
            cannot be loaded is an error of the startup.
    """
    settings = settings or Settings()
    metrics, lifecycle, record = Metrics(), Lifecycle(), UsageRecord()
    batcher = Batcher(
        load or (lambda: load_reader(settings, record)),
        max_batch=settings.max_batch,
        max_pending=settings.max_pending,
        max_queue_s=settings.deadline_s / 2,
        max_wait_s=settings.max_wait_ms / 1e3,
        threads=settings.threads,
        metrics=metrics,
    )
    decoder = ImageDecoder(settings.decode_threads, settings.image_limits, metrics, max(1, settings.threads // 2))
    service = Service(
        settings,
        metrics,
        lifecycle,
        batcher,
        decoder,
        UploadMemory(settings.max_upload_bytes),
        lambda: photos or load_photos(settings),
    )
    tracer = Tracer.to_endpoint(settings.traces_endpoint) if settings.traces_endpoint else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.start)
        await asyncio.wrap_future(batcher.loaded)
        metrics.model.info({"name": batcher.reader.name})
        yield
        decoder.close()
        await asyncio.to_thread(batcher.close)
        if tracer:
            await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="str-app",
        summary="Scene-text recognition.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from a CDN; ours is static/docs.html
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI's own looks up OpenTelemetry at each request; ours is `Tracer`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.service = service
    # The last middleware added is the first to see a request.
    app.add_middleware(Head)
    app.add_middleware(Admission, check=batcher.check_capacity)
    if settings.api_keys_file:
        app.add_middleware(Access, keys=read_keys(settings.api_keys_file))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in settings.cors_origins.split(",")],
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "X-Request-ID", routes_v2.HEADER_LENGTH],
            expose_headers=["X-Request-ID", "Server-Timing", "Retry-After", routes_v2.HEADER_LENGTH],
        )
    app.add_middleware(Telemetry, metrics=metrics, lifecycle=lifecycle, tracer=tracer)
    problems.install(app)
    metrics.ready.set_function(lambda: float(service.ready))
    for routes in ROUTERS:
        app.include_router(routes(service))
    _add_operations(app, service)
    _add_pages(app)
    app.mount("/static", _Static(directory=STATIC), name="static")
    if settings.api_keys_file:
        _document_keys(app)
    return app


def _document_keys(app: FastAPI) -> None:
    """Let the OpenAPI document say which operations need a key, how it is sent, and what they answer without."""
    problem = problems.documented({401: UNAUTHORIZED})[401]
    undocumented = app.openapi

    def openapi() -> dict[str, Any]:
        document = undocumented()
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "basic": {"type": "http", "scheme": "basic"},
        }
        for path, operations in document["paths"].items():
            for operation in operations.values() if path not in PUBLIC_PATHS else ():
                operation["security"] = [{"bearer": []}, {"header": []}, {"basic": []}]
                operation["responses"]["401"] = {"description": UNAUTHORIZED} if problems.is_v2(path) else problem
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _add_operations(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["health"], summary="Liveness", response_model=schema.Status, responses=NOT_ALIVE)
    async def healthz() -> dict[str, str]:
        """200 while the process works, also under load, during warm-up and while draining."""
        if not service.batcher.alive:
            raise ProblemError(503, "inference_stopped", "The inference thread has ended; restart the server.")
        return {"status": "alive"}

    @app.get("/readyz", tags=["health"], summary="Readiness", response_model=schema.Status, responses=NOT_READY)
    async def readyz() -> dict[str, str]:
        """200 when the model is warm and the server has not been told to stop, otherwise 503."""
        if service.lifecycle.draining:
            raise ProblemError(503, "draining", "The server is stopping; send requests to another replica.")
        if not service.ready:
            raise ProblemError(503, "warming_up", "The model is warming up; it will be ready in seconds.")
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=Response)
    async def prometheus() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


class Head:
    """ASGI middleware: answers HEAD as GET without the body, on every path; FastAPI's routes do not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        as_get = {**scope, "method": "GET"}  # a copy: uvicorn looks at its own scope
        try:
            await self._app(as_get, receive, send_head)
        finally:
            scope.update(as_get, method="HEAD")  # the route and the problem, for the log


class _Static(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(REVALIDATE)
        return response


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=REVALIDATE)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html", headers=REVALIDATE)
