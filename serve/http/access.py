"""API keys: who may use the server at all."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from str_app.errors import StrAppError
from str_app.serve.http.problems import ProblemError, problem_response

# Balancers and kubelets have no keys.
OPEN = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def read_keys(path: Path) -> list[bytes]:
    """SHA-256 digests of the keys in a file with lines `NAME DIGEST`; `#` begins a comment.

    Only digests are kept, so that a copy of the file opens nothing. They are unsalted: keys must be random, as
    `openssl rand -hex 32` makes them, and not words.

    Raises:
        StrAppError: the file cannot be read, a line is something else, or there is no key in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StrAppError(f"api_keys_file {path}: cannot be read ({error})") from None
    digests = []
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not _HEX_DIGEST.fullmatch(words[1]):
            raise StrAppError(
                f"{path} line {number}: not a name and the SHA-256 of a key: printf %s KEY | sha256sum gives it"
            )
        digests.append(bytes.fromhex(words[1]))
    if not digests:
        raise StrAppError(f"api_keys_file {path}: no key in it, so that nobody could be served")
    return digests


class Access:
    """ASGI middleware: 401 unless the request has one of the keys, whatever its path, health and readiness apart.

    A key comes as `Authorization: Bearer KEY`, as `X-API-Key: KEY`, or as the password of HTTP basic authentication,
    which lets a browser ask for it.
    """

    def __init__(self, app: ASGIApp, digests: list[bytes]) -> None:
        self._app = app
        self._digests = digests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The scope's path is the one that is routed by; what a URL made of the Host header says is the client's.
        if scope["type"] != "http" or scope["path"] in OPEN or self._known(_key_of(Headers(scope=scope))):
            await self._app(scope, receive, send)
            return
        problem = ProblemError(401, "unauthorized", "Send a key of this server as 'Authorization: Bearer KEY'.")
        answer = problem_response(problem, scope)
        for scheme in ("Bearer", "Basic"):  # a line each: Chromium knows the first of a line alone, and would not ask
            answer.headers.append("WWW-Authenticate", f'{scheme} realm="str-app"')
        await answer(scope, receive, send)

    def _known(self, key: bytes) -> bool:
        given = hashlib.sha256(key).digest()
        # All are compared, each in constant time.
        return sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0


def _key_of(headers: Headers) -> bytes:
    """The key as it was sent; empty if there is none."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).partition(b":")[2]
        except ValueError:
            return b""
    return headers.get("x-api-key", "").encode("latin-1")
