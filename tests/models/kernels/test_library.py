"""The compiled library: where it is looked for, what happens where it cannot load, and how it is built."""

import warnings

import pytest
import torch

from str_app.models.gates.layers import RefinedGRU, RefinedLSTM
from str_app.models.kernels import __main__ as command
from str_app.models.kernels import library as native


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder; the library is looked up again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("STR_APP_NATIVE", raising=False)
    native.find_library.cache_clear()
    yield tmp_path
    native.find_library.cache_clear()


def test_without_a_library_there_is_no_warning(cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.find_library() is None
        RefinedGRU(3, 4)(torch.randn(20, 2, 3))


@pytest.mark.parametrize("content", ["no library", "another's", "of another key"])
def test_a_file_that_does_not_load_is_ignored_with_one_warning(cache, monkeypatch, native_library, content):
    file = native.path(native.this_processor())
    file.parent.mkdir(parents=True)
    if content == "no library":
        file.write_bytes(b"\x7fELF or so")
    elif content == "another's":
        file.symlink_to(torch._C.__file__)
    else:
        file.symlink_to(native_library.path)
        monkeypatch.setattr(native, "path", lambda processor: file)
        monkeypatch.setattr(native, "key", lambda processor: "tomorrow's")
    layer = RefinedLSTM(3, 4)
    with pytest.warns(UserWarning, match="python -m str_app.models.kernels"):
        assert layer(torch.randn(20, 2, 3))[0].isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(20, 2, 3))


def test_switched_off_by_the_environment(cache, monkeypatch):
    file = native.path(native.this_processor())
    file.parent.mkdir(parents=True)
    file.write_bytes(b"would be warned of")
    monkeypatch.setenv("STR_APP_NATIVE", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.find_library() is None


def test_a_folder_may_be_named(cache, monkeypatch):
    monkeypatch.setenv("STR_APP_NATIVE", str(cache / "own"))
    file = native.path("AVX2")
    assert file.parent == cache / "own"
    monkeypatch.delenv("STR_APP_NATIVE")
    assert native.path("AVX2") == cache / "str-app/native" / file.name


def test_another_processor_is_another_file(cache, monkeypatch, capsys):
    monkeypatch.setattr(command, "build", native.path)
    monkeypatch.setattr(command.platform, "machine", lambda: "x86_64")
    command.main(["--every"])
    built = capsys.readouterr().out.split()
    assert len(set(built)) == 3
    for name, expected in (("AVX512", "avx512"), ("SVE256", "default"), ("NO AVX", "default")):
        monkeypatch.setattr(native.torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        assert f"-{expected}-" in native.path(native.this_processor()).name
    command.main([])
    assert capsys.readouterr().out.split() == [str(native.path(native.this_processor()))]


def test_building_without_a_compiler_says_so(cache, monkeypatch):
    monkeypatch.setattr(command.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"install g\+\+, or name one in CXX"):
        command.build("DEFAULT")
    assert not native.path("DEFAULT").exists()


def test_a_failed_build_leaves_nothing_behind(cache, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(command.subprocess.CalledProcessError):
        command.build("DEFAULT")
    assert list(native.path("DEFAULT").parent.iterdir()) == []
