"""The engine that runs on PyTorch."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from str_app.engines.base import GreedySteps, Step
from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.decoders.base import Memory
from str_app.models.kernels.convolution import uses_compiled
from str_app.models.recognizer import Recognizer

logger = logging.getLogger(__name__)
Pass = Callable[..., tuple[Tensor, ...]]


class _Passes(NamedTuple):
    """The computations of an engine: see `_Encode`, `_SelectAndStep` and `_GreedyLoop`."""

    encode: Pass
    step: Pass
    decode_greedy: Pass


# Graphs of an architecture on a device, which take the weights as their first input; the encoder may have none.
_GRAPHS: dict[Hashable, tuple[Pass | None, Pass, Pass]] = {}


class TorchEngine:
    """A `Recognizer` behind the boundary of `str_app.engines.base.Engine`.

    Args:
        model: copied, so training can go on while the engine reads.
        info: a checkpoint's metadata.
        device: where to run.
        traced: run each computation as one graph that holds no Python lock between its operations: a tenth faster in a
            server. Takes a second to build; the readings are the same. Where the encoder uses compiled convolutions
            (`models.kernels`), which save more than a graph does, it is not traced and takes the lock between its
            layers.
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
        traced: bool = False,
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
        self._encode = _Encode(folded)
        self._step = _Step(folded).to(self.device)
        self._compiled = uses_compiled(folded)
        self._passes = self._traced() if traced else self._untraced()
        convolutions = "compiled" if self._compiled else "torch's"
        logger.info("%s computes in %s on %s; convolutions: %s", self.name, precision, self.device, convolutions)

    @torch.inference_mode()
    def encode(
        self, canvases: npt.NDArray[np.uint8], widths: npt.NDArray[np.int64]
    ) -> tuple[Memory, tuple[Tensor, Tensor]]:
        """See `Engine.encode`."""
        *memory, hidden, cell = self._passes.encode(self._tensor(canvases), self._tensor(widths))
        return Memory(*memory), (hidden, cell)

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
        rows = (self._tensor(tokens), self._tensor(crops), self._tensor(parents))
        logits, hidden, cell, attention = self._passes.step(*memory, *state, *rows)
        maps = attention.view(len(tokens), self._map_rows, -1)
        return Step(logits.cpu().numpy(), (hidden, cell), maps.cpu().numpy())

    @torch.inference_mode()
    def decode_greedy(self, memory: Memory, state: tuple[Tensor, Tensor]) -> GreedySteps:
        """See `Engine.decode_greedy`."""
        logits, attention = self._passes.decode_greedy(*memory, *state, self.max_length)
        maps = attention.view(*attention.shape[:2], self._map_rows, -1)
        return GreedySteps(logits.cpu().numpy(), maps.cpu().numpy())

    def use_threads(self, count: int) -> None:
        """See `Engine.use_threads`. The numbers of threads of OpenMP and MKL belong to the calling thread."""
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _untraced(self) -> _Passes:
        def step(_: list[Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
            outputs: tuple[Tensor, ...] = self._step(*inputs)
            return outputs

        return _Passes(self._encode, partial(_SelectAndStep(step), []), partial(_GreedyLoop(step), []))

    @torch.inference_mode()
    def _traced(self) -> _Passes:
        """The computations as graphs, if these give the same on noise of every canvas width; else without graphs.

        A layer that leaves torch on its way (as the compiled loops do) would be traced as a constant.
        """
        untraced = self._untraced()
        graphs: _Passes | None = None
        try:
            for batch, width in enumerate(self.preprocessing.widths, 2):
                inputs = self._noise(batch, width)
                encoded = self._encode(*inputs)
                tokens = torch.ones(batch, dtype=torch.int64, device=self.device)
                graphs = graphs or self._graphs(inputs, (*encoded, tokens))
                step_inputs = (*encoded, tokens, *[torch.arange(batch, device=self.device).flip(0)] * 2)
                by_graph = encoded if graphs.encode is self._encode else graphs.encode(*inputs)
                outputs = (*by_graph, *graphs.step(*step_inputs))
                for output, expected in zip(outputs, (*encoded, *untraced.step(*step_inputs)), strict=True):
                    if not torch.allclose(output, expected, rtol=1e-3, atol=1e-4):
                        raise RuntimeError("the graph computes something else")
        except RuntimeError as error:  # which TorchScript raises too
            logger.warning("%s is not traced, so other threads wait for its operations: %s", self.name, error)
            graphs = None
        return graphs or untraced

    def _graphs(self, encode_inputs: tuple[Tensor, ...], step_inputs: tuple[Tensor, ...]) -> _Passes:
        """Graphs traced with these inputs, or those of this architecture that exist already.

        A traced encoder would use torch's convolutions: with compiled ones it is left as it is.
        """
        weights = [[*module.parameters(), *module.buffers()] for module in (self._encode, self._step)]
        sizes = (self._encode.model.architecture, self.preprocessing, self.charset.num_classes)
        key = (*sizes, self.device, self.precision, self._compiled)
        if key not in _GRAPHS:
            with warnings.catch_warnings():
                # TorchScript is no longer developed. What torch offers instead needs a compiler where it runs, or
                # keeps the lock; without either only this works.
                warnings.simplefilter("ignore")
                step = _graph(self._step, weights[1], step_inputs)
                _GRAPHS[key] = (
                    None if self._compiled else _graph(self._encode, weights[0], encode_inputs),
                    torch.jit.script(_SelectAndStep(step)),
                    torch.jit.script(_GreedyLoop(step)),  # a loop, which tracing would unroll
                )
        encode, select_and_step, greedy_loop = _GRAPHS[key]
        return _Passes(
            partial(encode, weights[0]) if encode else self._encode,
            partial(select_and_step, weights[1]),
            partial(greedy_loop, weights[1]),
        )

    def _noise(self, batch: int, width: int) -> tuple[Tensor, Tensor]:
        """Canvases and their covered columns."""
        random = np.random.default_rng(0)
        canvases = random.integers(0, 256, (batch, self.preprocessing.height, width, 3), dtype=np.uint8)
        return self._tensor(canvases), self._tensor(random.integers(width // 2, width + 1, batch))


def _graph(module: nn.Module, weights: list[Tensor], inputs: tuple[Tensor, ...]) -> Pass:
    """The module as a graph that takes its weights as inputs, and so serves all weights of one architecture.

    TorchScript keeps each graph, with what is in it, until the process ends: weights must not be in it.
    """
    names = [*dict(module.named_parameters()), *dict(module.named_buffers())]
    template = copy.deepcopy(module)

    def call(weights: list[Tensor], *inputs: Tensor) -> Any:
        for name, weight in zip(names, weights, strict=True):
            owner_name, _, own_name = name.rpartition(".")
            owner = template.get_submodule(owner_name)
            delattr(owner, own_name)  # a parameter, which only parameters could replace
            setattr(owner, own_name, weight)
        return template(*inputs)

    graph: Pass = torch.jit.trace(call, (weights, *inputs), check_trace=False)
    return graph


class _Encode(nn.Module):
    """Canvases uint8 (B, height, W, 3) and covered columns (B,) → memory and first state, in one tuple."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, canvases: Tensor, widths: Tensor) -> tuple[Tensor, ...]:
        memory, state = self.model.encode(self.model.normalize(canvases), widths)
        return (*memory, *state)


class _Step(nn.Module):
    """Memory, state and tokens → logits (B, num_classes), state, attention (B, N)."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, values: Tensor, keys: Tensor, padding: Tensor, hidden: Tensor, cell: Tensor, tokens: Tensor
    ) -> tuple[Tensor, ...]:
        logits, state, attention = self.model.step(Memory(values, keys, padding), (hidden, cell), tokens)
        return (logits, *state, attention)


class _CallsStep(nn.Module):
    """What calls `_Step`. TorchScript compiles its source, so that nothing in it takes Python's lock.

    Args:
        step: called with the weights and the inputs of `_Step`.
    """

    def __init__(self, step: Pass) -> None:
        super().__init__()
        self.step = step


class _SelectAndStep(_CallsStep):
    """One step of prefixes (R,), each of one crop (`crops`) and continuing one row of the state (`parents`)."""

    def forward(
        self,
        weights: list[Tensor],
        values: Tensor,
        keys: Tensor,
        padding: Tensor,
        hidden: Tensor,
        cell: Tensor,
        tokens: Tensor,
        crops: Tensor,
        parents: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Not values[crops], which takes six times as long.
        values, keys = values.index_select(0, crops), keys.index_select(0, crops)
        padding = padding.index_select(0, crops)
        hidden, cell = hidden.index_select(0, parents), cell.index_select(0, parents)
        logits, next_hidden, next_cell, attention = self.step(weights, values, keys, padding, hidden, cell, tokens)
        return logits, next_hidden, next_cell, attention


class _GreedyLoop(_CallsStep):
    """Memory, first state and the most characters → logits (B, T, num_classes), attention (B, T, N)."""

    def forward(
        self,
        weights: list[Tensor],
        values: Tensor,
        keys: Tensor,
        padding: Tensor,
        hidden: Tensor,
        cell: Tensor,
        max_length: int,
    ) -> tuple[Tensor, Tensor]:
        tokens = torch.zeros(values.shape[0], dtype=torch.int64, device=values.device)
        ended = torch.zeros(values.shape[0], dtype=torch.bool, device=values.device)
        all_logits: list[Tensor] = []
        all_attention: list[Tensor] = []
        while len(all_logits) <= max_length and not bool(ended.all()):
            logits, hidden, cell, attention = self.step(weights, values, keys, padding, hidden, cell, tokens)
            tokens = logits.argmax(dim=1)
            ended = ended | (tokens == 0)
            all_logits.append(logits)
            all_attention.append(attention)
        return torch.stack(all_logits, dim=1), torch.stack(all_attention, dim=1)
