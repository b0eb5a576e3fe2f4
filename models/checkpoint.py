"""Released weights: one safetensors file that carries all it takes to read with them. Nothing in it is executed."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from str_app.models.charset import Charset
from str_app.models.preprocessing import BEFORE_SPREAD, Preprocessing
from str_app.models.recognizer import RENAMED, Architecture, Recognizer

FORMAT = "str-app/1"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not one of ours."""


def save_checkpoint(path: str | Path, model: Recognizer, info: dict[str, Any] | None = None) -> None:
    """Write the model's weights, architecture, charset and preprocessing, replacing `path` in one step.

    Args:
        path: the file; a reader sees the old file or the new one, never half of one.
        model: its parameters and buffers are stored, in float32 unless they are something else.
        info: anything JSON that belongs to the weights: `name`, `temperature` (of the calibrated softmax, default 1),
            `training`, `metrics`.
    """
    path = Path(path)
    header = {
        "format": FORMAT,
        "architecture": dataclasses.asdict(model.architecture),
        "charset": model.charset.characters,
        "preprocessing": dataclasses.asdict(model.preprocessing),
        "info": info or {},
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    data = safetensors.torch.save(tensors, metadata={"str_app": json.dumps(header)})
    replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to the disk, and rename it over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes it private
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_header(path: str | Path) -> dict[str, Any]:
    """Everything but the weights: `architecture`, `charset`, `preprocessing`, `info`.

    Raises:
        CheckpointError: no such file, damaged, or not written by `save_checkpoint`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except Exception as error:  # safetensors raises its own kinds for each way a file can be broken
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); copy or train it again") from error
    try:
        header: dict[str, Any] = json.loads(metadata["str_app"])
    except (KeyError, json.JSONDecodeError):
        raise CheckpointError(
            f"{path}: a safetensors file, but no str-app checkpoint (its metadata lacks 'str_app')"
        ) from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {header.get('format')!r}, this version reads {FORMAT!r}")
    return header


def load_checkpoint(path: str | Path) -> tuple[Recognizer, dict[str, Any]]:
    """The model in evaluation mode, on the CPU, and the `info` it was saved with.

    Raises:
        CheckpointError: as `read_header`, or the weights do not fit the architecture they claim.
    """
    header = read_header(path)
    try:
        preprocessing = BEFORE_SPREAD | {key: _tuples(value) for key, value in header["preprocessing"].items()}
        model = Recognizer(
            Architecture(**{RENAMED.get(key, key): _tuples(value) for key, value in header["architecture"].items()}),
            Charset(header["charset"]),
            Preprocessing(**preprocessing),
        )
        model.load_state_dict(safetensors.torch.load_file(path))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        # load_state_dict lists every tensor that does not fit: the first lines tell enough.
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise CheckpointError(f"{path}: weights and description do not fit together: {reason}") from error
    return model.eval(), header["info"]


def _tuples(value: Any) -> Any:
    """JSON has lists where the dataclass has tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
