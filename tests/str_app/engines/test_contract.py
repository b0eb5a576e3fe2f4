"""What every engine promises, whatever runs the network: `str_app.engines.base.Engine`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from str_app.engines import load
from str_app.engines.base import Engine
from str_app.engines.onnx_engine import OnnxEngine
from str_app.engines.torch_engine import TorchEngine
from str_app.errors import StrAppError
from str_app.export import export_model
from str_app.models.charset import Charset
from str_app.models.checkpoint import load_checkpoint, save_checkpoint
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from str_app.reader import Reader
from tests.str_app.engines.test_torch_engine import recognizer

INFO = {"name": "tiny", "temperature": 0.7, "metrics": {}}


def tiny() -> Recognizer:
    return recognizer(0)


def exported(model: Recognizer, folder: Path, precision: Literal["int8", "fp32"]) -> OnnxEngine:
    """The engine of a network's graphs."""
    checkpoint = folder / "tiny.safetensors"
    save_checkpoint(checkpoint, model, INFO)
    crops = list(batch(8, seed=9)[0])
    return export_model(checkpoint, folder / "tiny.onnx", precision=precision, calibration=crops)


# One line for each way to run a network; each must read as the first one does.
ENGINES: dict[str, Callable[[Recognizer, Path], Engine]] = {
    "torch": lambda model, _: TorchEngine(model, INFO),
    "torch, bf16": lambda model, _: TorchEngine(model, INFO, precision="bf16"),
    "onnx, fp32": lambda model, folder: exported(model, folder, "fp32"),
    "onnx, int8": lambda model, folder: exported(model, folder, "int8"),
}
TOLERANCE = {"torch, bf16": 0.1, "onnx, int8": 0.1}  # of logits; float32 elsewhere


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return tiny()


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, model: Recognizer, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    built = ENGINES[request.param](model, tmp_path_factory.mktemp("engine"))
    built.tolerance = TOLERANCE.get(request.param, 1e-4)  # type: ignore[attr-defined]
    return built


