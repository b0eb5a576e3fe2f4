import os

import pytest

from str_app.models.kernels import library, recurrence
from str_app.models.kernels.dispatch import torch_operations_only


@pytest.fixture
def calls(monkeypatch, native_library):
    """The compiled functions in use; the names of those that were called."""
    called = []
    call = library.Library.call
    monkeypatch.setattr(library, "find_library", lambda: native_library)
    monkeypatch.setattr(
        library.Library, "call", lambda self, name, *rest: (called.append(name), call(self, name, *rest))
    )
    return called


@pytest.fixture(params=["loop", "compiled", "triton"])
def path(request, monkeypatch):
    """How the layers run their steps."""
    if request.param == "compiled":
        built = request.getfixturevalue("native_library")
        monkeypatch.setattr(library, "find_library", lambda: built)
        monkeypatch.setattr(recurrence, "MIN_ROWS", 0)
        yield "compiled"
    elif request.param == "triton":
        if os.environ.get("TRITON_INTERPRET") != "1" or recurrence.find_triton() is None:
            pytest.skip("needs Triton, and TRITON_INTERPRET=1")
        monkeypatch.setattr(recurrence, "GPU", "cpu")
        yield "triton"
    else:
        with torch_operations_only():
            yield "loop"
