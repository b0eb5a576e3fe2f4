"""What can be asked of an engine: the same values, refused in the same words, whichever runs and whoever asks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from str_app.engines.load import load_engine, make_engine
from str_app.engines.options import EngineOptions
from str_app.errors import StrAppError
from str_app.reader import Reader
from str_app.serve.settings import Settings
from str_app.training.settings import TrainSettings
from tests.tiny_recognizer import tiny_recognizer

WRONG = [
    *[("device", value, "must be cpu, cuda or cuda:N") for value in ("cpu:0", "CPU", "foo", "", "cuda:x")],
    *[("threads", value, "must be a whole number from 1 to 1024") for value in (0, -1, 1025, "2", 1.5, True)],
    *[("precision", value, "is not one of auto, bf16, fp32, int8") for value in ("int4", "", None)],
]


@pytest.mark.parametrize("engine", ["auto", "onnx", "torch"])
@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_reader_refuses(engine: str, name: str, value: Any, message: str) -> None:
    with pytest.raises(StrAppError, match=f"^{name} {value!r}:? {message}"):
        Reader.load("small", engine=engine, **{name: value})


@pytest.mark.parametrize("name", ["device", "precision"])
def test_an_engine_for_a_network_in_memory_refuses(name: str) -> None:
    with pytest.raises(StrAppError, match=f"^{name} 'foo'"):
        make_engine(tiny_recognizer(), **{name: "foo"})  # type: ignore[arg-type]
    with pytest.raises(StrAppError, match="torch cannot run int8"):
        make_engine(tiny_recognizer(), precision="int8")


def test_a_server_refuses_before_it_starts_anything() -> None:
    with pytest.raises(ValidationError, match="device 'CPU': must be cpu, cuda or cuda:N"):
        Settings(device="CPU")


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_gpu_that_is_not_there(engine: str) -> None:
    with pytest.raises(StrAppError, match=r"device 'cuda:99': torch .* sees \w+ CUDA devices; use --device cpu"):
        Reader.load("small", engine=engine, device="cuda:99")


def test_training_uses_the_same_devices() -> None:
    with pytest.raises(StrAppError, match="device 'CPU': must be cpu"):
        TrainSettings(train=("x",), device="CPU").check()


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_an_engine_starts_with_the_threads_that_are_asked_for(engine: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        loaded: Any = load_engine("small", engine, EngineOptions(threads=1))
        if engine == "torch":
            assert torch.get_num_threads() == 1
        else:
            sessions = loaded._encoder_and_step()
            assert {session.get_session_options().intra_op_num_threads for session in sessions} == {1}
    finally:
        torch.set_num_threads(before)
