"""From a request's body to the images in it, within limits that are checked while it is read."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from str_app.errors import ImageError
from str_app.serve.http.problems import ProblemError
from str_app.serve.settings import Settings

T = TypeVar("T")
Take = Callable[[int], None]
MULTIPART, JSON = "multipart/form-data", "application/json"
NAME_LENGTH = 255


class Upload(NamedTuple):
    """One image as it was sent, not yet decoded; or why there is none."""

    name: str
    data: bytes | ImageError


class UploadMemory:
    """Bounds the bytes of bodies that are held at once, over all clients."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    @contextmanager
    def of_request(self) -> Iterator[Take]:
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


class Body:
    """Reads the body of one request in one of the forms that it may have.

    Every method may raise a `ProblemError`: 400 it cannot be parsed, 408 too slow, 413 too large or too many images,
    415 another content type, 422 no image in it, 429 too much memory is taken; or
    `starlette.requests.ClientDisconnect`, when the client goes away while sending.

    Args:
        request: its body has not been read.
        settings: the limits.
        take: called with the size of each chunk that has arrived; see `UploadMemory`.
        aside: runs parsing that takes long beside the event loop.
    """

    def __init__(
        self,
        request: Request,
        settings: Settings,
        take: Take,
        aside: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._request = request
        self._settings = settings
        self._take = take
        self._aside = aside

    async def images(self) -> list[Upload]:
        """The files of the multipart field `images`, those of a JSON array, or the whole of an `image/*` body."""
        kind = self._content_type(MULTIPART, JSON, "image/*")
        if kind == MULTIPART:
            return await self._files(await self.form(), "images")
        if kind == JSON:
            fields = await self.json()
            listed = fields.get("images") if isinstance(fields, dict) else None
            if not isinstance(listed, list) or not listed:
                raise _nothing('Send {"images": [{"name": …, "data": "<base64>"}, …]}.')
            if len(listed) > self._settings.max_images:
                raise self._too_many_images()
            return [await self._from_json(item, f"images[{place}]") for place, item in enumerate(listed)]
        return [Upload("body", await self.raw())]

    async def photo(self) -> tuple[Upload, list[Any]]:
        """The one `image` and its `regions`, of a form or of JSON."""
        if self._content_type(MULTIPART, JSON) == MULTIPART:
            form = await self.form()
            uploads = await self._files(form, "image")
            text = form.get("regions")
            regions = await self._parsed(text) if isinstance(text, str) else None
        else:
            fields = await self.json()
            fields = fields if isinstance(fields, dict) else {}
            if "image" not in fields:
                raise _nothing('Send {"image": {"data": "<base64>"}, "regions": […]}.')
            uploads, regions = [await self._from_json(fields["image"], "image")], fields.get("regions")
        if len(uploads) > 1:
            raise ProblemError(413, "too_many_images", "Send one photograph a request.")
        if not isinstance(regions, list) or not regions:
            raise ProblemError(
                422, "no_regions", "Send 'regions', a JSON array of boxes [x0, y0, x1, y1] or quadrilaterals."
            )
        if len(regions) > self._settings.max_regions:
            raise ProblemError(
                413, "too_many_regions", f"A request may mark {self._settings.max_regions} regions; send several."
            )
        return uploads[0], regions

    async def form(self) -> FormData:
        """A multipart form, its files in memory."""
        parser = MultiPartParser(
            self._request.headers,
            self._chunks(),
            max_files=self._settings.max_images,
            max_fields=16,
            max_part_size=2**18,
        )
        # In memory: the body is bounded, a temporary disk may be full.
        parser.spool_max_size = self._settings.max_body_bytes
        try:
            return await self._in_time(parser.parse())
        except MultiPartException as error:
            if error.message.startswith("Too many files"):
                raise self._too_many_images() from None
            raise ProblemError(400, "bad_multipart", f"The multipart body cannot be read: {error.message}") from None

    async def json(self) -> Any:
        """The value of a JSON body."""
        return await self._parsed(await self.raw())

    async def raw(self) -> bytes:
        """The whole body."""

        async def read() -> bytes:
            return b"".join([chunk async for chunk in self._chunks()])

        return await self._in_time(read())

    def _content_type(self, *known: str) -> str:
        """The one of `known` that the request has; checked before anything is read."""
        headers = self._request.headers
        given = headers.get("content-type", "").split(";")[0].strip().lower()
        kind = "image/*" if given.startswith("image/") else given
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if kind not in known or encoding != "identity":
            said = f"{given[:80]!r}, {encoding[:80]!r}" if encoding != "identity" else f"{given[:80] or 'nothing'!r}"
            raise ProblemError(
                415, "unsupported_media_type", f"Send {', '.join(known)} uncompressed (the request says {said})."
            )
        return kind

    async def _files(self, form: FormData, field: str) -> list[Upload]:
        try:
            values = form.getlist(field)
            files = [value for value in values if isinstance(value, UploadFile)]
            if not files or len(files) < len(values):
                names = ", ".join(repr(name[:80]) for name in form) or "none"
                raise _nothing(f"Send each image as a file, with a filename, in the field '{field}' (it has: {names}).")
            return [
                Upload((file.filename or f"{field}[{place}]")[:NAME_LENGTH], await file.read())
                for place, file in enumerate(files)
            ]
        finally:
            await form.close()

    async def _from_json(self, item: Any, place: str) -> Upload:
        fields = item if isinstance(item, dict) else {}
        data, name = fields.get("data"), fields.get("name", place)
        if not isinstance(data, str) or not isinstance(name, str):
            raise ProblemError(422, "bad_image", f'{place}: send {{"name": "optional", "data": "<base64>"}}.')
        self._take(len(data) * 3 // 4)
        # JSON may hold half a surrogate pair, which no answer could be written with.
        name = name[:NAME_LENGTH].encode("utf-8", "replace").decode()
        return Upload(name, await self._aside(lambda: from_base64(data)))

    async def _parsed(self, text: str | bytes) -> Any:
        def parse() -> Any:
            try:
                return json.loads(text)
            except (ValueError, RecursionError):
                raise ProblemError(400, "bad_json", "The JSON cannot be parsed.") from None

        return await self._aside(parse)

    async def _in_time(self, reading: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._settings.upload_timeout_s):
                return await reading
        except TimeoutError:
            raise ProblemError(
                408,
                "upload_timeout",
                f"The body did not arrive within {self._settings.upload_timeout_s:g} s; send it in one go.",
                {"Connection": "close"},
            ) from None

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        """The body; one without a declared length (chunked) is cut off once it is too large."""
        most = self._settings.max_body_bytes
        too_large = ProblemError(
            413, "body_too_large", f"The body is over {most} bytes; send smaller images, or fewer at once."
        )
        declared = self._request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise too_large  # nothing has been read; a client that sent Expect: 100-continue keeps its bytes
        total = 0
        async for chunk in self._request.stream():
            total += len(chunk)
            if total > most:
                raise too_large
            self._take(len(chunk))
            yield chunk

    def _too_many_images(self) -> ProblemError:
        return ProblemError(
            413, "too_many_images", f"A request may hold {self._settings.max_images} images; send several requests."
        )


def from_base64(text: str) -> bytes | ImageError:
    """The bytes, or the error of the one image; a `data:` address may stand before them."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ImageError("bad_base64", "not base64")


def _nothing(detail: str) -> ProblemError:
    return ProblemError(422, "no_images", detail)
