import pytest

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


@pytest.fixture(params=["torch", "native"])
def path(request, monkeypatch):
    """How the fused layers take their steps."""
    if request.param == "native":
        library = request.getfixturevalue("native_library")
        monkeypatch.setattr(native, "find_library", lambda: library)
        monkeypatch.setattr(native, "FEWEST_ROWS", 0)
        yield "native"
    else:
        with native.torch_operations_only():
            yield "torch"
