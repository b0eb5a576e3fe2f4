import pytest

from str_app.models.kernels import library
from str_app.models.kernels.__main__ import build


@pytest.fixture(scope="session")
def native_library(tmp_path_factory):
    """The compiled functions, built once, in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STR_APP_NATIVE", str(tmp_path_factory.mktemp("native")))
        try:
            return library.Library(build(library.this_processor()), library.key(library.this_processor()))
        except FileNotFoundError as error:
            pytest.skip(str(error))
