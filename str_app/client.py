"""A client of `str-app serve`. Needs urllib3: `pip install 'str-app[client]'`."""

from __future__ import annotations

import base64
import json
import os
import random
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Retry, Timeout
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, NameResolutionError

from str_app.errors import ImageError, StrAppError
from str_app.inputs.images import read_named_file
from str_app.inputs.regions import as_regions
from str_app.photos.reading import PhotoReading
from str_app.reading import Reading

Answer = TypeVar("Answer")

# Too many requests; a balancer without a replica; a replica that is starting or stopping. All of these pass.
RETRIED = {429, 502, 503}
LONGEST = 1e6  # seconds; the system's timers take no infinity


class ServerError(StrAppError):
    """The server refused a request, or could not be reached.

    Attributes:
        status: HTTP status; 0 if there was no answer.
        code: the stable `code` of the problem, e.g. `overloaded`.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Client:
    """Reads words through a server. Thread-safe, and usable in forked processes.

    Requests that the server refuses with 429, 502 or 503, or that are lost with their connection, are sent again:
    reading has no side effects. `Retry-After` is honoured; without it waits grow from 0.1 s to 5 s. All waits have a
    random part, so that clients refused together do not return together. Other refusals are never repeated. Proxies
    are taken from the environment.

    Args:
        url: of the server, e.g. `http://localhost:8000`.
        api_key: sent as a bearer token, for servers that require keys.
        timeout_s: how long an attempt waits for a connection, and for each piece of the answer.
        patience_s: for all attempts of one request together, up to the first piece of the answer; 0: one attempt.
        reach_s: the same, as long as nothing has ever answered at this address: it may be mistyped.

    Raises:
        StrAppError: `url` is not an HTTP address, `api_key` has a character that no header may have,
            `timeout_s` is not above 0, or the environment's proxy cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 120.0,
        reach_s: float = 10.0,
    ) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise StrAppError(f"{url}: not the address of a server: use http://HOST:PORT")
        for name, seconds in (("timeout_s", timeout_s), ("patience_s", patience_s), ("reach_s", reach_s)):
            least = "above 0" if name == "timeout_s" else "of at least 0"
            number = isinstance(seconds, Real | Decimal) and not isinstance(seconds, bool)
            if not number or not (seconds > 0 or (seconds == 0 and name != "timeout_s")):
                raise StrAppError(f"{name} is {seconds!r}: give a number of seconds {least}")
        timeout_s, patience_s, reach_s = (min(float(each), LONGEST) for each in (timeout_s, patience_s, reach_s))
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._reach_s = min(reach_s, patience_s)
        self._answered = False
        key = (api_key or "").strip()
        if not key.isprintable() or any(char > "\xff" for char in key):  # headers are Latin-1
            raise StrAppError("the API key has a character that no header may have: give it as the server has it")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._proxy = urllib.request.getproxies().get(parts.scheme)
        if self._proxy and urllib.request.proxy_bypass(str(parts.hostname)):
            self._proxy = None
        self._pool, self._process = self._new_pool(), os.getpid()

    def recognize(
        self, images: Sequence[str | Path | bytes], *, rotate: bool = False, characters: str | None = None
    ) -> list[Reading | ImageError]:
        """Read crops of words.

        Args:
            images: files, or their content; at most as many as the server allows in one request.
            rotate: try each image turned by 0, 90, 180 and 270 degrees.
            characters: those that a text may have, such as `0-9`; see `Reader.recognize`.

        Returns:
            For each image, in order, its reading or why it has none.

        Raises:
            ServerError: the request was refused, or the server stayed busy or unreachable.
            StrAppError: `images` is not a list of files or contents.
        """
        if isinstance(images, str | Path | bytes | Mapping | Set):
            raise StrAppError(f"images is a {type(images).__name__}: give a list of files or of their contents")
        if not images:
            return []
        contents = [_content_or_error(image) for image in images]
        fields = [
            ("images", (str(index), content)) for index, content in enumerate(contents) if isinstance(content, bytes)
        ]
        left = iter(self._read("recognize", fields, len(fields), rotate, characters) if fields else [])
        return [content if isinstance(content, ImageError) else next(left) for content in contents]

    def recognize_regions(
        self, photo: str | Path | bytes, regions: Iterable[Any], *, rotate: bool = False, characters: str | None = None
    ) -> list[Reading | ImageError]:
        """Read the regions, boxes or quadrilaterals, of one photograph; see `Reader.recognize_regions`.

        Raises:
            ServerError: as for `recognize`, or the photograph cannot be decoded.
            ImageError: `photo` is a file that cannot be read, or a region has something else than numbers.
            StrAppError: `regions` is not a list of regions, or `photo` neither a file nor its content.
        """
        listed = as_regions(regions)
        fields = [("regions", _json_of(listed)), ("image", ("photo", _content(photo)))]
        return self._read("regions", fields, len(listed), rotate, characters) if listed else []

    def read_photo(self, photo: str | Path | bytes, *, characters: str | None = None) -> PhotoReading:
        """Find and read all words of one photograph; see `str_app.photos.photo_reader.PhotoReader`.

        Raises:
            ServerError: as for `recognize`, or the photograph cannot be decoded.
            ImageError: `photo` is a file that cannot be read.
        """
        fields = [("image", ("photo", _content(photo)))]
        return self._post("photos", fields, {"characters": characters}, PhotoReading.from_dict)

    def _new_pool(self) -> PoolManager:
        options: dict[str, Any] = {"headers": self._headers, "maxsize": 16}
        if not self._proxy:
            return PoolManager(**options)
        proxy = self._proxy if "://" in self._proxy else f"http://{self._proxy}"
        scheme, _, rest = proxy.partition("://")
        login, at, place = rest.rpartition("@")
        login = urllib.parse.unquote(login)
        if at:
            encoded = base64.b64encode((login if ":" in login else f"{login}:").encode()).decode()
            options["proxy_headers"] = {"Proxy-Authorization": f"Basic {encoded}"}
        address = f"{scheme}://{place}"
        try:
            return ProxyManager(address, **options)
        except (HTTPError, ValueError) as error:
            raise StrAppError(f"the proxy {address} cannot be used: {error}") from None

    def _read(
        self, route: str, fields: Sequence[tuple[str, Any]], count: int, rotate: bool, characters: str | None
    ) -> list[Reading | ImageError]:
        options = {"rotate": "true" if rotate else None, "characters": characters}
        results = self._post(route, fields, options, _results)
        if len(results) != count:
            raise _not_ours(self._url)
        return results

    def _post(
        self,
        route: str,
        fields: Sequence[tuple[str, Any]],
        options: Mapping[str, str | None],
        parse: Callable[[dict[str, Any]], Answer],
    ) -> Answer:
        query = urllib.parse.urlencode({name: value for name, value in options.items() if value is not None})
        url = f"{self._url}/v1/{route}{'?' if query else ''}{query}"
        patience = _Patience.of(self._patience_s, self._patience_s if self._answered else self._reach_s)
        retries = _UntilDeadline.with_patience(patience)
        # Without patience there is one attempt, which takes the time that one may take.
        timeout = _UntilTimeout(self._timeout_s, patience) if self._patience_s > 0 else Timeout(self._timeout_s)
        if self._process != os.getpid():  # the parent's connections are still the parent's
            self._pool, self._process = self._new_pool(), os.getpid()
        try:
            answer = self._pool.request("POST", url, fields=fields, retries=retries, timeout=timeout, redirect=False)
            self._answered = True
        except MaxRetryError as error:
            raise ServerError(0, "not_reached", f"{self._url}: cannot be reached ({error.reason})") from None
        except HTTPError as error:
            raise ServerError(0, "not_reached", f"{self._url}: cannot be reached ({error})") from None
        if answer.status != 200:
            raise _refusal(self._url, answer)
        try:
            return parse(answer.json())
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _not_ours(self._url) from None


