"""The application: routes, and the life of the model behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.requests import ClientDisconnect

from serve import problems, schema
from serve.batcher import Batcher, Outcome
from serve.cpu import usable_cores
from serve.decoder import Decoder
from serve.problems import CLIENT_GONE, ProblemError
from serve.settings import Settings
from serve.telemetry import Lifecycle, Metrics, Telemetry
from serve.uploads import FIELD, Upload, UploadMemory, read_uploads
from str_app.errors import ImageError

if TYPE_CHECKING:
    from str_app.reader import Reader, Reading

STATIC = Path(__file__).parent / "static"


def _documented(problems_by_status: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    content = {problems.MEDIA_TYPE: {"schema": schema.ProblemDetails.model_json_schema()}}
    return {
        status: {"description": description, "content": content} for status, description in problems_by_status.items()
    }


RECOGNIZE_PROBLEMS = _documented(
    {
        400: "The multipart body cannot be read.",
        408: "The body took too long to arrive.",
        413: "The body is too large, or holds too many images.",
        415: "Neither multipart/form-data nor image/*.",
        422: "No image in the request.",
        429: "Too much is being received or read; Retry-After says when to try again.",
        500: "A mistake of the server; its log has the request_id.",
        504: "The reading took longer than the deadline.",
    }
)
NOT_READY = _documented({503: "Warming up, or stopping."})
NOT_ALIVE = _documented({503: "The model's thread has ended."})
RECOGNIZE_BODY = {
    "requestBody": {
        "required": True,
        "description": f"One or more files in the field `{FIELD}`, or one image as it is.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def load_reader(settings: Settings) -> Reader:
    """The reader that `settings` name, with as many threads as this process has cores."""
    from str_app.reader import Reader

    return Reader.load(
        settings.model,
        device=settings.device,
        threads=settings.threads or usable_cores(),
        batch_size=settings.max_batch,
    )


def create_app(settings: Settings | None = None, reader: Reader | None = None) -> FastAPI:
    """The ASGI application.

    The model is loaded when the application starts and warmed up while it already answers: liveness at once,
    readiness when every batch size has been computed. Nothing is shared between two applications.

    Args:
        settings: by default those of the environment.
        reader: instead of loading `settings.model`.
    """
    settings = settings or Settings()
    metrics, lifecycle = Metrics(), Lifecycle()
    batcher = Batcher(
        lambda: reader or load_reader(settings),
        max_batch=settings.max_batch,
        max_pending=settings.max_pending,
        metrics=metrics,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        app.state.reader = await asyncio.wrap_future(batcher.loaded)
        metrics.model.info({"name": app.state.reader.name})
        app.state.decoder = Decoder(settings, metrics)
        yield
        app.state.decoder.close()
        await asyncio.to_thread(batcher.close)

    app = FastAPI(
        title="str-app",
        summary="Reads words in pictures.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere; ours is static/docs.html
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings, app.state.metrics = settings, metrics
    app.state.lifecycle, app.state.batcher = lifecycle, batcher
    app.state.upload_memory = UploadMemory(settings.max_upload_bytes)
    app.add_middleware(Telemetry, metrics=metrics, lifecycle=lifecycle)
    problems.install(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    metrics.ready.set_function(lambda: float(batcher.ready and not lifecycle.draining))
    _add_routes(app)
    return app


def _add_routes(app: FastAPI) -> None:
    settings: Settings = app.state.settings
    batcher: Batcher = app.state.batcher
    metrics: Metrics = app.state.metrics
    upload_memory: UploadMemory = app.state.upload_memory

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["health"], summary="Liveness", response_model=schema.Status, responses=NOT_ALIVE)
    async def healthz() -> dict[str, str]:
        """200 while the process works, also under load, while warming up and while draining."""
        if not batcher.alive:
            raise ProblemError(503, "inference_stopped", "The inference thread has ended; restart the server.")
        return {"status": "alive"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["health"], summary="Readiness", response_model=schema.Status, responses=NOT_READY)
    async def readyz() -> dict[str, str]:
        """200 when the model is warm and the server has not been told to stop, otherwise 503."""
        if app.state.lifecycle.draining:
            raise ProblemError(503, "draining", "The server is stopping; send requests to another one.")
        if not batcher.ready:
            raise ProblemError(503, "warming_up", "The model is warming up; it will be ready in seconds.")
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=Response)
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", tags=["reading"], summary="The model that answers")
    async def models() -> schema.Models:
        reader: Reader = app.state.reader
        return schema.Models(
            models=[schema.Model(name=reader.name, charset=reader.charset.characters, info=reader.info)]
        )

    @app.post(
        "/v1/recognize",
        tags=["reading"],
        summary="Read words in pictures",
        response_model=schema.Recognition,
        responses=RECOGNIZE_PROBLEMS,
        openapi_extra=RECOGNIZE_BODY,
    )
    async def recognize(request: Request) -> Response:
        """Each image is the crop of one word. An image that cannot be read gets an `error` in its place."""
        batcher.check_room()  # before the body is read: refusing must be cheap
        try:
            with upload_memory.of_request() as take:
                uploads = await read_uploads(request, settings, take)
                with batcher.admit(len(uploads)):
                    reading = asyncio.create_task(_read_all(app, uploads))
                    results, timing = await _unless_late_or_gone(reading, request, settings.deadline_s)
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        body = schema.Recognition(model=app.state.reader.name, results=results)
        return Response(body.model_dump_json(), media_type="application/json", headers={"Server-Timing": timing})

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")


async def _unless_late_or_gone(task: asyncio.Task[Any], request: Request, deadline_s: float) -> Any:
    """The task's result. Cancelling it takes what has not been started out of the batcher's queue.

    Raises:
        ProblemError: 504 after `deadline_s`.
        ClientDisconnect: nobody waits for the answer any more.
    """
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise ProblemError(504, "deadline_exceeded", f"Not read within {deadline_s:g} s; send fewer images, or later.")
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})  # out of the queue before anything else happens


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read_all(app: FastAPI, uploads: list[Upload]) -> tuple[list[schema.Recognized | schema.Failed], str]:
    """Results in the order of `uploads`, and the value of Server-Timing: for each stage its slowest image."""
    stages = {"decode": 0.0, "queue": 0.0, "inference": 0.0}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_read_one(app, upload, stages)) for upload in uploads]
    timing = ", ".join(f"{stage};dur={seconds * 1e3:.2f}" for stage, seconds in stages.items())
    return [task.result() for task in tasks], timing


async def _read_one(app: FastAPI, upload: Upload, stages: dict[str, float]) -> schema.Recognized | schema.Failed:
    metrics: Metrics = app.state.metrics
    try:
        async with app.state.decoder.decoded(upload.data) as (image, took):
            outcome: Outcome = await asyncio.wrap_future(app.state.batcher.submit(image))
    except ImageError as error:
        metrics.images.labels(error.code).inc()
        return schema.Failed(image=upload.name, error=schema.ImageFailure(code=error.code, message=error.message))
    metrics.images.labels("read").inc()
    for stage, seconds in zip(stages, (took, outcome.queue_s, outcome.inference_s), strict=True):
        stages[stage] = max(stages[stage], seconds)
    return _result(upload.name, outcome.reading)


def _result(name: str, reading: Reading) -> schema.Recognized:
    """Rounded as `str-app recognize --json` does, so that the two can be compared."""
    characters = [
        schema.Character(text=c.text, confidence=round(c.confidence, 4), box=[round(edge, 1) for edge in c.box])
        for c in reading.characters
    ]
    return schema.Recognized(
        image=name, text=reading.text, confidence=round(reading.confidence, 4), characters=characters
    )
