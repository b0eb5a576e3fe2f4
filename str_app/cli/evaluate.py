"""The verb `evaluate`."""

from __future__ import annotations

from str_app.errors import StrAppError


def evaluate() -> None:
    """Not in this version yet.

    Example: str-app evaluate --help
    """
    raise StrAppError("`evaluate` is not in this version yet")