def batch(size: int, width: int = 96, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Canvases of noise and the columns that crops cover."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (size, 32, width, 3), dtype=np.uint8), random.integers(8, width + 1, size)


def rows(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_it_describes_its_model(engine: Engine, model: Recognizer) -> None:
    assert engine.name == "tiny"
    assert engine.info == INFO
    assert engine.charset.characters == model.charset.characters
    assert engine.preprocessing == model.preprocessing
    assert engine.max_length == 5
    assert isinstance(engine.charset, Charset)
    assert isinstance(engine.preprocessing, Preprocessing)


def test_steps_of_random_prefixes_follow_their_own_crop_and_parent(engine: Engine, model: Recognizer) -> None:
    """Four steps of 1 to 9 prefixes of 3 crops, each compared with the network stepped alone along the same path."""
    random = np.random.default_rng(1)
    canvases, widths = batch(3)
    memory, state = engine.encode(canvases, widths)
    paths: list[tuple[int, tuple[int, ...]]] = [(crop, ()) for crop in range(3)]  # crop, and the classes fed
    for position in range(4):
        size = int(random.integers(1, 10))
        parents = random.integers(0, len(paths), size)
        crops = np.array([paths[parent][0] for parent in parents])
        tokens = random.integers(1, engine.charset.num_classes, size) if position else np.zeros(size, np.int64)
        step = engine.step(memory, state, tokens, crops, parents)
        paths = [
            (paths[parent][0], (*paths[parent][1], int(token))) for parent, token in zip(parents, tokens, strict=True)
        ]
        state = step.state
        assert step.logits.dtype == step.attention.dtype == np.float32
        assert step.logits.shape == (size, engine.charset.num_classes)
        assert step.attention.min() >= 0
        np.testing.assert_allclose(step.attention.sum(axis=(1, 2)), 1, atol=1e-4)
        for row, (crop, classes) in enumerate(paths):
            logits, attention = stepped_alone(model, canvases[crop], int(widths[crop]), classes)
            np.testing.assert_allclose(step.logits[row], logits, atol=engine.tolerance)  # type: ignore[attr-defined]
            np.testing.assert_allclose(
                step.attention[row].ravel(),
                attention,
                atol=engine.tolerance,  # type: ignore[attr-defined]
            )


@pytest.mark.parametrize("in_order", [False, True])
def test_a_step_of_many_rows_is_that_of_each_row(engine: Engine, in_order: bool) -> None:
    """More rows than engines compute at once, of canvases of two widths one after the other."""
    random = np.random.default_rng(2)
    for width in engine.preprocessing.widths[:2]:
        memory, state = engine.encode(*batch(150 if in_order else 3, width, seed=width))
        crops = np.arange(150) if in_order else random.integers(0, 3, 150)
        tokens = random.integers(0, engine.charset.num_classes, 150)
        step = engine.step(memory, state, tokens, crops, crops)
        after = engine.step(memory, step.state, tokens, crops, np.arange(150)[::-1].copy())
        for row in (0, 63, 64, 127, 128, 149):
            own = slice(row, row + 1)
            alone = engine.step(memory, state, tokens[own], crops[own], crops[own])
            np.testing.assert_allclose(step.logits[own], alone.logits, atol=1e-4)
            np.testing.assert_allclose(step.attention[own], alone.attention, atol=1e-5)
            mirrored = slice(149 - row, 150 - row)
            next_alone = engine.step(memory, alone.state, tokens[mirrored], crops[mirrored], rows(0))
            np.testing.assert_allclose(after.logits[mirrored], next_alone.logits, atol=1e-3)


@torch.inference_mode()
def stepped_alone(
    model: Recognizer, canvas: np.ndarray, width: int, fed: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and attention after these classes, by the network itself."""
    model.eval()
    memory, state = model.encode(model.normalize(torch.from_numpy(canvas[None])), torch.tensor([width]))
    for token in fed:
        logits, state, attention = model.step(memory, state, torch.tensor([token]))
    return logits[0].numpy(), attention[0].numpy()


def test_greedy_decoding_is_stepping_with_the_most_probable_class(engine: Engine) -> None:
    for width in engine.preprocessing.widths:
        memory, state = engine.encode(*batch(5, width, seed=width))
        steps = engine.decode_greedy(memory, state)
        tokens, ended = np.zeros(5, np.int64), np.zeros(5, bool)
        for position in range(engine.max_length + 1):
            step = engine.step(memory, state, tokens, np.arange(5), np.arange(5))
            np.testing.assert_allclose(steps.logits[:, position], step.logits, atol=1e-4)
            np.testing.assert_allclose(steps.attention[:, position], step.attention, atol=1e-5)
            state, tokens = step.state, steps.logits[:, position].argmax(axis=1)
            ended |= tokens == Charset.END
            if ended.all():
                break
        assert steps.logits.shape[1] == position + 1, "as many steps as the longest text needs"


def test_a_crop_reads_the_same_in_any_batch(engine: Engine) -> None:
    canvases, widths = batch(7, seed=3)
    together = engine.decode_greedy(*engine.encode(canvases, widths)).logits
    for row in range(7):
        alone = engine.decode_greedy(*engine.encode(canvases[row : row + 1], widths[row : row + 1])).logits
        np.testing.assert_allclose(alone[0], together[row, : alone.shape[1]], atol=1e-3)


def test_threads_share_it(engine: Engine) -> None:
    batches = [batch(1 + seed % 4, seed=seed) for seed in range(24)]
    expected = [engine.decode_greedy(*engine.encode(*given)).logits for given in batches]

    def read(index: int) -> bool:
        engine.use_threads(1 + index % 2)
        found = engine.decode_greedy(*engine.encode(*batches[index])).logits
        return found.shape == expected[index].shape and np.allclose(found, expected[index], atol=1e-3)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(len(batches))))


def test_an_engine_is_added_by_one_line(tmp_path: Path, model: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/how-to/extending.md says."""

    class MyEngine(TorchEngine):
        def __init__(self, path: Path, threads: int | None) -> None:
            network, info = load_checkpoint(path)
            super().__init__(network, {"name": "mine", **info})

    def load_mine(model: str | Path, options: load.EngineOptions) -> Engine:
        return MyEngine(load.checkpoint_file(model), options.threads)

    monkeypatch.setitem(load.ENGINES, "mine", load_mine)
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, model, {"temperature": 0.7})
    crop = batch(1, 96)[0][0]
    by_default, mine = (Reader.load(path, engine=name).read_crops([crop]) for name in ("torch", "mine"))
    assert mine[0].text == by_default[0].text
    assert Reader.load(path, engine="mine").name == "mine"
    with pytest.raises(StrAppError, match="engine 'other' is not one of auto, onnx, torch, mine"):
        Reader.load(path, engine="other")
