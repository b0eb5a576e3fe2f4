"""A client of `str-app serve`, on the standard library alone."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from str_app.errors import ImageError, StrAppError
from str_app.reading import Reading

# Too many requests, a balancer without a replica, a replica that is starting or stopping: all pass.
RETRIED = {429, 502, 503}
_GONE = (ConnectionError, http.client.HTTPException, TimeoutError)


class ServerError(StrAppError):
    """The server refused a request.

    Attributes:
        status: HTTP status; 0 if it could not be reached.
        code: the problem's stable word, e.g. `overloaded`.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Client:
    """Reads words through a server. Safe to share among threads.

    A request that is refused because the server is busy, or lost because it went away, is sent again: reading twice
    changes nothing. `Retry-After` is honoured; without it waits grow from 0.1 s, at random, so that clients who were
    refused together do not come back together.

    Args:
        url: of the server, e.g. `http://localhost:8000`.
        api_key: sent as a bearer token, where the server asks for keys.
        timeout_s: for one answer.
        patience_s: for all tries of one request together.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0, patience_s: float = 120.0
    ) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise StrAppError(f"{url}: not the address of a server: http://HOST:PORT")
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_s = timeout_s
        self._patience_s = patience_s

    def recognize(self, images: Sequence[Path | bytes], *, rotate: bool = False) -> list[Reading | ImageError]:
        """Read crops of words.

        Args:
            images: files, or their bytes; as many as the server takes at once.
            rotate: try each turned by 0, 90, 180 and 270 degrees.

        Returns:
            For each image in order its reading, or why it has none.

        Raises:
            ServerError: the request was refused, or the server stayed busy or away.
        """
        if not images:
            return []
        files = [("images", str(place), _bytes_of(image)) for place, image in enumerate(images)]
        return self._read("recognize", files, {}, rotate)

    def recognize_regions(
        self, photo: Path | bytes, regions: Sequence[Any], *, rotate: bool = False
    ) -> list[Reading | ImageError]:
        """Read the regions, boxes or quadrilaterals, of one photograph; see `Reader.recognize_regions`.

        Raises:
            ServerError: as `recognize`, or the photograph cannot be read.
        """
        return self._read(
            "regions", [("image", "photo", _bytes_of(photo))], {"regions": json.dumps(list(regions))}, rotate
        )

    def _read(
        self, route: str, files: list[tuple[str, str, bytes]], fields: dict[str, str], rotate: bool
    ) -> list[Reading | ImageError]:
        boundary = uuid.uuid4().hex
        url = f"{self._url}/v1/{route}{'?rotate=true' if rotate else ''}"
        headers = self._headers | {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        answer = self._post(urllib.request.Request(url, _multipart(files, fields, boundary), headers))
        try:
            return [
                ImageError(result["error"]["code"], result["error"]["message"])
                if "error" in result
                else Reading.from_dict(result)
                for result in json.loads(answer)["results"]
            ]
        except (ValueError, KeyError, TypeError):
            raise ServerError(0, "no_answer", f"{self._url}: what answers there is no str-app server") from None

    def _post(self, request: urllib.request.Request) -> bytes:
        """The answer's body, after as many tries as patience lasts."""
        give_up = time.monotonic() + self._patience_s
        pause = 0.1
        while True:
            wait = pause * random.uniform(0.5, 1.0)
            try:
                with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                    return bytes(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    problem = _problem_of(self._url, error)
                    told = error.headers.get("Retry-After", "")
                if problem.status not in RETRIED:
                    raise problem from None
                if told.isdecimal():
                    wait = int(told) + wait
            except (urllib.error.URLError, *_GONE) as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else error
                problem = ServerError(0, "not_reached", f"{self._url}: cannot be reached ({reason})")
                if not isinstance(reason, _GONE):  # no such host, no such certificate: waiting mends nothing
                    raise problem from None
            if time.monotonic() + wait > give_up:
                raise problem
            time.sleep(wait)
            pause = min(2 * pause, 5.0)


def _bytes_of(image: Path | bytes) -> bytes:
    return image if isinstance(image, bytes) else image.read_bytes()


def _multipart(files: list[tuple[str, str, bytes]], fields: dict[str, str], boundary: str) -> bytes:
    parts = []
    for name, value in fields.items():
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for name, filename, content in files:
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
        parts += [f"--{boundary}\r\n{disposition}\r\n\r\n".encode(), content, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


def _problem_of(url: str, error: urllib.error.HTTPError) -> ServerError:
    try:
        problem = json.load(error)
        return ServerError(error.code, str(problem["code"]), f"{url}: {problem['detail']}")
    except (ValueError, KeyError, TypeError, *_GONE):
        return ServerError(error.code, "unknown", f"{url}: HTTP {error.code} {error.reason}")
