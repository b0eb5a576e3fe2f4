"""Where the compiled functions lie, what they were built from, when they are taken, and how they are called.

A plain C interface, called by ctypes: no part of torch is compiled against, so that a build takes seconds and outlives
a change of torch's version.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.units import Unit

SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("recurrence.cpp", "steps.h", "convolution.h", "product.h", "vectors.h")
)
OPTIONS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden")
# What ATen calls the processor → the options that make use of it; any other is DEFAULT, the compiler's own. Not
# -march=native: a library then runs on every processor of its name, as torch's own kernels do.
PROCESSORS: dict[str, tuple[str, ...]] = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "DEFAULT": (),
}
# Rows of all steps together from which laying out the weights costs less than it saves.
FEWEST_ROWS = 16
_JOINS = {"none": 0, "add": 1, "mul": 2}

_log = logging.getLogger(__name__)
_allowed: ContextVar[bool] = ContextVar("compiled functions allowed", default=True)


class _Steps(ctypes.Structure):
    """`Steps` of recurrence.cpp."""

    _fields_ = (
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("count", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("reverse", ctypes.c_int32),
        ("join", ctypes.c_int32 * 3),
    )


class _Maps(ctypes.Structure):
    """`Maps` of convolution.h."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs", "outputs", "threads"))


class Library:
    """The compiled functions; a call takes tensors of one dtype, float32 or float64, on the CPU.

    Args:
        path: of the file.
        expected: the key that it was built for.

    Raises:
        OSError: the file is no library for this machine, or was built for another key.
    """

    def __init__(self, path: Path, expected: str) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        try:
            self._library.native_key.restype = ctypes.c_char_p
            found = self._library.native_key().decode()
        except AttributeError:
            found = "something else"
        if found != expected:
            raise OSError(f"{path} was built for {found}, expected {expected}")
        self._library.native_function.restype = ctypes.c_void_p
        self._functions: dict[tuple[str, torch.dtype], Any] = {}

    def _call(self, name: str, dtype: torch.dtype, *arguments: Any) -> None:
        function = self._functions.get((name, dtype))
        if function is None:
            address = self._library.native_function(name.encode(), dtype.itemsize)
            function = self._functions[name, dtype] = ctypes.CFUNCTYPE(ctypes.c_int)(address)
        if function(*arguments):
            raise MemoryError(f"{name}: no memory for its workspace")

    def run(
        self,
        name: str,
        unit: Unit,
        gate: RefinedGate,
        sizes: Sequence[int],
        reverse: bool,
        weight_hh: Tensor,
        *tensors: Tensor | None,
    ) -> None:
        """All steps of one layer and direction: function `name` of recurrence.cpp on its arrays, all contiguous."""
        rows, H = (ctypes.c_int64 * len(sizes))(*sizes), weight_hh.shape[1]
        steps = _Steps(rows, len(sizes), H, torch.get_num_threads(), reverse)
        for place, one in enumerate(unit.gates):
            steps.join[place] = _JOINS[gate.refine] if gate.refines(one) else 0
        self._call(name, weight_hh.dtype, ctypes.byref(steps), *map(_address, (weight_hh, *tensors)))

    def product(self, a: Tensor, b: Tensor, bias: Tensor | None = None, squash: bool = False) -> Tensor:
        """a (M, K) · b (K, N) + bias (N,), of any strides; its tanh if `squash`."""
        result = a.new_empty(a.shape[0], b.shape[1])
        sizes = map(ctypes.c_int64, (*result.shape, a.shape[1]))
        left, right = ((_address(one), *map(ctypes.c_int64, one.stride())) for one in (a, b))
        bias = None if bias is None else bias.contiguous()
        threads = ctypes.c_int64(torch.get_num_threads())
        self._call("gemm", a.dtype, *sizes, *left, *right, _address(bias), squash, _address(result), threads)
        return result

    def lay_out(self, weight: Tensor, height: int, transposed: bool = False) -> Tensor:
        """What `convolve` needs of a weight (K, C, 3, 3), channels last: transformed, as panels.

        Args:
            height: of the maps.
            transposed: for the gradient of the inputs.
        """
        K, C = weight.shape[:2]
        maps = _Maps(0, height, 0, C, K, 1)
        size = ctypes.c_int64()
        self._call("panels", weight.dtype, ctypes.byref(maps), transposed, ctypes.byref(size))
        panels = weight.new_empty(size.value)
        self._call("lay_out", weight.dtype, ctypes.byref(maps), _address(weight), transposed, _address(panels))
        return panels

    def convolve(self, x: Tensor, panels: Tensor, channels: int, bias: Tensor | None = None) -> Tensor:
        """Maps (B, C, H, W), channels last, by laid out weights of so many outputs: (B, channels, H, W)."""
        B, C, H, W = x.shape
        result = torch.empty((B, channels, H, W), dtype=x.dtype, memory_format=torch.channels_last)
        maps = _Maps(B, H, W, C, channels, torch.get_num_threads())
        self._call("convolve", x.dtype, ctypes.byref(maps), *map(_address, (x, panels, bias, result)))
        return result

    def differentiate(self, x: Tensor, gradient: Tensor) -> Tensor:
        """The weight's gradient (K, C, 3, 3) from inputs and the outputs' gradient, all channels last."""
        B, C, H, W = x.shape
        K = gradient.shape[1]
        result = torch.empty((K, C, 3, 3), dtype=x.dtype, memory_format=torch.channels_last)
        maps = _Maps(B, H, W, C, K, torch.get_num_threads())
        self._call("differentiate", x.dtype, ctypes.byref(maps), *map(_address, (x, gradient, result)))
        return result


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def this_processor() -> str:
    """Its name in PROCESSORS."""
    found = torch.backends.cpu.get_cpu_capability()
    return found if found in PROCESSORS else "DEFAULT"


