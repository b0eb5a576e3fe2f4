"""What is installed here, and whether it works: versions, processor, compiled kernels, weights, extras."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
import warnings
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from str_app.cpu import usable_cores
from str_app.datasets.torchvision_import import import_torchvision
from str_app.errors import StrAppError

if TYPE_CHECKING:
    from str_app.engines.onnx_engine import OnnxEngine

# Distribution → module.
REQUIRED = {
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "lmdb": "lmdb",
    "safetensors": "safetensors",
    "onnxruntime": "onnxruntime",
}
# Of the engine torch, training, studies and exports; checked where they are installed.
TORCH = {"torch": "torch", "torchvision": "torchvision"}
OPTIONAL = ("onnx", "triton")
# Newest first: tells processors apart whose name does not.
INSTRUCTIONS = {"amx_int8": "AMX", "avx512_bf16": "AVX-512 bf16", "avx512f": "AVX-512", "avx2": "AVX2"}
CPUINFO = Path("/proc/cpuinfo")
DEVELOPMENT = {"dev", "service-tests"}  # extras for work on the project itself, not reported


def inspect_installation() -> dict[str, Any]:
    """Findings as plain values, ready for JSON. `problems` lists, in words, what is required and does not work.

    Sections: `versions` (None where not installed), `processor`, `kernels`, `weights` and `graphs` by model, `reads`
    (how `small` is read if nothing else is asked for), `missing` (extra → requirements that are not installed) and
    `problems`.
    """
    problems: list[str] = []
    versions: dict[str, str | None] = {"python": platform.python_version(), "str-app": distribution_version("str-app")}
    for distribution, module in REQUIRED.items():
        versions[distribution] = _import(distribution, module, problems)
    for distribution, module in TORCH.items():
        installed = find_spec(module) is not None
        versions[distribution] = _import(distribution, module, problems) if installed else None
    versions |= {name: distribution_version(name) for name in OPTIONAL}
    if not (3, 11) <= sys.version_info < (3, 13):
        problems.append(f"Python {versions['python']} is not supported: use 3.11 or 3.12")
    findings: dict[str, Any] = {"versions": versions, "processor": _processor(versions["torch"])}
    if versions["torch"] is not None:
        findings["kernels"] = _kernels()
    if versions["safetensors"] is not None and versions["onnxruntime"] is not None:
        findings["weights"] = _weights(problems)
        findings["graphs"], engines = _graphs(findings["weights"], problems)
        if not findings["weights"]["small"] and not findings["graphs"]["small"]:
            problems.append("neither weights nor exported graphs of `small` are there: install the package again")
        elif not problems:
            try:
                findings["reads"] = _reads(engines.get("small"))
            except StrAppError as error:
                problems.append(f"`small` cannot be loaded: {error}")
    return findings | {"missing": _missing_extras(), "problems": problems}


def provenance() -> dict[str, str | None]:
    """Where results come from: date (UTC), kind of processor and versions, written beside them."""
    flags = _cpu_flags()
    newest = [name for flag, name in INSTRUCTIONS.items() if flag in flags][:1]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": ", ".join([_cpu_name() or platform.machine(), *newest]),
    } | {name: distribution_version(name) for name in ("str-app", "onnxruntime", "torch")}


def distribution_version(distribution: str) -> str | None:
    """The version of an installed distribution; None if there is none of this name."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _import(distribution: str, module: str, problems: list[str]) -> str | None:
    """The module's version; None, and an entry in `problems`, if it cannot be imported."""
    try:
        imported = import_torchvision() if module == "torchvision" else importlib.import_module(module)
    except Exception as error:  # a broken binary package may raise anything
        problems.append(f"{distribution} cannot be imported: {type(error).__name__}: {error}")
        return None
    return str(imported.__version__)


