"""Everything an operator can set: an environment variable `STR_APP_<NAME>` or an option of `str-app serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from str_app.cpu import usable_cores
from str_app.engines.precision import HELP as PRECISION
from str_app.engines.precision import Precision
from str_app.inputs.images import DEFAULT_LIMITS as LIMITS
from str_app.inputs.images import ImageLimits


class Settings(BaseSettings):
    """Settings of the server. Arguments win over the environment, the environment over the defaults."""

    model_config = SettingsConfigDict(env_prefix="STR_APP_", extra="ignore", frozen=True)

    model: str = Field(default="small", description="Name of a model, or path of a checkpoint.")
    device: str = Field(default="cpu", description="Where the model runs: cpu, cuda, cuda:1 …")
    precision: Precision = Field(default="auto", description=PRECISION)
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    threads: int = Field(
        default_factory=usable_cores,
        ge=1,
        description="Threads of the model; default: the CPU cores this process may use (affinity, quota).",
    )
    decode_threads: int = Field(default=2, ge=1, le=64, description="Threads that decode images.")
    prior: bool = Field(default=True, description="Prefer known words and numbers where the picture leaves a doubt.")

    max_batch: int = Field(
        default=32, ge=1, le=1024, description="Images read at once; more than 32 gains nothing on a CPU."
    )
    max_wait_ms: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Milliseconds an idle model waits for more images; 0 starts at once, and batches form while busy.",
    )
    max_pending: int = Field(
        default=512, ge=1, description="Images accepted and not yet answered, over all clients; beyond that 429."
    )
    deadline_s: float = Field(default=10.0, gt=0, description="Seconds from upload to reading; beyond that 504.")
    upload_timeout_s: float = Field(
        default=30.0, gt=0, description="Seconds a client may take to send its body; then 408."
    )
    header_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds for the head of a request, from the connection or its first byte."
    )
    keep_alive_s: float = Field(
        default=75.0,
        gt=0,
        description="Seconds an answered connection may idle; above a balancer's own, which must be first to close.",
    )
    drain_delay_s: float = Field(
        default=5.0,
        ge=0,
        description="Seconds between SIGTERM (readiness 503) and closing the listener, to leave a balancer.",
    )

    max_body_bytes: int = Field(default=32 * 2**20, ge=1, description="Size of a request's body; beyond that 413.")
    max_upload_bytes: int = Field(
        default=256 * 2**20, ge=1, description="Memory of the bodies of all clients together; beyond that 429."
    )
    max_images: int = Field(default=64, ge=1, description="Images in a request; beyond that 413.")
    max_regions: int = Field(default=128, ge=1, description="Regions marked in one photograph; beyond that 413.")
    max_pixels: int = Field(default=LIMITS.max_pixels, ge=1, description="Width × height of an image.")
    max_side: int = Field(default=LIMITS.max_side, ge=1, description="Longer side of an image, in pixels.")

    max_aspect: float = Field(default=LIMITS.max_aspect, ge=1, description="Longer over shorter side of an image.")
    first_frames: bool = Field(default=False, description="Also read the first frame of GIF and TIFF files.")

    api_keys_file: Path | None = Field(
        default=None, description="Lines of a name and the SHA-256 of a key; only who has a key is served then."
    )
    cors_origins: str = Field(
        default="", description="Other sites whose pages may call this server: origins with commas between, or *."
    )

    log_format: Literal["json", "text"] = Field(default="json", description="One JSON object a line, or plain lines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity logged."
    )
    log_texts: bool = Field(default=False, description="Log what was read; off, since it is the users' own.")
    traces_endpoint: str | None = Field(
        default=None, description="OTLP/HTTP address that OpenTelemetry spans are sent to, e.g. http://collector:4318."
    )

    @model_validator(mode="after")
    def _one_request_fits(self) -> Settings:
        if self.max_pending < self.max_images:
            raise ValueError(
                f"max_pending ({self.max_pending}) is below max_images ({self.max_images}): "
                "a full request could never be accepted; raise the one or lower the other"
            )
        if self.max_upload_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_upload_bytes ({self.max_upload_bytes}) is below max_body_bytes ({self.max_body_bytes}): "
                "a full body could never be received; raise the one or lower the other"
            )
        return self

    @property
    def image_limits(self) -> ImageLimits:
        """What is refused as no picture of words."""
        return ImageLimits(
            max_bytes=self.max_body_bytes,
            max_pixels=self.max_pixels,
            max_side=self.max_side,
            max_aspect=self.max_aspect,
            first_frames=self.first_frames,
        )
