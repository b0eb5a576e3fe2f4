"""The settings of the server: environment variables `STR_APP_<NAME>`, some of them options of `str-app serve`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from str_app.cpu import usable_cores
from str_app.engines import HELP as ENGINE
from str_app.engines.options import MAX_THREADS, EngineOptions
from str_app.engines.precision import HELP as PRECISION
from str_app.engines.precision import Precision
from str_app.errors import StrAppError
from str_app.inputs.images import DEFAULT_LIMITS as LIMITS
from str_app.inputs.images import ImageLimits
from str_app.photos import HELP as DETECTOR

# As browsers write it: in lower case, without a path; null or file:// is that of a page in a file.
ORIGIN = re.compile(r"\*|null|file://|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")
OF_THE_COMMAND_LINE = ("STR_APP_API_KEY", "STR_APP_NATIVE")  # of clients, and of the compiled kernels


class Settings(BaseSettings):
    """Settings of the server. Arguments override the environment, the environment overrides the defaults."""

    model_config = SettingsConfigDict(
        env_prefix="STR_APP_", env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    model: str = Field(default="small", description="Name of a model, or path to a checkpoint or to exported graphs.")
    device: str = Field(default="cpu", description="Device of the model: cpu, cuda, cuda:1, …")
    engine: str = Field(default="auto", description=ENGINE)
    precision: Precision = Field(default="auto", description=PRECISION)
    detector: str = Field(default="auto", description=DETECTOR[:-1] + ", if any; none: no POST /v1/photos.")
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all interfaces.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 for any free port.")
    threads: int = Field(
        default_factory=usable_cores,
        ge=1,
        le=MAX_THREADS,
        description="CPU threads of the model; by default the cores this process may use (affinity, cgroup quota).",
    )
    decode_threads: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Threads that decode images; half as many more decode those above 1 megapixel.",
    )
    prior: bool = Field(default=True, description="Prefer known words and numbers where the image is ambiguous.")
    blank: bool = Field(default=True, description="Return an empty text where the image shows none.")
    variants: bool = Field(
        default=True,
        description="Retry hard-to-read crops in up to nine variants: more accurate, up to 5 times slower.",
    )

    max_batch: int = Field(default=32, ge=1, le=1024, description="Maximum batch size; above 32 a CPU gains nothing.")
    max_wait_ms: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Milliseconds an idle model waits to fill a batch; by default none: batches form while it is busy.",
    )
    max_pending: int = Field(
        default=512,
        ge=1,
        description="Limit of images accepted and not yet answered, over all clients. Requests beyond it get 429; so "
        "do those that would wait for more than half of `deadline_s` at the measured speed.",
    )
    deadline_s: float = Field(
        default=10.0, gt=0, description="Seconds from the end of the upload to the reading; later requests get 504."
    )
    upload_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds a client may take to send a request body, then 408, or to receive an answer.",
    )
    header_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds for the head of a request, from its first byte or from the opening of the connection.",
    )
    keep_alive_s: float = Field(
        default=75.0,
        gt=0,
        description="Seconds a connection may idle between requests; longer than the load balancer's limit.",
    )
    drain_delay_s: float = Field(
        default=5.0,
        ge=0,
        description="Seconds from SIGTERM (readiness turns 503) to closing the listener, for load balancers to notice.",
    )

    max_body_bytes: int = Field(default=32 * 2**20, ge=1, description="Maximum size of a request body; above it 413.")
    max_upload_bytes: int = Field(
        default=256 * 2**20,
        ge=1,
        description="Memory limit for the bodies of all requests together; above it 429. At least 1.75 × "
        "`max_body_bytes`.",
    )
    max_images: int = Field(default=64, ge=1, description="Maximum number of images in a request; above it 413.")
    max_regions: int = Field(default=128, ge=1, description="Maximum number of regions in a photograph; above it 413.")
    max_pixels: int = Field(default=LIMITS.max_pixels, ge=1, description="Maximum width × height of an image.")
    max_request_pixels: int = Field(
        default=250_000_000,
        ge=1,
        description="Maximum width × height of all images of a request together; the images beyond it get an error.",
    )
    max_side: int = Field(default=LIMITS.max_side, ge=1, description="Maximum longer side of an image, in pixels.")

    max_aspect: float = Field(
        default=LIMITS.max_aspect, ge=1, description="Maximum ratio of the longer to the shorter side of an image."
    )
    first_frames: bool = Field(default=False, description="Also accept GIF and TIFF files; their first frame is read.")

    api_keys_file: Path | None = Field(
        default=None,
        description="File of API keys: a name and the SHA-256 of a key on each line; all other clients get 401.",
    )
    cors_origins: str = Field(default="", description="Comma-separated origins whose pages may call this server, or *.")

    log_format: Literal["json", "text"] = Field(default="json", description="One JSON object per line, or plain text.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Minimum severity that is logged."
    )
    log_texts: bool = Field(default=False, description="Log the texts that were read; off for privacy.")
    traces_endpoint: str | None = Field(
        default=None, description="OTLP/HTTP endpoint for OpenTelemetry spans, e.g. http://collector:4318."
    )

    @field_validator("cors_origins")
    @classmethod
    def _origins_can_match(cls, value: str) -> str:
        for origin in filter(None, map(str.strip, value.split(","))):
            if not ORIGIN.fullmatch(origin) or re.match(r"http:.*:80$|https:.*:443$", origin):
                raise ValueError(
                    f"{origin!r} is never the Origin of a request: write scheme://host[:port] in lower case, without a "
                    "path or the scheme's own port, or *"
                )
        return value

    @field_validator("traces_endpoint")
    @classmethod
    def _endpoint_is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parts = urlsplit(value)
                usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            except ValueError:
                usable = False
            if not usable:
                raise ValueError(f"{value!r} is not the address of a collector: write http(s)://host[:port]")
            if parts.path.rstrip("/").endswith("/v1/traces"):
                raise ValueError(f"{value!r}: leave out /v1/traces, which is added")
        return value

    @model_validator(mode="after")
    def _largest_request_fits(self) -> Settings:
        for larger, smaller, consequence in (
            ("max_pending", "max_images", "the largest request could never be accepted"),
            ("max_request_pixels", "max_pixels", "the largest image could never be read"),
        ):
            high, low = getattr(self, larger), getattr(self, smaller)
            if high < low:
                raise ValueError(
                    f"{larger} ({high}) is below {smaller} ({low}): {consequence}; raise {larger} or lower {smaller}"
                )
        if self.max_upload_bytes < self.max_body_bytes * 7 / 4:  # JSON, and what is decoded from its base64
            raise ValueError(
                f"max_upload_bytes ({self.max_upload_bytes}) is below 1.75 × max_body_bytes ({self.max_body_bytes}): "
                "the largest body could never be received; raise max_upload_bytes or lower max_body_bytes"
            )
        return self

    @model_validator(mode="after")
    def _keys_are_not_lost(self) -> Settings:
        given = [value for name, value in os.environ.items() if name.upper() == "STR_APP_API_KEYS_FILE"]
        if self.api_keys_file is None and "" in given:  # as of a variable in a Compose file that is not set
            raise ValueError("STR_APP_API_KEYS_FILE is empty: name the file of keys, or unset it to serve without keys")
        return self

    @model_validator(mode="after")
    def _engine_takes_the_options(self) -> Settings:
        try:
            EngineOptions(self.device, self.threads, self.precision)
        except StrAppError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def image_limits(self) -> ImageLimits:
        """Limits of a single image."""
        return ImageLimits(
            max_bytes=self.max_body_bytes,
            max_pixels=self.max_pixels,
            max_side=self.max_side,
            max_aspect=self.max_aspect,
            first_frames=self.first_frames,
        )


def misspelt_variables(names: Iterable[str]) -> list[tuple[str, str]]:
    """Environment variables that look like settings and are none, each with the setting that it resembles.

    Others that begin with STR_APP_ are left alone: Kubernetes adds some for a service called str-app.
    """
    known = [f"STR_APP_{field.upper()}" for field in Settings.model_fields]
    read = {*known, *OF_THE_COMMAND_LINE}
    others = sorted(name for name in names if name.upper().startswith("STR_APP_") and name.upper() not in read)
    pairs = [(name, get_close_matches(name.upper(), known, n=1, cutoff=0.85)) for name in others]
    return [(name, close[0]) for name, close in pairs if close]
