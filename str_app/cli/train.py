"""The verb `train`."""

from __future__ import annotations

from str_app.errors import StrAppError


def train() -> None:
    """Not in this version yet.

    Example: str-app train --help
    """
    raise StrAppError("`train` is not in this version yet")
