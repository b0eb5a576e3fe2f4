"""From a model's name or file to an engine with its weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from str_app.engines.graph_folder import SUFFIX, GraphError, graph_folder, has_graphs, sha256_of, weights_file
from str_app.engines.options import EngineOptions
from str_app.engines.precision import Precision, has_bf16, resolve_precision
from str_app.errors import StrAppError
from str_app.models.presets import list_models, weights_path

if TYPE_CHECKING:
    import torch

    from str_app.engines.base import Engine
    from str_app.engines.onnx_engine import OnnxEngine
    from str_app.engines.torch_engine import TorchEngine
    from str_app.models.recognizer import Recognizer

logger = logging.getLogger(__name__)


def load_engine(model: str | Path, engine: str = "auto", options: EngineOptions | None = None) -> Engine:
    """An engine for a preset with released weights, a checkpoint file, or a folder of exported graphs.

    Args:
        model: a name of `list_models()`, the path of a `.safetensors` checkpoint, or of a folder that `str-app export`
            wrote.
        engine: a name of `ENGINES`. `"auto"`: onnx on a CPU where graphs of these weights lie beside them, onnxruntime
            is installed and no other precision is asked for; else torch.
        options: how it shall run.

    Raises:
        StrAppError: no such engine or model, a preset without released weights, a device that is not there, an engine
            that is not installed, or files that cannot be used.
    """
    if engine not in ENGINES:
        raise StrAppError(f"engine {engine!r} is not one of {', '.join(ENGINES)}")
    return ENGINES[engine](model, options or EngineOptions())


def _load_auto(model: str | Path, options: EngineOptions) -> Engine:
    folder = graph_folder(model)
    if folder == Path(model) and has_graphs(folder):
        return _load_onnx(model, options)
    if has_graphs(folder) and options.device == "cpu" and find_spec("onnxruntime") is not None:
        engine = _onnx_engine(folder, options)
        if options.precision in ("auto", engine.precision) and _is_export_of(engine, model):
            return engine
    if options.precision == "int8":
        checkpoint_file(model)  # tells better what is wrong with the model itself
        if options.device != "cpu":
            raise StrAppError(f"int8 works only with exported graphs, which run on the CPU, not on {options.device!r}")
        raise StrAppError(
            f"{model}: no exported graphs in int8; make them with `str-app export {model}`, or use --precision auto"
        )
    return _load_torch(model, options)


def _is_export_of(engine: OnnxEngine, model: str | Path) -> bool:
    """Whether the graphs were made from the weights beside them; True where there are none."""
    weights = weights_file(model)
    if not weights.is_file() or sha256_of(weights) == engine.source_sha256:
        return True
    advice = f"str-app export {model} --overwrite"
    logger.warning(
        "%s is ignored: it was exported from other weights than %s; run `%s`", engine.folder, weights, advice
    )
    return False


def _load_onnx(model: str | Path, options: EngineOptions) -> Engine:
    folder = graph_folder(model)
    if not has_graphs(folder):
        checkpoint_file(model)  # tells better what is wrong with the model itself
        raise StrAppError(
            f"{folder}: no exported graphs; make them with `str-app export {model}`, or use --engine torch"
        )
    if options.device != "cpu":
        raise StrAppError(
            f"exported graphs run on the CPU, not on {options.device!r}: use --device cpu, or --engine torch with a "
            "checkpoint"
        )
    engine = _onnx_engine(folder, options)
    if options.precision not in ("auto", engine.precision):
        raise StrAppError(
            f"{folder} is in {engine.precision}, not in {options.precision}: use --precision auto, or --engine torch "
            "with a checkpoint"
        )
    return engine


def _onnx_engine(folder: Path, options: EngineOptions) -> OnnxEngine:
    try:
        from str_app.engines.onnx_engine import OnnxEngine
    except ModuleNotFoundError as error:
        raise StrAppError(f"{folder}: exported graphs need {error.name}: pip install onnxruntime") from error
    try:
        return OnnxEngine(folder, options.threads)
    except GraphError as error:
        weights = folder.with_suffix(".safetensors")
        if weights.is_file() and find_spec("torch") is not None:
            raise GraphError(f"{error}, or read {weights} with --engine torch") from error
        raise


def _load_torch(model: str | Path, options: EngineOptions) -> Engine:
    path = checkpoint_file(model)
    try:
        import torch
    except ModuleNotFoundError as error:
        raise StrAppError(f"{model}: the engine torch needs {error.name}: pip install 'str-app[torch]'") from error
    from str_app.models.checkpoint import CheckpointError, load_checkpoint

    device = torch_device(options.device)
    resolve_precision(options.precision, prefer_bf16=False)  # refuse before loading what torch does not have
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        network, info = load_checkpoint(path)
    except CheckpointError as error:
        raise StrAppError(str(error)) from error
    info = {"name": path.stem, **info}
    return make_engine(network, info, str(device), precision=options.precision)


# Engines by name: from a model and options. A new one is a line here; see docs/how-to/extending.md.
ENGINES: dict[str, Callable[[str | Path, EngineOptions], Engine]] = {
    "auto": _load_auto,
    "onnx": _load_onnx,
    "torch": _load_torch,
}


def make_engine(
    model: Recognizer,
    info: Mapping[str, Any] | None = None,
    device: str = "cpu",
    *,
    precision: Precision = "auto",
) -> TorchEngine:
    """A torch engine for a network in memory; see `EngineOptions`."""
    from str_app.engines.torch_engine import TorchEngine

    options = EngineOptions(device, precision=precision)
    target = torch_device(options.device)
    resolved = resolve_precision(options.precision, target.type == "cpu" and has_bf16(target))
    return TorchEngine(model, info, target, precision=resolved)


def torch_device(device: str) -> torch.device:
    """The device of this name, see `EngineOptions`.

    Raises:
        StrAppError: no device's name, or one that torch does not see here.
    """
    import torch

    target = torch.device(EngineOptions(device).device)
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count() or "no"
        raise StrAppError(f"device {device!r}: torch {torch.__version__} sees {seen} CUDA devices; use --device cpu")
    return target


def checkpoint_file(model: str | Path) -> Path:
    """The weights that a name of `list_models()` or a path means.

    Raises:
        StrAppError: no such model, a preset without released weights, or a path of something else: the message says of
            what, and what to give instead.
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
    path = Path(model)
    if path.suffix == SUFFIX and path.is_file():
        whole = f": give its folder, {path.parent}" if has_graphs(path.parent) else ""
        raise StrAppError(f"{path} is a single graph, not a checkpoint or a folder of exported graphs{whole}")
    if path.is_file():
        return path
    if not path.is_dir():
        raise StrAppError(
            f"model {name!r} is neither one of {', '.join(list_models())}, nor a checkpoint file, nor a folder of "
            "exported graphs"
        )
    if has_graphs(path):
        weights = path.with_suffix(".safetensors")
        advice = str(weights) if weights.is_file() else "the .safetensors file that they were exported from"
        raise StrAppError(f"{path} has exported graphs, and here a checkpoint is needed: give {advice}")
    inside = [path / name for name in ("best.safetensors", "last.safetensors") if (path / name).is_file()]
    inside = inside or sorted(path.glob("*.safetensors"))
    advice = f"give a file in it, such as {inside[0]}" if inside else "give a checkpoint or a folder of exported graphs"
    raise StrAppError(f"{path} is a folder without exported graphs: {advice}")