def _results(answer: dict[str, Any]) -> list[Reading | ImageError]:
    return [
        ImageError(result["error"]["code"], result["error"]["message"])
        if "error" in result
        else Reading.from_dict(result)
        for result in answer["results"]
    ]


@dataclass
class _Patience:
    """Until when one request is tried, by the clock of `time.monotonic`.

    Attributes:
        end: whatever happens.
        reach_end: as long as nothing has answered.
    """

    end: float
    reach_end: float

    @classmethod
    def of(cls, patience_s: float, reach_s: float) -> _Patience:
        now = time.monotonic()
        return cls(now + patience_s, now + reach_s)


class _UntilDeadline(Retry):
    """urllib3's retries, limited by time instead of by number."""

    patience: _Patience

    @classmethod
    def with_patience(cls, patience: _Patience) -> _UntilDeadline:
        retries = cls(
            total=None,
            other=0,  # e.g. a certificate: waiting does not mend it
            allowed_methods=None,
            status_forcelist=RETRIED,
            backoff_factor=0.05,
            backoff_jitter=0.1,
            backoff_max=5.0,
            raise_on_status=False,
        )
        retries.patience = patience
        return retries

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> _UntilDeadline:
        retries = super().increment(method, url, response, error, _pool, _stacktrace)
        retries.patience = self.patience
        if response:  # it shows that the server is there: from now on it is waited for
            self.patience.reach_end = self.patience.end
        wait = (response and retries.get_retry_after(response)) or retries.get_backoff_time()
        if isinstance(error, NameResolutionError) or time.monotonic() + wait > self.patience.reach_end:
            raise MaxRetryError(_pool, url, error)  # type: ignore[arg-type]  # as urllib3 itself does
        return retries

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        try:
            wait = super().get_retry_after(response)
        except (InvalidHeader, ValueError, OverflowError):  # neither seconds nor a date, or thousands of digits
            wait = None
        return wait + random.uniform(0.0, 0.1) if wait is not None else None


