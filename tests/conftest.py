import pytest

from str_app.models.kernels.native import library as native
from str_app.models.kernels.native.__main__ import build


@pytest.fixture(scope="session")
def native_library(tmp_path_factory):
    """The compiled functions, built once, in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STR_APP_NATIVE", str(tmp_path_factory.mktemp("native")))
        try:
            return native.Library(build(native.this_processor()), native.key(native.this_processor()))
        except FileNotFoundError as error:
            pytest.skip(str(error))
