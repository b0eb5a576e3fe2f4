"""What the endpoints answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

CONFIDENCE = "Probability that the reading is right, 0 to 1, calibrated on validation data."


class Character(BaseModel):
    """One character of a reading."""

    text: str
    confidence: float = Field(ge=0, le=1)
    box: list[float] = Field(
        min_length=4, max_length=4, description="x0, y0, x1, y1 in pixels of the image as displayed."
    )


class Attention(BaseModel):
    """Where the network looked."""

    covered: float = Field(description="Share of the maps' width that the crop covers, from the left.")
    maps: list[list[list[float]]] = Field(
        description="For each character, and last for the end, rows of columns that sum to 1 over the crop's canvas."
    )


class Read(BaseModel):
    """A reading."""

    text: str
    confidence: float = Field(ge=0, le=1, description=CONFIDENCE)
    characters: list[Character]
    rotation: int = Field(default=0, description="Degrees the word was turned counter-clockwise to be read, if any.")
    attention: Attention | None = Field(default=None, description="With `attention=true`.")


class Recognized(Read):
    """An image that was read."""

    image: str = Field(description="File name given with the image, or its place in the request.")


class RegionRead(Read):
    """A region that was read."""

    region: list[list[float]] = Field(description="Its four corners, a box cut off at the photograph's edges.")


class ImageFailure(BaseModel):
    """Why one image could not be read."""

    code: str = Field(examples=["truncated"], description="Stable word for programs.")
    message: str = Field(description="One sentence for people.")


class Failed(BaseModel):
    """An image that could not be read; the others of the request are not affected."""

    image: str
    error: ImageFailure


class Recognition(BaseModel):
    """Answer of `POST /v1/recognize`: one result for each image, in the order sent."""

    model: str
    results: list[Recognized | Failed]


class RegionFailed(BaseModel):
    """A region that could not be read; the others are not affected."""

    error: ImageFailure


class RegionsRead(BaseModel):
    """Answer of `POST /v1/regions`: one result for each region, in the order sent."""

    model: str
    results: list[RegionRead | RegionFailed]


class Model(BaseModel):
    """A model this server answers with."""

    name: str
    charset: str = Field(description="Characters it can read.")
    info: dict[str, Any] = Field(description="What the checkpoint says of itself: parameters, training, metrics.")


class Models(BaseModel):
    """Answer of `GET /v1/models`."""

    models: list[Model]


class Status(BaseModel):
    """Answer of the health endpoints."""

    status: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="What is wrong and the way out.")
    code: str = Field(description="Stable word for programs.")
    request_id: str = Field(description="The X-Request-ID of this request, as the logs have it.")
