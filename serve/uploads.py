"""From a request's body to the images in it, within limits that are checked while it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serve.problems import ProblemError
from serve.settings import Settings

FIELD = "images"


class Upload(NamedTuple):
    """One image as it was sent, not yet decoded."""

    name: str
    data: bytes


class UploadMemory:
    """Bounds the bytes of bodies that are held at once, over all clients."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    @contextmanager
    def of_request(self) -> Iterator[Callable[[int], None]]:
        """A function that takes bytes, or raises the 429 problem; all are given back when the block ends."""
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self.held + count > self._limit:
                raise ProblemError(
                    429, "overloaded", "Too many bodies are being received; try again in 1 s.", {"Retry-After": "1"}
                )
            self.held += count
            taken += count

        try:
            yield take
        finally:
            self.held -= taken


async def read_uploads(request: Request, settings: Settings, take: Callable[[int], None]) -> list[Upload]:
    """The files of the multipart field `images`, or the whole of an `image/*` body.

    Args:
        request: its body has not been read.
        settings: the limits.
        take: called with the size of each chunk that has arrived; see `UploadMemory`.

    Raises:
        ProblemError: 400 broken multipart, 408 too slow, 413 too large or too many images, 415 another content type,
            422 no image in it, 429 too much memory is taken.
        starlette.requests.ClientDisconnect: the client went away while sending.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type != "multipart/form-data" and not content_type.startswith("image/"):
        raise ProblemError(
            415,
            "unsupported_media_type",
            f"Send multipart/form-data with files in the field '{FIELD}', or one image as an image/* body"
            f" (the request says {content_type[:80] or 'nothing'!r}).",
        )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > settings.max_body_bytes:
        raise _too_large(settings)  # nothing has been read; a client that sent Expect: 100-continue keeps its bytes
    try:
        async with asyncio.timeout(settings.upload_timeout_s):
            if content_type == "multipart/form-data":
                return await _read_multipart(request, settings, take)
            return [Upload("body", b"".join([chunk async for chunk in _counted(request, settings, take)]))]
    except TimeoutError:
        raise ProblemError(
            408,
            "upload_timeout",
            f"The body did not arrive within {settings.upload_timeout_s:g} s; send it in one go.",
            {"Connection": "close"},
        ) from None


async def _counted(request: Request, settings: Settings, take: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """The body's chunks; a body without a declared length (chunked) is cut off once it is too large."""
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > settings.max_body_bytes:
            raise _too_large(settings)
        take(len(chunk))
        yield chunk


async def _read_multipart(request: Request, settings: Settings, take: Callable[[int], None]) -> list[Upload]:
    parser = MultiPartParser(
        request.headers,
        _counted(request, settings, take),
        max_files=settings.max_images,
        max_fields=16,
        max_part_size=2**16,
    )
    parser.spool_max_size = settings.max_body_bytes  # in memory: the body is bounded, a temporary disk may be full
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise ProblemError(
                413, "too_many_images", f"A request may hold {settings.max_images} images; send several requests."
            ) from None
        raise ProblemError(400, "bad_multipart", f"The multipart body cannot be read: {error.message}") from None
    try:
        files = [value for value in form.getlist(FIELD) if isinstance(value, UploadFile)]
        if not files or len(files) < len(form.getlist(FIELD)):
            fields = ", ".join(repr(name[:80]) for name in form) or "none"
            raise ProblemError(
                422,
                "no_images",
                f"Send each image as a file, with a filename, in the field '{FIELD}' (the request has: {fields}).",
            )
        return [Upload(file.filename or f"{FIELD}[{i}]", await file.read()) for i, file in enumerate(files)]
    finally:
        await form.close()


def _too_large(settings: Settings) -> ProblemError:
    return ProblemError(
        413,
        "body_too_large",
        f"The body is over {settings.max_body_bytes} bytes; send smaller images, or fewer at once.",
    )
