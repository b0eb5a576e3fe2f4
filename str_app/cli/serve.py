"""The verb `serve`."""

from __future__ import annotations

from str_app.errors import StrAppError


def serve() -> None:
    """Not in this version yet.

    Example: str-app serve --help
    """
    raise StrAppError("`serve` is not in this version yet")
