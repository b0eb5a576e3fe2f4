import os

import pytest

from str_app.models.kernels import fused
from str_app.models.kernels.native import library as native


@pytest.fixture
def calls(monkeypatch, native_library):
    """The compiled functions in use; the names of those that were called."""
    called = []
    call = native.Library._call
    monkeypatch.setattr(native, "find_library", lambda: native_library)
    monkeypatch.setattr(
        native.Library, "_call", lambda self, name, *rest: (called.append(name), call(self, name, *rest))
    )
    return called


@pytest.fixture(params=["torch", "native", "triton"])
def path(request, monkeypatch):
    """How the fused layers take their steps."""
    if request.param == "native":
        library = request.getfixturevalue("native_library")
        monkeypatch.setattr(native, "find_library", lambda: library)
        monkeypatch.setattr(native, "FEWEST_ROWS", 0)
        yield "native"
    elif request.param == "triton":
        if os.environ.get("TRITON_INTERPRET") != "1" or fused.find_kernels() is None:
            pytest.skip("needs Triton, and TRITON_INTERPRET=1")
        monkeypatch.setattr(fused, "KERNELS_ON", "cpu")
        yield "triton"
    else:
        with native.torch_operations_only():
            yield "torch"
