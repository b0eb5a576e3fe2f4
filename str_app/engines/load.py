"""From a model's name or file to an engine with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from str_app.engines.precision import Precision, has_bf16, resolve_precision
from str_app.errors import StrAppError
from str_app.models.presets import list_models, weights_path

if TYPE_CHECKING:
    from str_app.engines.base import Engine
    from str_app.engines.torch_engine import TorchEngine
    from str_app.models.recognizer import Recognizer


@dataclass(frozen=True)
class EngineOptions:
    """How an engine shall run; one that has no use for an option ignores it.

    Attributes:
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, …
        threads: CPU threads, a setting of the whole process; None leaves them alone.
        traced: see `TorchEngine`.
        precision: of the backbone. `"auto"` is bfloat16 on a CPU that has instructions for it, where it takes half the
            time, else float32.
    """

    device: str = "cpu"
    threads: int | None = None
    traced: bool = False
    precision: Precision = "auto"


def load_engine(model: str | Path, engine: str = "torch", options: EngineOptions | None = None) -> Engine:
    """An engine for a preset with released weights, or for a checkpoint file.

    Args:
        model: a name of `list_models()` or the path of a `.safetensors` checkpoint.
        engine: a name of `ENGINES`.
        options: how it shall run.

    Raises:
        StrAppError: no such engine or model, a preset without released weights, or a device that is not there.
        CheckpointError: the file cannot be used.
    """
    if engine not in ENGINES:
        raise StrAppError(f"engine {engine!r} is none of {', '.join(ENGINES)}")
    return ENGINES[engine](checkpoint_file(model), options or EngineOptions())


def _load_torch(path: Path, options: EngineOptions) -> Engine:
    import torch

    from str_app.models.checkpoint import load_checkpoint

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = options.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise StrAppError(f"device {device!r}: torch {torch.__version__} sees no CUDA device here; use --device cpu")
    network, info = load_checkpoint(path)
    info = {"name": path.stem, **info}
    return make_engine(network, info, device, traced=options.traced, precision=options.precision)


# Engines by name: from a checkpoint file and options. A new one is a line here; see docs/extending.md.
ENGINES: dict[str, Callable[[Path, EngineOptions], Engine]] = {"torch": _load_torch}


def make_engine(
    model: Recognizer,
    info: Mapping[str, Any] | None = None,
    device: str = "cpu",
    *,
    traced: bool = False,
    precision: Precision = "auto",
) -> TorchEngine:
    """A torch engine for a network in memory; see `EngineOptions`."""
    import torch

    from str_app.engines.torch_engine import TorchEngine

    target = torch.device(device)
    resolved = resolve_precision(precision, target.type == "cpu" and has_bf16(target))
    return TorchEngine(model, info, target, traced=traced, precision=resolved)


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
