"""The verb `serve`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from str_app.engines import precision as precisions


def serve(
    model: Annotated[str | None, typer.Option(help="A model's name, or a checkpoint [default: small].")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, 0.0.0.0 for all [default: 127.0.0.1].")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one [default: 8000].")] = None,
    device: Annotated[str | None, typer.Option(help="Where the model runs: cpu, cuda … [default: cpu].")] = None,
    precision: Annotated[
        precisions.Precision | None, typer.Option(help=f"{precisions.HELP[:-1]} [default: auto].")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the model [default: the cores it may use].")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Images read at once [default: 32].")] = None,
    max_pending: Annotated[int | None, typer.Option(help="Images accepted, not yet answered [default: 512].")] = None,
    log_format: Annotated[
        Literal["json", "text"] | None, typer.Option(help="A JSON object or plain text a line [default: json].")
    ] = None,
) -> None:
    """Answer POST /v1/recognize, and show a page to try it, until SIGTERM or Ctrl-C. SIGHUP loads the weights again.

    Every setting is also an environment variable, STR_APP_PORT and so on; options win. Those without an option, in
    seconds: STR_APP_DEADLINE_S, STR_APP_UPLOAD_TIMEOUT_S, STR_APP_HEADER_TIMEOUT_S, STR_APP_KEEP_ALIVE_S,
    STR_APP_DRAIN_DELAY_S, and STR_APP_MAX_WAIT_MS; in bytes: STR_APP_MAX_BODY_BYTES, STR_APP_MAX_UPLOAD_BYTES;
    of images: STR_APP_MAX_IMAGES, STR_APP_MAX_REGIONS, STR_APP_MAX_PIXELS, STR_APP_MAX_SIDE, STR_APP_MAX_ASPECT,
    STR_APP_FIRST_FRAMES, STR_APP_DECODE_THREADS; of readings: STR_APP_PRIOR; who and whence:
    STR_APP_API_KEYS_FILE, STR_APP_CORS_ORIGINS; what is told: STR_APP_LOG_LEVEL, STR_APP_LOG_TEXTS,
    STR_APP_TRACES_ENDPOINT. docs/serving.md explains them, GET /docs of a running server its interface.

    Example: str-app serve --port 8000
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from pydantic import ValidationError

    from str_app.serve.http.server import run
    from str_app.serve.settings import Settings

    try:
        settings = Settings(**given)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise typer.BadParameter(wrong) from None
    run(settings)
