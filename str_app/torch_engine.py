"""The engine that runs on PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.attention import Memory
from models.backbone import fold_batch_norms
from models.checkpoint import load_checkpoint
from models.presets import list_models, weights_path
from models.recognizer import Recognizer
from str_app.engine import Step
from str_app.errors import StrAppError


class TorchEngine:
    """A `Recognizer` behind the boundary of `str_app.engine.Engine`.

    Args:
        model: copied, so training can go on while the engine reads.
        info: a checkpoint's `info`; its `temperature` divides the logits.
        device: where to run.
    """

    def __init__(
        self, model: Recognizer, info: dict[str, Any] | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.info = info or {}
        self.name = str(self.info.get("name", "unnamed"))
        self.charset = model.charset
        self.preprocessing = model.preprocessing
        self.max_length = model.architecture.max_length
        self.device = torch.device(device)
        folded = fold_batch_norms(model)
        assert isinstance(folded, Recognizer)
        self._model = folded.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._temperature = float(self.info.get("temperature", 1.0))

    @torch.inference_mode()
    def encode(
        self, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64]
    ) -> tuple[Memory, tuple[torch.Tensor, torch.Tensor]]:
        """See `Engine.encode`."""
        images = self._model.normalize(torch.from_numpy(canvases).to(self.device))
        return self._model.encode(images, torch.from_numpy(widths).to(self.device))

    @torch.inference_mode()
    def step(self, memory: Memory, state: tuple[torch.Tensor, torch.Tensor], tokens: npt.NDArray[np.int64]) -> Step:
        """See `Engine.step`."""
        logits, state, attention = self._model.step(memory, state, torch.from_numpy(tokens).to(self.device))
        log_probs = (logits / self._temperature).log_softmax(dim=-1)
        return Step(log_probs.cpu().numpy(), state, attention.view(len(tokens), self._model.grid[0], -1).cpu().numpy())

    @torch.inference_mode()
    def select(
        self, memory: Memory, state: tuple[torch.Tensor, torch.Tensor], rows: npt.NDArray[np.int64]
    ) -> tuple[Memory, tuple[torch.Tensor, torch.Tensor]]:
        """See `Engine.select`."""
        index = torch.from_numpy(rows).to(self.device)
        return Memory(*(tensor[index] for tensor in memory)), (state[0][index], state[1][index])

    def use_threads(self, count: int) -> None:
        """See `Engine.use_threads`. OpenMP's and MKL's numbers of threads are the calling thread's own."""
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)


def load_engine(model: str | Path, device: str = "cpu", threads: int | None = None) -> TorchEngine:
    """An engine for a preset with released weights, or for a checkpoint file.

    Args:
        model: a name of `list_models()` or the path of a `.safetensors` checkpoint.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, …
        threads: torch's intra-op threads, a setting of the whole process; None leaves it alone.

    Raises:
        StrAppError: no such model, a preset without released weights, or a device that is not there.
        CheckpointError: the file cannot be used.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise StrAppError(f"device {device!r}: torch {torch.__version__} sees no CUDA device here; use --device cpu")
    path = checkpoint_file(model)
    network, info = load_checkpoint(path)
    return TorchEngine(network, {"name": path.stem, **info}, device)


def checkpoint_file(model: str | Path) -> Path:
    """The weights that a name of `list_models()` or a path means.

    Raises:
        StrAppError: no such model, or a preset without released weights.
    """
    name = str(model)
    if name in list_models():
        path = weights_path(name)
        if not path.is_file():
            raise StrAppError(
                f"model {name!r} has no released weights yet: train it with `str-app train --preset {name} …` "
                "and pass the checkpoint's path"
            )
        return path
    if not Path(model).is_file():
        raise StrAppError(f"model {name!r} is neither one of {', '.join(list_models())} nor a checkpoint file")
    return Path(model)
