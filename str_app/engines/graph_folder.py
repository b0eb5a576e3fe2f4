"""The folder that `str-app export` writes: file names, format, and where it is looked for. Imports no runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

from str_app.errors import StrAppError
from str_app.models.presets import list_models, weights_path

FORMAT = "str-app-onnx/1"
METADATA_KEY = "str_app"  # in each graph's metadata: JSON with what the engine needs to know of the model
ENCODER, STEP, GREEDY = "encoder.onnx", "step.onnx", "greedy.onnx"
MEMORY = ("values", "keys", "padding")  # outputs of the encoder, inputs of each step; see `models.decoders.base.Memory`
STATE = ("hidden", "cell")
SUFFIX = ".onnx"


class GraphError(StrAppError):
    """A folder of graphs that is missing, damaged, or not written by `str-app export`."""


def weights_file(model: str | Path) -> Path:
    """The checkpoint that a name of `list_models()` or a path means, whether it is there or not."""
    return weights_path(str(model)) if str(model) in list_models() else Path(model)


def lasting_name(model: str | Path) -> str:
    """A name of `list_models()` as it is, and a path from the root on: what another process can load as well."""
    return str(model) if str(model) in list_models() else str(Path(model).absolute())


def sha256_of(file: Path) -> str:
    """By which graphs know the checkpoint that they were exported from."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def graph_folder(model: str | Path) -> Path:
    """Where graphs of a model are looked for: `SUFFIX` beside its weights; a path that is a folder is that itself."""
    path = weights_file(model)
    return path if path.is_dir() else path.with_suffix(SUFFIX)


def has_graphs(folder: Path) -> bool:
    """Whether it looks like an export; whether it can be read, only loading tells."""
    return (folder / ENCODER).is_file()


def folder_bytes(folder: Path) -> int:
    """Size of an export."""
    return sum(file.stat().st_size for file in folder.iterdir())
