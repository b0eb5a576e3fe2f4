"""Converters by the name of their layout; `conversion.convert` writes their records to an LMDB.

`docs/how-to/extending.md` says how to add one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from str_app.datasets.converters.record import Records

# Layout → module of this package and function. Names only, so that the command line lists them without importing any.
CONVERTERS = {
    "folder": "labelled_folder.read",
    "iiit5k": "iiit5k.read",
    "svt": "svt.read",
    "ic13": "icdar.read",
    "ic15": "icdar.read",
    "svtp": "svtp_cute80.read_svtp",
    "cute80": "svtp_cute80.read_cute80",
    "mjsynth": "mjsynth.read",
    "synthtext": "synthtext.read",
}


def load_converter(layout: str) -> Callable[[Path, str | None], Records]:
    """The function `read(source, split)` of a layout in `CONVERTERS`."""
    module, _, function = CONVERTERS[layout].partition(".")
    read: Callable[[Path, str | None], Records] = getattr(import_module(f"{__name__}.{module}"), function)
    return read
