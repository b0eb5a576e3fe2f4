"""Readers of the layouts data sets come in, by kind; `conversion.convert` writes what they yield to an LMDB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from str_app.datasets.converters import icdar, iiit5k, labelled_folder, mjsynth, svt, svtp_cute80, synthtext
from str_app.datasets.converters.record import Reading

READERS: dict[str, Callable[[Path, str | None], Reading]] = {
    "folder": labelled_folder.read,
    "iiit5k": iiit5k.read,
    "svt": svt.read,
    "ic13": icdar.read,
    "ic15": icdar.read,
    "svtp": svtp_cute80.read_svtp,
    "cute80": svtp_cute80.read_cute80,
    "mjsynth": mjsynth.read,
    "synthtext": synthtext.read,
}
