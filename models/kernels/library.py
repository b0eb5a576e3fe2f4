"""The library of compiled functions: its sources and compiler options, where it is, loading it and calling it.

It has a plain C interface, called through ctypes: no torch headers are compiled, so a build takes seconds and outlives
changes of torch's version.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from str_app.models.kernels.dispatch import can_take

# The first is compiled and includes the others.
SOURCES = tuple(
    Path(__file__).with_name("cpp") / name
    for name in ("library.cpp", "recurrence.h", "convolution.h", "product.h", "vectors.h")
)
OPTIONS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden")
# ATen's name of the processor → options for its instructions; all others count as DEFAULT, the compiler's own choice.
# Not -march=native: a library then runs on every processor of that name, as torch's own kernels do.
PROCESSORS: dict[str, tuple[str, ...]] = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "DEFAULT": (),
}

_log = logging.getLogger(__name__)


class Library:
    """The loaded functions. A call takes tensors of one dtype, float32 or float64, on the CPU.

    Args:
        path: of the shared library.
        expected: the key that it must have been built for.

    Raises:
        OSError: the file is not a library for this machine, or was built for another key.
    """

    def __init__(self, path: Path, expected: str) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        try:
            self._library.library_key.restype = ctypes.c_char_p
            actual = self._library.library_key().decode()
        except AttributeError:
            actual = "something else"
        if actual != expected:
            raise OSError(f"{path} was built for {actual}, expected {expected}")
        self._library.find_function.restype = ctypes.c_void_p
        self._functions: dict[tuple[str, torch.dtype], Any] = {}

    def call(self, name: str, dtype: torch.dtype, *arguments: Any) -> None:
        """Call function `name` of library.cpp for elements of `dtype`.

        Raises:
            MemoryError: it could not allocate its workspace.
        """
        function = self._functions.get((name, dtype))
        if function is None:
            pointer = self._library.find_function(name.encode(), dtype.itemsize)
            function = self._functions[name, dtype] = ctypes.CFUNCTYPE(ctypes.c_int)(pointer)
        if function(*arguments):
            raise MemoryError(f"{name}: not enough memory for its workspace")


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Pointer to the first element; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def this_processor() -> str:
    """This processor's name in PROCESSORS."""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if capability in PROCESSORS else "DEFAULT"


def compiler_options(processor: str) -> tuple[str, ...]:
    """Options to compile for a processor of PROCESSORS."""
    return (*OPTIONS, *PROCESSORS[processor])


@functools.cache
def key(processor: str) -> str:
    """Identifies a build: system, machine, processor, and a hash of options and sources."""
    digest = hashlib.sha256(" ".join(compiler_options(processor)).encode())
    for source in SOURCES:
        digest.update(source.read_bytes())
    return "-".join((platform.system(), platform.machine(), processor, digest.hexdigest()[:16])).lower()


def path(processor: str) -> Path:
    """Where the library for a processor is once built.

    In the folder that STR_APP_NATIVE names, else in `str-app/native` below XDG_CACHE_HOME, which is ~/.cache by
    default.
    """
    folder = os.environ.get("STR_APP_NATIVE", "")
    if folder in ("", "0"):
        folder = (os.environ.get("XDG_CACHE_HOME") or "~/.cache") + "/str-app/native"
    return Path(os.path.expanduser(folder)) / f"{key(processor)}.so"  # noqa: PTH111  # raises not without a home


@functools.cache
def find_library() -> Library | None:
    """The library, or None if it is not built or STR_APP_NATIVE=0. Looked up once in a process."""
    if os.environ.get("STR_APP_NATIVE") == "0":
        return None
    file = path(this_processor())
    if not file.is_file():
        _log.debug("no compiled functions at %s", file)
        return None
    try:
        return Library(file, key(this_processor()))
    except OSError as error:
        warnings.warn(f"{error}; running without it: rebuild it by `python -m str_app.models.kernels`", stacklevel=2)
        return None


def library_for(*tensors: Tensor | None) -> Library | None:
    """The library, if it is built and may take these tensors; see `dispatch.can_take`."""
    return find_library() if can_take("cpu", (torch.float32, torch.float64), tensors) else None
