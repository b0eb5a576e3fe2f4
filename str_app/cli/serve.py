"""The verb `serve`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from str_app import engines, photos
from str_app.engines import precision as precisions


def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="A name that `str-app models` lists, a checkpoint file, or a folder that `str-app export` wrote "
            "[default: small]."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, 0.0.0.0 for all [default: 127.0.0.1].")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one [default: 8000].")] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the network runs: cpu, cuda or cuda:N [default: cpu].")
    ] = None,
    engine: Annotated[str | None, typer.Option(help=f"{engines.HELP[:-1]} [default: auto].")] = None,
    precision: Annotated[
        precisions.Precision | None, typer.Option(help=f"{precisions.HELP[:-1]} [default: auto].")
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(help=f"{photos.HELP[:-1]}, if any; none: no POST /v1/photos [default: auto]."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of the network [default: the cores this process may use].")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(help="Maximum number of images per forward pass [default: 32].")
    ] = None,
    max_pending: Annotated[
        int | None, typer.Option(help="Maximum number of images accepted but not yet answered [default: 512].")
    ] = None,
    log_format: Annotated[
        Literal["json", "text"] | None, typer.Option(help="Log lines as JSON objects or plain text [default: json].")
    ] = None,
) -> None:
    """Serve POST /v1/recognize and a demo page until SIGTERM or Ctrl-C. SIGHUP reloads the weights.

    Every setting is also an environment variable, such as STR_APP_PORT; options take precedence. Settings without an
    option, in seconds: STR_APP_DEADLINE_S, STR_APP_UPLOAD_TIMEOUT_S, STR_APP_HEADER_TIMEOUT_S, STR_APP_KEEP_ALIVE_S,
    STR_APP_DRAIN_DELAY_S, and STR_APP_MAX_WAIT_MS; in bytes: STR_APP_MAX_BODY_BYTES, STR_APP_MAX_UPLOAD_BYTES;
    for images: STR_APP_MAX_IMAGES, STR_APP_MAX_REGIONS, STR_APP_MAX_PIXELS, STR_APP_MAX_REQUEST_PIXELS,
    STR_APP_MAX_SIDE, STR_APP_MAX_ASPECT, STR_APP_FIRST_FRAMES, STR_APP_DECODE_THREADS; for reading: STR_APP_PRIOR,
    STR_APP_BLANK, STR_APP_VARIANTS; for access: STR_APP_API_KEYS_FILE, STR_APP_CORS_ORIGINS; for logging:
    STR_APP_LOG_LEVEL, STR_APP_LOG_TEXTS, STR_APP_TRACES_ENDPOINT. docs/how-to/serving.md explains them; GET /docs
    on a running server documents the API.

    Example: str-app serve --port 8000
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from pydantic import ValidationError

    from str_app.serve.http.server import run
    from str_app.serve.settings import Settings

    try:
        settings = Settings(**given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise typer.BadParameter(problems) from None
    run(settings)
