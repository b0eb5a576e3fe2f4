"""The verb `convert`."""

from __future__ import annotations

from str_app.errors import StrAppError


def convert() -> None:
    """Not in this version yet.

    Example: str-app convert --help
    """
    raise StrAppError("`convert` is not in this version yet")
