"""The engine that runs on PyTorch."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from str_app.engines.base import Followed, Step
from str_app.engines.precision import Precision, has_bf16, resolve
from str_app.errors import StrAppError
from str_app.models.backbones.resnet import fold_batch_norms
from str_app.models.checkpoint import load_checkpoint
from str_app.models.decoders.attention import Memory
from str_app.models.kernels.convolution import uses_compiled
from str_app.models.presets import list_models, weights_path
from str_app.models.recognizer import Recognizer

logger = logging.getLogger(__name__)
Pass = Callable[..., tuple[Tensor, ...]]


class _Passes(NamedTuple):
    """What an engine runs: see `_Encode`, `_Branch` and `_Follow`."""

    encode: Pass
    step: Pass
    follow: Pass


# `_Passes` of an architecture on a device that take the weights as their first input; the encoder may have none.
_GRAPHS: dict[Hashable, tuple[Pass | None, Pass, Pass]] = {}


class TorchEngine:
    """A `Recognizer` behind the boundary of `str_app.engines.base.Engine`.

    Args:
        model: copied, so training can go on while the engine reads.
        info: a checkpoint's `info`; its `temperature` divides the logits.
        device: where to run.
        traced: run each pass as one graph, without Python and its lock between the operations: a tenth faster, for a
            server. Takes a second to begin; the readings are the same. Compiled convolutions (`models.kernels`)
            save more than a graph does: with them the encoder is none, and holds the lock between its layers.
        precision: of the backbone: bfloat16, float32, or bfloat16 where the processor has instructions for it. There
            it takes half the time. Confidences differ by a thousandth in the mean, and not by what is in a batch.
    """

    def __init__(
        self,
        model: Recognizer,
        info: dict[str, Any] | None = None,
        device: str | torch.device = "cpu",
        *,
        traced: bool = False,
        precision: Precision = "auto",
    ) -> None:
        self.info = info or {}
        self.name = str(self.info.get("name", "unnamed"))
        self.charset = model.charset
        self.preprocessing = model.preprocessing
        self.max_length = model.architecture.max_length
        self.device = torch.device(device)
        folded = fold_batch_norms(model)
        assert isinstance(folded, Recognizer)
        folded = folded.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.precision = resolve(precision, self.device.type == "cpu" and has_bf16(self.device))
        if self.precision == "bf16":
            folded.backbone.to(torch.bfloat16)
        self._rows = folded.grid[0]
        self._encode = _Encode(folded)
        self._step = _Step(folded, float(self.info.get("temperature", 1.0))).to(self.device)
        self._compiled = uses_compiled(folded)
        self._passes = self._traced() if traced else self._untraced()
        convolutions = "compiled" if self._compiled else "torch's"
        logger.info("%s computes in %s on %s; convolutions: %s", self.name, self.precision, self.device, convolutions)

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
        log_probs, hidden, cell, attention = self._passes.step(*memory, *state, *rows)
        maps = attention.view(len(tokens), self._rows, -1)
        return Step(log_probs.cpu().numpy(), (hidden, cell), maps.cpu().numpy())

    @torch.inference_mode()
    def follow(self, memory: Memory, state: tuple[Tensor, Tensor]) -> Followed:
        """See `Engine.follow`."""
        log_probs, attention = self._passes.follow(*memory, *state, self.max_length)
        maps = attention.view(*attention.shape[:2], self._rows, -1)
        return Followed(log_probs.cpu().numpy(), maps.cpu().numpy())

    def use_threads(self, count: int) -> None:
        """See `Engine.use_threads`. OpenMP's and MKL's numbers of threads are the calling thread's own."""
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _untraced(self) -> _Passes:
        def step(_: list[Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
            outputs: tuple[Tensor, ...] = self._step(*inputs)
            return outputs

        return _Passes(self._encode, partial(_Branch(step), []), partial(_Follow(step), []))

    @torch.inference_mode()
    def _traced(self) -> _Passes:
        """The passes as graphs, if on noise of every width they give what the passes themselves give.

        A layer that leaves torch on its way (as the compiled loops do) would be traced as a constant.
        """
        untraced = self._untraced()
        graphs: _Passes | None = None
        try:
            for batch, width in enumerate(self.preprocessing.widths, 2):
                inputs = self._noise(batch, width)
                memory = self._encode(*inputs)
                tokens = torch.ones(batch, dtype=torch.int64, device=self.device)
                graphs = graphs or self._graphs(inputs, (*memory, tokens))
                further = (*memory, tokens, *[torch.arange(batch, device=self.device).flip(0)] * 2)
                again = memory if graphs.encode is self._encode else graphs.encode(*inputs)
                found = (*again, *graphs.step(*further))
                for one, other in zip(found, (*memory, *untraced.step(*further)), strict=True):
                    if not torch.allclose(one, other, rtol=1e-3, atol=1e-4):
                        raise RuntimeError("the graph computes something else")
        except RuntimeError as error:  # which TorchScript raises too
            logger.warning("%s is not traced, so other threads wait for its operations: %s", self.name, error)
            graphs = None
        return graphs or untraced

    def _graphs(self, encoded: tuple[Tensor, ...], stepped: tuple[Tensor, ...]) -> _Passes:
        """Graphs of the passes, traced with these inputs unless there are some of this architecture already.

        A graph would have torch's convolutions: with compiled ones the encoder is left as it is.
        """
        weights = [[*one.parameters(), *one.buffers()] for one in (self._encode, self._step)]
        sizes = (self._encode.model.architecture, self.preprocessing, self.charset.num_classes)
        key = (*sizes, self.device, self.precision, self._compiled)
        if key not in _GRAPHS:
            with warnings.catch_warnings():
                # TorchScript is no longer developed. What torch offers instead needs a compiler where it runs, or
                # keeps the lock; without either only this works.
                warnings.simplefilter("ignore")
                step = _graph(self._step, weights[1], stepped)
                _GRAPHS[key] = (
                    None if self._compiled else _graph(self._encode, weights[0], encoded),
                    torch.jit.script(_Branch(step)),
                    torch.jit.script(_Follow(step)),  # a loop, which tracing would unroll
                )
        encode, branch, follow = _GRAPHS[key]
        return _Passes(
            partial(encode, weights[0]) if encode else self._encode,
            partial(branch, weights[1]),
            partial(follow, weights[1]),
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
    hollow = copy.deepcopy(module)

    def call(weights: list[Tensor], *inputs: Tensor) -> Any:
        for name, weight in zip(names, weights, strict=True):
            owner, _, own_name = name.rpartition(".")
            holder = hollow.get_submodule(owner)
            delattr(holder, own_name)  # a parameter, which only parameters could replace
            setattr(holder, own_name, weight)
        return hollow(*inputs)

    graph: Pass = torch.jit.trace(call, (weights, *inputs), check_trace=False)
    return graph


class _Encode(nn.Module):
    """Canvases uint8 (B, height, W, 3) and covered columns (B,) → memory and first state, all in one tuple."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, canvases: Tensor, widths: Tensor) -> tuple[Tensor, ...]:
        memory, state = self.model.encode(self.model.normalize(canvases), widths)
        return (*memory, *state)


class _Step(nn.Module):
    """Memory, state and tokens → log-probabilities (B, num_classes), state, attention (B, N)."""

    temperature: Tensor

    def __init__(self, model: Recognizer, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(
        self, values: Tensor, keys: Tensor, padding: Tensor, hidden: Tensor, cell: Tensor, tokens: Tensor
    ) -> tuple[Tensor, ...]:
        logits, state, attention = self.model.step(Memory(values, keys, padding), (hidden, cell), tokens)
        return ((logits / self.temperature).log_softmax(dim=-1), *state, attention)


class _Stepping(nn.Module):
    """What calls `_Step`. TorchScript compiles its source: then nothing in it takes Python's lock.

    Args:
        step: called with the weights and the inputs of `_Step`.
    """

    def __init__(self, step: Pass) -> None:
        super().__init__()
        self.step = step


class _Branch(_Stepping):
    """A step of prefixes (R,), each of one crop (`crops`) and going on from one row of the state (`parents`)."""

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
        log_probs, after, cell_after, attention = self.step(weights, values, keys, padding, hidden, cell, tokens)
        return log_probs, after, cell_after, attention


class _Follow(_Stepping):
    """Memory, first state and the most characters → log-probabilities (B, T, num_classes), attention (B, T, N)."""

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
        said: list[Tensor] = []
        seen: list[Tensor] = []
        while len(said) <= max_length and not bool(ended.all()):
            log_probs, hidden, cell, attention = self.step(weights, values, keys, padding, hidden, cell, tokens)
            tokens = log_probs.argmax(dim=1)
            ended = ended | (tokens == 0)
            said.append(log_probs)
            seen.append(attention)
        return torch.stack(said, dim=1), torch.stack(seen, dim=1)


def load_engine(
    model: str | Path,
    device: str = "cpu",
    threads: int | None = None,
    *,
    traced: bool = False,
    precision: Precision = "auto",
) -> TorchEngine:
    """An engine for a preset with released weights, or for a checkpoint file.

    Args:
        model: a name of `list_models()` or the path of a `.safetensors` checkpoint.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, …
        threads: torch's intra-op threads, a setting of the whole process; None leaves it alone.
        traced, precision: see `TorchEngine`.

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
    return TorchEngine(network, {"name": path.stem, **info}, device, traced=traced, precision=precision)


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
