"""The error that becomes the answer to a request."""

from __future__ import annotations

from collections.abc import Mapping


class ProblemError(Exception):
    """An error that becomes the answer to a request.

    Args:
        status: HTTP status.
        code: stable snake_case identifier for programs; also the `reason` label of the rejection counter.
        detail: one sentence for people: what is wrong, where, and how to fix it.
        headers: extra response headers.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
