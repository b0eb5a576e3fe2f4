"""The engine that runs on PyTorch."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from str_app.engines.base import GreedySteps, Step
from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.charset import Charset
from str_app.models.decoders.base import Memory
from str_app.models.kernels.convolution import uses_compiled
from str_app.models.recognizer import Recognizer

logger = logging.getLogger(__name__)

if hasattr(os, "register_at_fork"):
    # OpenMP's threads do not exist in a forked child, which would wait for them for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class TorchEngine:
    """A `Recognizer` behind the boundary of `str_app.engines.base.Engine`.

    Args:
        model: copied, so training can go on while the engine reads.
        info: a checkpoint's metadata.
        device: where to run.
        precision: of the backbone; see `str_app.engines.load.make_engine` for a choice by the processor. In bfloat16
            confidences differ by a thousandth in the mean, and do not depend on what is in the batch either.
    """

    caches_shapes = True  # oneDNN's kernels and memory

    def __init__(
        self,
        model: Recognizer,
        info: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        *,
        precision: Literal["bf16", "fp32"] = "fp32",
    ) -> None:
        self.info: Mapping[str, Any] = info or {}
        self.name = str(self.info.get("name", "unnamed"))
        self.charset = model.charset
        self.preprocessing = model.preprocessing
        self.max_length = model.architecture.max_length
        self.device = torch.device(device)
        self.precision = precision
        folded = fold_batch_norms(model)
        assert isinstance(folded, Recognizer)
        folded = folded.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if precision == "bf16":
            folded.backbone.to(torch.bfloat16)
        self._map_rows = folded.grid[0]
        self._model = folded
        convolutions = "compiled" if uses_compiled(folded) else "torch's"
        logger.info("%s computes in %s on %s; convolutions: %s", self.name, precision, self.device, convolutions)

    @torch.inference_mode()
    def encode(
        self, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64]
    ) -> tuple[Memory, tuple[Tensor, Tensor]]:
        """See `Engine.encode`."""
        return self._model.encode(self._model.normalize(self._tensor(canvases)), self._tensor(widths))

    @torch.inference_mode()
    def step(
        self,
        memory: Memory,
        state: tuple[Tensor, Tensor],
        tokens: npt.NDArray[np.int64],
        crops: npt.NDArray[np.int64],
        parents: npt.NDArray[np.int64],
    ) -> Step:
        """See `Engine.step`."""
        rows, prefixes = self._tensor(crops), self._tensor(parents)
        # Not values[rows], which takes six times as long.
        memory = Memory(*(tensor.index_select(0, rows) for tensor in memory))
        hidden, cell = (tensor.index_select(0, prefixes) for tensor in state)
        logits, state, attention = self._model.step(memory, (hidden, cell), self._tensor(tokens))
        return Step(logits.cpu().numpy(), state, self._maps(attention))

    @torch.inference_mode()
    def decode_greedy(self, memory: Memory, state: tuple[Tensor, Tensor]) -> GreedySteps:
        """See `Engine.decode_greedy`."""
        tokens = torch.zeros(len(memory.values), dtype=torch.int64, device=self.device)
        ended = torch.zeros_like(tokens, dtype=torch.bool)
        all_logits: list[Tensor] = []
        all_attention: list[Tensor] = []
        while len(all_logits) <= self.max_length and not bool(ended.all()):
            logits, state, attention = self._model.step(memory, state, tokens)
            tokens = logits.argmax(dim=1)
            ended |= tokens == Charset.END
            all_logits.append(logits)
            all_attention.append(attention)
        maps = self._maps(torch.stack(all_attention, dim=1))
        return GreedySteps(torch.stack(all_logits, dim=1).cpu().numpy(), maps)

    def use_threads(self, count: int) -> None:
        """See `Engine.use_threads`. The numbers of threads of OpenMP and MKL belong to the calling thread."""
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _maps(self, attention: Tensor) -> npt.NDArray[np.float32]:
        """(..., N) → (..., H', W')."""
        maps: npt.NDArray[np.float32] = attention.unflatten(-1, (self._map_rows, -1)).cpu().numpy()
        return maps
