"""Response bodies of the endpoints."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

CONFIDENCE = "Calibrated probability that the text is right up to case and punctuation, 0 to 1."


class Character(BaseModel):
    """One character of a reading."""

    text: str
    confidence: float = Field(ge=0, le=1)
    box: list[float] = Field(min_length=4, max_length=4, description="x0, y0, x1, y1 in pixels of the upright image.")


class Attention(BaseModel):
    """Attention maps: where the network looked."""

    covered: float = Field(
        description="Fraction of the maps' width that the crop covers, from the left; the rest is padding."
    )
    maps: list[list[list[float]]] = Field(
        description="For each character, and last for the end token, rows of columns that sum to 1 over the canvas."
    )


class Read(BaseModel):
    """The text of an image with its confidence."""

    text: str
    confidence: float = Field(ge=0, le=1, description=CONFIDENCE)
    characters: list[Character]
    rotation: int = Field(
        default=0, description="Degrees by which the crop was turned counter-clockwise to be read; absent if 0."
    )
    attention: Attention | None = Field(default=None, description="With `attention=true`.")


class Recognized(Read):
    """An image that was read."""

    image: str = Field(description="File name or `name` sent with the image; else `images[0]`, … in JSON, or `body`.")


class RegionRead(Read):
    """A region that was read."""

    region: list[list[float]] = Field(description="Its four corners; boxes are clipped to the photograph.")


class ImageFailure(BaseModel):
    """Why an image could not be read."""

    code: str = Field(examples=["truncated"], description="Stable identifier for programs.")
    message: str = Field(description="One sentence for people.")


class Failed(BaseModel):
    """An image that could not be read; the others of the request are not affected."""

    image: str
    error: ImageFailure


class Recognition(BaseModel):
    """Response of `POST /v1/recognize`: one result per image, in the order sent."""

    model: str
    results: list[Recognized | Failed]


class RegionFailed(BaseModel):
    """A region that could not be read; the others are not affected."""

    error: ImageFailure


class RegionsRead(BaseModel):
    """Response of `POST /v1/regions`: one result per region, in the order sent."""

    model: str
    results: list[RegionRead | RegionFailed]


class PhotoWord(Read):
    """A word of a photograph; boxes of its characters are in pixels of the photograph."""

    quad: list[list[float]] = Field(
        description="Four corners, clockwise from the top left of the first letter, in pixels of the photograph."
    )
    detection: float = Field(ge=0, le=1, description="How sure the detector was that this is text; not calibrated.")
    line: int = Field(description="Index of its line.")
    doubtful: bool = Field(description="Its confidence is below 0.5.")


class PhotoLine(BaseModel):
    """Words that follow each other in a line."""

    text: str = Field(description="Its words with spaces between them.")
    words: list[int] = Field(description="Their indices.")


class PhotoRead(BaseModel):
    """Response of `POST /v1/photos`: lines and words in reading order."""

    model: str
    detector: str
    width: int
    height: int
    lines: list[PhotoLine]
    words: list[PhotoWord]


class Model(BaseModel):
    """The model of this server."""

    name: str
    charset: str = Field(description="Characters it can recognise.")
    info: dict[str, Any] = Field(description="Metadata of the checkpoint: parameters, training, metrics.")


class Models(BaseModel):
    """Response of `GET /v1/models`."""

    models: list[Model]
    detector: str | None = Field(description="What finds words for `POST /v1/photos`; null without one.")


class Status(BaseModel):
    """Response of the health endpoints."""

    status: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="What is wrong and how to fix it.")
    code: str = Field(description="Stable identifier for programs.")
    request_id: str = Field(description="The X-Request-ID of this request, which is also in the log.")
