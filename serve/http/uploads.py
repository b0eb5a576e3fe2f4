"""Reads request bodies into images; limits are enforced while the body arrives."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from str_app.errors import ImageError
from str_app.serve.errors import ProblemError
from str_app.serve.http.problems import body_too_large, too_many_images
from str_app.serve.settings import Settings

T = TypeVar("T")
Reserve = Callable[[int], None]
MULTIPART, JSON = "multipart/form-data", "application/json"
MAX_NAME_LENGTH = 255
COLLECTED_BYTES = 64 * 2**20
MAX_JSON_VALUES = 200_000  # 20 ms; regions and images have some thousands
URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


class Upload(NamedTuple):
    """An image file that was sent, or why it could not be extracted from the body."""

    name: str
    data: bytes | ImageError


class UploadMemory:
    """Limits the total size of the request bodies in memory.

    What has become garbage in a cycle, such as an error and the frames of its traceback, counts no more. So garbage is
    collected after every `COLLECTED_BYTES` of bodies: Python itself counts objects, not bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.reserved = 0
        self._uncollected = 0

    @contextmanager
    def for_request(self) -> Iterator[Reserve]:
        """Yields a function that reserves bytes or raises the 429 problem; the block's end releases them."""
        total = 0

        def reserve(count: int) -> None:
            nonlocal total
            if self.reserved + count > self._limit:
                raise ProblemError(
                    429,
                    "overloaded",
                    "Too many request bodies are being received; try again in 1 s.",
                    {"Retry-After": "1"},
                )
            self.reserved += count
            total += count

        try:
            yield reserve
        finally:
            self.reserved -= total
            self._uncollected += total
            if self._uncollected > COLLECTED_BYTES:
                self._uncollected = 0
                gc.collect()  # 2 ms: what lives as long as the server is frozen


