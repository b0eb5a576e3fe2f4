"""The verb `synth`."""

from __future__ import annotations

from str_app.errors import StrAppError


def synth() -> None:
    """Not in this version yet.

    Example: str-app synth --help
    """
    raise StrAppError("`synth` is not in this version yet")
