import os

import pytest

from models import fused
from models.native import library as native
from models.native.__main__ import build


@pytest.fixture(scope="session")
def native_library(tmp_path_factory):
    """The compiled loops, built once, in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        try:
            return native.Library(build())
        except FileNotFoundError as error:
            pytest.skip(str(error))


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
