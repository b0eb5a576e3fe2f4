"""Errors that the command line turns into one clear line and exit code 1."""

from __future__ import annotations


class StrAppError(Exception):
    """Something the person at the keyboard can put right; the message names the thing, the place and the way out."""


class ImageError(StrAppError):
    """An image that cannot be read.

    Attributes:
        code: short stable name of the reason, for scripts and HTTP clients, e.g. `truncated`.
        message: the sentence for people, beginning with the image's name where it has one.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        # Exception's own reduce passes the message alone, so the error could not cross a process boundary.
        return type(self), (self.code, self.message)
