"""API keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from str_app.errors import StrAppError
from str_app.serve.errors import ProblemError
from str_app.serve.http.problems import problem_response

# Load balancers and kubelets have no keys.
PUBLIC_PATHS = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def read_keys(path: Path) -> list[tuple[str, bytes]]:
    """Read names and SHA-256 digests of keys from a file with lines `NAME DIGEST`; `#` begins a comment.

    The file holds digests only, so a leaked copy grants no access. They are unsalted: keys must be random, as from
    `openssl rand -hex 32`, not words.

    Raises:
        StrAppError: the file cannot be read, has a malformed line, or has no key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StrAppError(f"api_keys_file {path}: cannot be read ({error})") from None
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not _HEX_DIGEST.fullmatch(words[1]):
            raise StrAppError(
                f"{path} line {number}: expected a name and the SHA-256 of a key (printf %s KEY | sha256sum)"
            )
        keys.append((words[0], bytes.fromhex(words[1])))
    if not keys:
        raise StrAppError(f"api_keys_file {path}: it has no key, so every request would be refused")
    return keys


class Access:
    """ASGI middleware: 401 for every request without a valid key, on all paths but health and readiness.

    A key is sent as `Authorization: Bearer KEY`, as `X-API-Key: KEY`, or as the password of HTTP basic authentication,
    for which browsers prompt. The scope, and so the log, gets the name of the key, never the key.
    """

    def __init__(self, app: ASGIApp, keys: list[tuple[str, bytes]]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # `scope["path"]` is what the router sees; `request.url` depends on the Host header, which the client controls.
        if scope["type"] != "http" or scope["path"] in PUBLIC_PATHS:
            await self._app(scope, receive, send)
            return
        if names := self._names_of(_key_of(Headers(scope=scope))):
            scope["str_app.key"] = names[0]
            await self._app(scope, receive, send)
            return
        problem = ProblemError(401, "unauthorized", "Send an API key of this server as 'Authorization: Bearer KEY'.")
        response = problem_response(problem, scope)
        # One header each: Chromium reads the first of a list only, and would not prompt.
        for scheme in ("Bearer", "Basic"):
            response.headers.append("WWW-Authenticate", f'{scheme} realm="str-app"')
        await response(scope, receive, send)

    def _names_of(self, key: bytes) -> list[str]:
        given = hashlib.sha256(key).digest()
        # Every digest is compared, each in constant time.
        return [name for name, digest in self._keys if hmac.compare_digest(given, digest)]


def _key_of(headers: Headers) -> bytes:
    """The key that was sent, without blanks around it; empty if there is none.

    `Authorization` beside an `X-API-Key` may be meant for a gateway before this server.
    """
    if "x-api-key" in headers:
        return headers["x-api-key"].encode("latin-1").strip()
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        key = value.encode("latin-1")
    elif scheme.lower() == "basic":
        try:
            key = base64.b64decode(value).partition(b":")[2]
        except ValueError:
            return b""
    else:
        return b""
    return key.strip()
