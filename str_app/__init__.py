"""Scene-text recognition with refined-gate LSTM attention decoders.

`from str_app import Reader, RefinedLSTM` is the public Python interface; names are imported on first use so that
`import str_app` costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from str_app.errors import ImageError as ImageError
    from str_app.errors import StrAppError as StrAppError
    from str_app.inputs.images import ImageLimits as ImageLimits
    from str_app.inputs.images import load_image as load_image
    from str_app.models.gates.cells import RefinedGRUCell as RefinedGRUCell
    from str_app.models.gates.cells import RefinedLSTMCell as RefinedLSTMCell
    from str_app.models.gates.cells import RefinedMGUCell as RefinedMGUCell
    from str_app.models.gates.layers import RefinedGRU as RefinedGRU
    from str_app.models.gates.layers import RefinedLSTM as RefinedLSTM
    from str_app.models.gates.layers import RefinedMGU as RefinedMGU
    from str_app.photos.photo_reader import PhotoReader as PhotoReader
    from str_app.reader import Reader as Reader
    from str_app.reading import Character as Character
    from str_app.reading import Reading as Reading

__version__ = "0.1.0"

# ONNX Runtime (since 1.29) reports processes and models to Microsoft and keeps a database in the home folder, unless
# this is set before its first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "str_app.errors": ("ImageError", "StrAppError"),
    "str_app.inputs.images": ("ImageLimits", "load_image"),
    "str_app.models.gates.cells": ("RefinedGRUCell", "RefinedLSTMCell", "RefinedMGUCell"),
    "str_app.models.gates.layers": ("RefinedGRU", "RefinedLSTM", "RefinedMGU"),
    "str_app.photos.photo_reader": ("PhotoReader",),
    "str_app.reader": ("Reader",),
    "str_app.reading": ("Character", "Reading"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
_NEEDS_TORCH = ("str_app.models.gates.cells", "str_app.models.gates.layers")
# `from str_app import *` works without torch, which only some of the names need.
_HAS_TORCH = sys.modules.get("torch") is not None or importlib.util.find_spec("torch") is not None
__all__ = [name for name in _HOMES if _HAS_TORCH or _HOMES[name] not in _NEEDS_TORCH]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'str_app' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(f"{name} needs torch: pip install 'str-app[torch]'", name=error.name) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
