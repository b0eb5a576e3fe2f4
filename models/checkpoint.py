"""Checkpoints: one safetensors file with the weights and all else that reading needs. Nothing in it is executed."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing
from str_app.models.stored_config import checked_info, current_architecture, current_preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from str_app.models.recognizer import Recognizer

FORMAT = "str-app/1"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not written by `save_checkpoint`."""


def save_checkpoint(
    path: str | Path, model: Recognizer, info: dict[str, Any] | None = None, *, half: bool = False
) -> None:
    """Write the model's weights, architecture, charset and preprocessing, replacing `path` atomically.

    Args:
        path: the file. Readers see the old content or the new, never a part.
        model: its parameters and buffers are stored in the data types they have.
        info: further facts about the weights, as JSON values: `name`, `temperature` (of the calibrated softmax, 1 if
            absent), `training`, `metrics`.
        half: store filters and matrices in float16, which halves the file. They are loaded as float32.
    """
    header = {
        "format": FORMAT,
        "architecture": dataclasses.asdict(model.architecture),
        "charset": model.charset.characters,
        "preprocessing": dataclasses.asdict(model.preprocessing),
        "info": info or {},
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if half:
        # Biases and batch norm statistics are small, and variances may lie outside the range of float16.
        tensors = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in tensors.items()}
    _write(Path(path), header, tensors)


def replace_info(path: str | Path, info: dict[str, Any]) -> None:
    """Give a checkpoint another `info` (see `save_checkpoint`); its weights stay as they are stored.

    Raises:
        CheckpointError: as `read_header`.
    """
    import safetensors.torch

    header = read_header(path)
    _write(Path(path), header | {"info": info}, safetensors.torch.load_file(path))


def _write(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    import safetensors.torch

    replace_file(path, safetensors.torch.save(tensors, metadata={"str_app": json.dumps(header)}))


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, flush it to disk and rename it to `path`.

    A file that is there keeps its permissions; a new one has those that the umask allows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_header(path: str | Path) -> dict[str, Any]:
    """Everything except the weights: `architecture`, `charset`, `preprocessing`, `info`, with today's names.

    Raises:
        CheckpointError: no such file, damaged, or not written by `save_checkpoint`.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if path.suffix == ".pt":
        raise CheckpointError(f"{path}: the state of a training run, not a model; give best.safetensors of its folder")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except Exception as error:  # safetensors raises various types
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); copy or train it again") from error
    try:
        header: dict[str, Any] = json.loads(metadata["str_app"])
    except (KeyError, json.JSONDecodeError):
        raise CheckpointError(
            f"{path}: a safetensors file, but no str-app checkpoint (its metadata lacks 'str_app')"
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: 'str_app' in its metadata is not a JSON object; copy or train it again")
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {header.get('format')!r}, this version reads {FORMAT!r}")
    for section, current in (("architecture", current_architecture), ("preprocessing", current_preprocessing)):
        if isinstance(header.get(section), dict):
            header[section] = current(header[section])
    try:
        checked_info(header.get("info"))
    except ValueError as error:
        raise CheckpointError(f"{path}: 'info' in its metadata: {error}; copy or train it again") from None
    return header


def load_checkpoint(path: str | Path) -> tuple[Recognizer, dict[str, Any]]:
    """The model in evaluation mode on the CPU, and the `info` it was saved with.

    Raises:
        CheckpointError: as `read_header`, or the weights do not fit the stored architecture.
    """
    import safetensors.torch

    from str_app.models.recognizer import Recognizer, RecognizerConfig

    header = read_header(path)
    try:
        model = Recognizer(
            RecognizerConfig.from_dict(header["architecture"]),
            Charset(header["charset"]),
            Preprocessing.from_dict(header["preprocessing"]),
        )
        model.load_state_dict(safetensors.torch.load_file(path))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        # load_state_dict lists every tensor that does not fit; the first lines suffice.
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise CheckpointError(f"{path}: weights and description do not fit together: {reason}") from error
    return model.eval(), header["info"]