class _UntilTimeout(Timeout):
    """urllib3's timeouts of one attempt, none of which goes beyond the patience with all."""

    def __init__(self, timeout_s: float, patience: _Patience) -> None:
        now = time.monotonic()
        left, reach = max(patience.end - now, 0.001), max(patience.reach_end - now, 1.0)
        super().__init__(connect=min(timeout_s, reach, left), read=min(timeout_s, left), total=left)
        self._timeout_s, self._patience = timeout_s, patience

    def clone(self) -> Timeout:
        """urllib3 asks for one at each attempt."""
        return _UntilTimeout(self._timeout_s, self._patience)


def _content(image: str | Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str | Path):
        raise StrAppError(f"a {type(image).__name__} is not an image file: give a path, or the bytes of a file")
    return read_named_file(image)


def _content_or_error(image: str | Path | bytes) -> bytes | ImageError:
    try:
        return _content(image)
    except ImageError as error:
        return error


def _json_of(regions: Sequence[Any]) -> str:
    """A JSON array of regions, which may be arrays, and have numbers of any type."""
    listed = []
    for number, region in enumerate(regions, 1):
        try:
            listed.append(json.dumps(region, default=_plain))
        except (TypeError, ValueError, OverflowError, RecursionError):
            problem = "give 4 numbers, 8 numbers or 4 pairs of numbers"
            raise ImageError("bad_region", f"region {number} of {len(regions)}: {problem}") from None
    return f"[{', '.join(listed)}]"


def _plain(value: Any) -> Any:
    """Numbers and arrays that JSON does not know, as it knows them. Raises TypeError for anything else."""
    if isinstance(value, Real | Decimal):
        return float(value)
    if hasattr(value, "tolist"):  # as NumPy's and torch's have
        return value.tolist()
    raise TypeError


def _not_ours(url: str) -> ServerError:
    return ServerError(0, "no_answer", f"{url}: the answer is not that of a str-app server")


def _refusal(url: str, answer: BaseHTTPResponse) -> ServerError:
    try:
        problem = answer.json()
        return ServerError(answer.status, str(problem["code"]), f"{url}: {problem['detail']}")
    except (ValueError, KeyError, TypeError, RecursionError):
        status = f"{answer.status} {answer.reason or ''}".rstrip()
        return ServerError(answer.status, "unknown", f"{url}: HTTP {status}, not an answer of `str-app serve`")