def compiler_options(processor: str) -> tuple[str, ...]:
    """What makes use of a processor."""
    return (*OPTIONS, *PROCESSORS[processor])


@functools.cache
def key(processor: str) -> str:
    """All that a library depends on: system, processor, options and sources. Another key is another file."""
    digest = hashlib.sha256(" ".join(compiler_options(processor)).encode())
    for source in SOURCES:
        digest.update(source.read_bytes())
    return "-".join((platform.system(), platform.machine(), processor, digest.hexdigest()[:16])).lower()


def path(processor: str) -> Path:
    """Where a processor's library lies once built.

    In the folder that STR_APP_NATIVE names, else below XDG_CACHE_HOME, which is ~/.cache by default.
    """
    folder = os.environ.get("STR_APP_NATIVE", "")
    if folder in ("", "0"):
        folder = (os.environ.get("XDG_CACHE_HOME") or "~/.cache") + "/str-app/native"
    return Path(folder).expanduser() / f"{key(processor)}.so"


@functools.cache
def find_library() -> Library | None:
    """The compiled functions, or None: not built, or switched off by STR_APP_NATIVE=0. Looked for once in a process."""
    if os.environ.get("STR_APP_NATIVE") == "0":
        return None
    place = path(this_processor())
    if not place.is_file():
        _log.debug("no compiled functions at %s", place)
        return None
    try:
        return Library(place, key(this_processor()))
    except OSError as error:
        warnings.warn(
            f"{error}; running without it: build it anew by `python -m str_app.models.kernels.native`", stacklevel=2
        )
        return None


@contextmanager
def torch_operations_only() -> Iterator[None]:
    """Leave the compiled functions and kernels alone inside: to compare, or to follow each operation."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


def library_for(rows: int, *tensors: Tensor | None) -> Library | None:
    """The compiled loops, where they can take these tensors and pay off.

    Dispatch modes and subclasses of tensors get torch's operations, which they know how to follow.

    Args:
        rows: of all steps together.
    """
    return None if rows < FEWEST_ROWS else library_taking(*tensors)


def library_taking(*tensors: Tensor | None) -> Library | None:
    """The compiled functions, where they can take these tensors."""
    return find_library() if can_take("cpu", (torch.float32, torch.float64), tensors) else None


def is_followed() -> bool:
    """Whether a compiler, an exporter or a tracer looks on: it gets plain operations, which it fuses itself."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def can_take(device: str, dtypes: Sequence[torch.dtype], tensors: Sequence[Tensor | None]) -> bool:
    """Whether other code than torch's operations may read and write these: on this device, of one of these dtypes."""
    given = [one for one in tensors if one is not None]
    dtype = given[0].dtype
    takes = dtype in dtypes and _allowed.get() and _get_current_dispatch_mode() is None
    for one in given:
        takes = takes and type(one) in (Tensor, nn.Parameter) and one.dtype == dtype and one.device.type == device
    return takes