def _processor(torch_version: str | None) -> dict[str, Any]:
    """Machine, usable cores, instruction sets that matter here, and GPUs that torch sees."""
    processor: dict[str, Any] = {"machine": platform.machine(), "usable cores": usable_cores()}
    flags = _cpu_flags()
    known = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "avx512_vnni", "asimd", "bf16", "sve")
    processor["instructions"] = [flag for flag in known if flag in flags]
    if torch_version is not None:
        import torch

        processor["torch kernels for"] = torch.backends.cpu.get_cpu_capability()
        processor["GPUs"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return processor


def _cpu_flags() -> set[str]:
    """Feature flags of the first processor; empty where there is no /proc."""
    return set((_cpu_field("flags|Features", CPUINFO) or "").split())


def _cpu_name(cpuinfo: Path = CPUINFO) -> str | None:
    """Model name of the first processor; None where /proc has none."""
    name = _cpu_field("model name", cpuinfo)
    return None if name is None else re.sub(r"\(R\)|\(TM\)| Processor", "", name).strip()


def _cpu_field(names: str, cpuinfo: Path) -> str | None:
    """What /proc says of the first processor under one of the names (alternatives of a pattern)."""
    try:
        match = re.search(rf"^(?:{names})\s*:\s*(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return match[1] if match else None


def _kernels() -> dict[str, Any]:
    """Where the compiled kernels are, and whether they are used; they are optional."""
    from str_app.models.kernels import library

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = library.find_library() is not None
    path = library.path(library.this_processor())
    if loaded:
        state = "in use"
    elif os.environ.get("STR_APP_NATIVE") == "0":
        state = "turned off by STR_APP_NATIVE=0"
    elif path.is_file():
        state = "does not load: rebuild with python -m str_app.models.kernels"
    else:
        state = "not compiled: python -m str_app.models.kernels"
    return {"state": state, "path": str(path)}


def _weights(problems: list[str]) -> dict[str, Any]:
    """File, bytes and SHA-256 of each preset's weights; None for a preset without. Damaged files are problems."""
    from str_app.engines.graph_folder import sha256_of
    from str_app.models.checkpoint import read_header
    from str_app.models.presets import list_models, weights_path

    weights: dict[str, Any] = {}
    for name in list_models():
        path = weights_path(name)
        if not path.is_file():
            weights[name] = None
            continue
        weights[name] = {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        try:
            read_header(path)
        except ValueError as error:
            problems.append(str(error))
    return weights


def _graphs(weights: dict[str, Any], problems: list[str]) -> tuple[dict[str, Any], dict[str, OnnxEngine]]:
    """Folder, bytes, precision of each preset's exported graphs, and the SHA-256 of the weights that they come from.

    None for a preset without. Damaged graphs, and graphs of other weights than those beside them, are problems. Also
    returned are the engines of those that can be loaded.
    """
    from str_app.engines.graph_folder import GraphError, folder_bytes, graph_folder, has_graphs
    from str_app.engines.onnx_engine import OnnxEngine

    graphs: dict[str, Any] = {}
    engines: dict[str, OnnxEngine] = {}
    for name in weights:
        folder = graph_folder(name)
        graphs[name] = None
        if not has_graphs(folder):
            continue
        try:
            engine = engines[name] = OnnxEngine(folder, 1)
        except GraphError as error:
            problems.append(str(error))
            continue
        graphs[name] = {
            "path": str(folder),
            "bytes": folder_bytes(folder),
            "precision": engine.precision,
            "from": engine.source_sha256,
        }
        if weights[name] is not None and weights[name]["sha256"] != engine.source_sha256:
            problems.append(f"{folder} was exported from other weights: run `str-app export {name} --overwrite`")
    return graphs, engines


def _reads(graphs: OnnxEngine | None) -> dict[str, Any]:
    """What `small` is read with by default: its exported graphs, if there are any, as `load_engine` chooses."""
    from str_app.engines.load import load_engine

    engine: Any = graphs or load_engine("small")
    name = "onnx" if graphs else "torch"
    return {"model": "small", "engine": name, "precision": engine.precision, "threads": usable_cores()}


def _missing_extras() -> dict[str, list[str]]:
    """Extra → its requirements that are not installed; empty if str-app itself is not installed."""
    missing: dict[str, list[str]] = {}
    requirements = (metadata.requires("str-app") or []) if distribution_version("str-app") else []
    for requirement in requirements:
        match = re.match(r"""([\w.-]+).*;.*extra == ["']([\w-]+)["']""", requirement)
        if match and match[2] not in DEVELOPMENT and distribution_version(match[1]) is None:
            missing.setdefault(match[2], []).append(match[1])
    return missing
