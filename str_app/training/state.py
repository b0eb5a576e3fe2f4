"""All that a run needs to go on where it stopped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from str_app.errors import StrAppError
from str_app.models.checkpoint import replace_file


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and their containers, replacing `path` in one step."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    replace_file(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote; nothing in the file is executed.

    Raises:
        StrAppError: missing or damaged.
    """
    if not path.is_file():
        raise StrAppError(f"{path}: not there, so there is no run to resume; leave out --resume to start one")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a broken file
        raise StrAppError(f"{path}: damaged training state ({error}); start again from best.safetensors") from error
    return state
