"""The verb `models`."""

from __future__ import annotations

from str_app.errors import StrAppError


def models() -> None:
    """Not in this version yet.

    Example: str-app models --help
    """
    raise StrAppError("`models` is not in this version yet")