class Body:
    """Reads the body of one request in any of the supported content types.

    Every method may raise a `ProblemError` (400 cannot be parsed, 408 too slow, 413 too large or too many images, 415
    unsupported content type, 422 no image in it, 429 no memory left) or `starlette.requests.ClientDisconnect`.

    Args:
        request: its body must not have been read.
        settings: the limits.
        reserve: called with the size of each chunk; see `UploadMemory`.
        run_in_thread: runs parsing that would block the event loop.
    """

    def __init__(
        self,
        request: Request,
        settings: Settings,
        reserve: Reserve,
        run_in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._request = request
        self._settings = settings
        self._reserve = reserve
        self._run_in_thread = run_in_thread

    async def images(self) -> list[Upload]:
        """The files of the multipart field `images`, those of a JSON array, or the whole of an `image/*` body."""
        kind = self._content_type(MULTIPART, JSON, "image/*")
        if kind == MULTIPART:
            return await self._files(await self.form(), "images")
        if kind == JSON:
            fields = await self.json()
            items = fields.get("images") if isinstance(fields, dict) else None
            if not isinstance(items, list) or not items:
                raise _no_images('Send {"images": [{"name": …, "data": "<base64>"}, …]}.')
            if len(items) > self._settings.max_images:
                raise too_many_images(self._settings.max_images)
            return [await self._from_json(item, f"images[{index}]") for index, item in enumerate(items)]
        return [Upload("body", await self.raw())]

    async def photo(self) -> Upload:
        """The form's or JSON's `image`, or the whole of an `image/*` body."""
        if self._content_type(MULTIPART, JSON, "image/*") == "image/*":
            return Upload("body", await self.raw())
        return (await self._photo_and_fields('Send {"image": {"data": "<base64>"}}.'))[0]

    async def photo_with_regions(self) -> tuple[Upload, list[Any]]:
        """The `image` and its `regions`, from a form or from JSON."""
        self._content_type(MULTIPART, JSON)
        photo, fields = await self._photo_and_fields('Send {"image": {"data": "<base64>"}, "regions": […]}.')
        regions = fields.get("regions")
        if not isinstance(regions, list) or not regions or all(isinstance(each, int | float) for each in regions):
            raise ProblemError(
                422,
                "no_regions",
                "Send 'regions', a JSON array of boxes [[x0, y0, x1, y1], …] or quadrilaterals; in a form as text, not "
                "as a file.",
            )
        most = min(self._settings.max_regions, self._settings.max_pending)
        if len(regions) > most:
            raise ProblemError(413, "too_many_regions", f"A request may have {most} regions; send several requests.")
        return photo, regions

    async def _photo_and_fields(self, advice: str) -> tuple[Upload, dict[str, Any]]:
        """The one `image`, and the other fields; `advice` is for JSON without it."""
        if self._content_type(MULTIPART, JSON) == JSON:
            fields = await self.json()
            if not isinstance(fields, dict) or "image" not in fields:
                raise _no_images(advice)
            return await self._from_json(fields["image"], "image"), fields
        form = await self.form()
        uploads = await self._files(form, "image")
        if len(uploads) > 1:
            raise ProblemError(413, "too_many_images", "Send one photograph per request.")
        if len(form.getlist("regions")) > 1:
            raise ProblemError(422, "no_regions", "Send 'regions' once, with all regions in one JSON array.")
        text = form.get("regions")
        if not isinstance(text, str):
            return uploads[0], {}
        return uploads[0], {"regions": await self._parsed(text.encode(), "The field 'regions'")}

    async def form(self) -> FormData:
        """A multipart form with its files in memory."""
        parser = _Form(
            self._request.headers,
            self._chunks(),
            max_files=self._settings.max_images,
            max_part_size=self._settings.max_body_bytes,
        )
        # Keep files in memory: the body is limited, and the temporary directory may be full or read-only.
        parser.spool_max_size = self._settings.max_body_bytes
        try:
            form = await self._in_time(parser.parse())
            if parser.in_part:
                await form.close()
                raise MultiPartException("it ends before the boundary that closes it")
            return form
        except MultiPartException as error:
            if error.message.startswith("Too many files"):
                raise too_many_images(self._settings.max_images) from None
            raise ProblemError(400, "bad_multipart", f"The multipart body cannot be read: {error.message}") from None

    async def json(self) -> Any:
        """The value of a JSON body."""
        return await self._parsed(await self.raw())

    async def raw(self) -> bytes:
        """The whole body."""

        async def read() -> bytes:
            return b"".join([chunk async for chunk in self._chunks()])

        return await self._in_time(read())

    def _content_type(self, *supported: str) -> str:
        """The request's content type, checked before the body is read.

        Args:
            supported: what the endpoint accepts.
        """
        headers = self._request.headers
        declared = headers.get("content-type", "").split(";")[0].strip().lower()
        kind = "image/*" if declared.startswith("image/") else declared
        if kind not in supported:
            actual = f"{declared[:80] or 'no content type'!r}"
            raise ProblemError(415, "unsupported_media_type", f"Send {', '.join(supported)}; the request has {actual}.")
        self.require_uncompressed()
        return kind

    def require_uncompressed(self) -> None:
        """Refuse a compressed body before it is read."""
        encoding = self._request.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            raise ProblemError(
                415, "unsupported_media_type", f"Send the body uncompressed; its encoding is {encoding[:80]!r}."
            )

    async def _files(self, form: FormData, field: str) -> list[Upload]:
        try:
            values = form.getlist(field)
            files = [value for value in values if isinstance(value, UploadFile)]
            if not files or len(files) < len(values):
                names = ", ".join(repr(name[:80]) for name in form) or "none"
                raise _no_images(
                    f"Send each image as a file, with a filename, in the field '{field}'; the form has: {names}."
                )
            return [
                Upload((file.filename or f"{field}[{index}]")[:MAX_NAME_LENGTH], await file.read())
                for index, file in enumerate(files)
            ]
        finally:
            await form.close()

    async def _from_json(self, item: Any, field: str) -> Upload:
        fields = item if isinstance(item, dict) else {}
        data, name = fields.get("data"), fields.get("name", field)
        if not isinstance(data, str) or not isinstance(name, str):
            raise ProblemError(422, "bad_image", f'{field}: send {{"name": "optional", "data": "<base64>"}}.')
        self._reserve(len(data) * 3 // 4)
        # JSON may contain a lone surrogate, which UTF-8 cannot encode.
        name = name[:MAX_NAME_LENGTH].encode("utf-8", "replace").decode()
        return Upload(name, await self._run_in_thread(lambda: from_base64(data)))

    async def _parsed(self, body: bytes, what: str = "The body") -> Any:
        def parse() -> Any:
            try:
                return parse_json(body)
            except ValueError:
                raise ProblemError(400, "bad_json", f"{what} is not valid JSON.") from None

        return await self._run_in_thread(parse)

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
        """The body in chunks; without a Content-Length it is cut off when it gets too large."""
        limit = self._settings.max_body_bytes
        declared = self._request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise body_too_large(
                limit
            )  # before reading: a client that sent Expect: 100-continue need not send the body
        total = 0
        async for chunk in self._request.stream():
            total += len(chunk)
            if total > limit:
                raise body_too_large(limit)
            self._reserve(len(chunk))
            yield chunk


class _Form(MultiPartParser):
    """Starlette's parser, which leaves out a part whose end did not arrive.

    Attributes:
        in_part: whether the latest part has not ended.
    """

    in_part = False

    def on_part_begin(self) -> None:
        self.in_part = True
        self._charset = "utf-8"  # RFC 7578 knows no charset of a form; Starlette would take any codec of Python's
        super().on_part_begin()

    def on_part_end(self) -> None:
        self.in_part = False
        super().on_part_end()


def parse_json(body: bytes) -> Any:
    """The value of JSON; very many values are refused, since parsing holds the interpreter lock.

    The objects take 30 times the memory of the text.

    Raises:
        ProblemError: 413.
        ValueError: not JSON, or nested deeper than Python's stack.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_JSON_VALUES:
        raise ProblemError(413, "too_many_values", f"The JSON has more than {MAX_JSON_VALUES:,} values.")
    try:
        return json.loads(body, parse_int=_number)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def _number(digits: str) -> float:
    """An int; a float if there are more than 19 characters: the time of `int` grows with the square of their number."""
    return int(digits) if len(digits) < 20 else float(digits)


def from_base64(text: str) -> bytes | ImageError:
    """Decode base64, or return the error of this image.

    Accepted as common encoders write it: in lines, in the URL-safe alphabet, without padding, after a `data:` prefix.
    """
    if text[:5].lower() == "data:":  # RFC 2397: in either case
        text = text.partition(",")[2]
    try:
        encoded = text.encode("ascii").translate(URL_SAFE_TO_STANDARD, delete=b" \t\r\n")
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return ImageError("bad_base64", "not base64")


def _no_images(detail: str) -> ProblemError:
    return ProblemError(422, "no_images", detail)
