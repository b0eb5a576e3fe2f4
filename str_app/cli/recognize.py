"""The verb `recognize`."""

from __future__ import annotations

from str_app.errors import StrAppError


def recognize() -> None:
    """Not in this version yet.

    Example: str-app recognize --help
    """
    raise StrAppError("`recognize` is not in this version yet")
