"""Errors that the command line reports in one line, with exit code 1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class StrAppError(Exception):
    """An error that the user can fix. The message names what is wrong, where, and what to do."""


class ImageError(StrAppError):
    """An image that cannot be used.

    Attributes:
        code: short, stable name of the reason for scripts and HTTP clients, e.g. `truncated`.
        message: a sentence that begins with the image's name, if it has one.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def as_dict(self) -> dict[str, str]:
        """As in JSON answers and rows."""
        return {"code": self.code, "message": self.message}

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        # Exception's own __reduce__ passes only the message, which breaks pickling to another process.
        return type(self), (self.code, self.message)


@contextmanager
def writing(path: object, advice: str = "") -> Iterator[None]:
    """Turn an OSError while writing `path`, such as a full disk, into a StrAppError that names it; `advice` follows."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StrAppError(f"{path}: cannot be written: {reason}{advice}") from error
