"""Training of the word detector: crops, a run that stops and goes on, and the exported file."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from str_app.datasets.labelled_photos import LabelledPhoto, LabelledWord, open_photos
from str_app.errors import StrAppError
from str_app.export.detector_graph import export_detector
from str_app.models.detectors.word_detector import ExportedDetector, WordMaps
from str_app.photos.word_detector import WordDetector
from str_app.photos.word_maps import WordMapPolicy
from str_app.training.detection import loop
from str_app.training.detection.loop import DetectorSettings, load_detector, save_detector, train_detector
from str_app.training.detection.objective import detector_losses
from str_app.training.detection.samples import DetectorBatch, SceneCrops, collate
from str_app.training.optimizers import Optimizers
from str_app.training.run_logger import METRICS, read_metrics
from str_app.training.schedules import constant
from str_app.training.state import load_state, lock_run

TINY = DetectorSettings(steps=4, batch_size=2, side=64, workers=0, log_every=1, warmup_steps=1)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A white picture with two black words, one of them illegible, as `str-app synth --scenes` writes it."""
    (tmp_path / "scenes" / "images").mkdir(parents=True)
    picture = np.full((200, 300, 3), 255, np.uint8)
    cv2.rectangle(picture, (50, 60), (149, 89), (0, 0, 0), -1)
    cv2.imwrite(str(tmp_path / "scenes" / "images" / "000000.jpg"), picture)
    words = [
        {"quad": [50, 60, 150, 60, 150, 90, 50, 90], "text": "OPEN", "line": 0, "characters": []},
        {"quad": [200, 150, 280, 150, 280, 170, 200, 170], "text": "###", "line": 1, "characters": []},
    ]
    row = {"image": "images/000000.jpg", "words": words}
    (tmp_path / "scenes" / "labels.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "scenes"


def test_targets_lie_where_the_crop_has_the_words(scenes: Path) -> None:
    crops = SceneCrops(open_photos(scenes), side=128, seed=1)
    seen = 0
    for index in range(40):
        picture, cores, counted, edges, weights = crops[index]
        assert picture.shape == (3, 128, 128)
        assert (cores.shape, counted.shape) == ((1, 64, 64), (64, 64))
        assert (edges.shape, weights.shape) == ((4, 32, 32), (32, 32))
        inside = cores[0] > 0.9
        if inside.sum() < 20:
            continue
        # The word is a filled rectangle: its core has one colour, whatever the light.
        grey = cv2.resize(picture.transpose(1, 2, 0), (64, 64), interpolation=cv2.INTER_AREA).astype(float).mean(axis=2)
        assert grey[inside].std() < 6
        seen += 1
    assert seen > 20


def test_the_same_index_is_the_same_crop(scenes: Path) -> None:
    first, second = (SceneCrops(open_photos(scenes), side=64, seed=3)[7] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_pictures_without_words_teach_too(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 40, 3), np.uint8))
    photo = LabelledPhoto(tmp_path / "a.png", ())
    curved = LabelledPhoto(tmp_path / "a.png", (LabelledWord(((0, 0), (20, 5), (40, 0), (40, 20), (0, 20)), "a"),))
    batch = collate([SceneCrops([each], side=64, seed=0)[0] for each in (photo, curved)])
    assert float(batch.cores.max()) == 0
    model = loop.WordDetector()
    losses = detector_losses(model(batch.pictures.float()), batch)
    assert losses.total().isfinite()
    assert losses.distances.item() == 0


def test_a_run_that_stops_goes_on_as_if_it_had_not(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    lines: list[str] = []
    assert train_detector(whole, [scenes], TINY, say=lines.append) == 0
    assert any(line.startswith("step 4 ") for line in lines)

    class Stop(list[int]):
        """Two batches, then SIGTERM."""

        def __bool__(self) -> bool:
            asked.append(0)
            return len(asked) > 2 * 2

        def __getitem__(self, index: object) -> int:  # type: ignore[override]
            return 15

    asked: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: _Entered(Stop()))
        assert train_detector(halved, [scenes], TINY, say=lines.append) == 15
    with pytest.raises(StrAppError, match="add --resume"):
        train_detector(halved, [scenes], TINY)
    with (halved / METRICS).open("a") as log:
        log.write('{"step": 4, "cores": 9.0}\n')  # of a part that was killed after the state
    assert train_detector(halved, [scenes], TINY, resume=True, say=lines.append) == 0
    assert [line["step"] for line in read_metrics(halved)] == [1, 2, 3, 4]
    (a, _), (b, _) = load_detector(whole / loop.WEIGHTS), load_detector(halved / loop.WEIGHTS)
    for name, tensor in a.state_dict().items():
        torch.testing.assert_close(tensor, b.state_dict()[name], msg=name)


class _Entered:
    def __init__(self, stop: list[int]) -> None:
        self.stop = stop

    def __enter__(self) -> list[int]:
        return self.stop

    def __exit__(self, *error: object) -> None:
        pass


def test_two_runs_do_not_share_a_folder(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with lock_run(tmp_path / "run"), pytest.raises(StrAppError, match=r"run: another process trains there"):
        train_detector(tmp_path / "run", [scenes], TINY)
    assert train_detector(tmp_path / "run", [scenes], dataclasses.replace(TINY, steps=1)) == 0
    with lock_run(tmp_path / "run"):  # the run that ended has let go
        pass


def test_settings_that_cannot_be(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(StrAppError, match="not a multiple of 32"):
        train_detector(tmp_path / "run", [scenes], DetectorSettings(side=100))
    with pytest.raises(StrAppError, match="holds no run"):
        train_detector(tmp_path / "run", [scenes], TINY, resume=True)


def test_the_exported_file_answers_as_the_network(scenes: Path, tmp_path: Path) -> None:
    train_detector(tmp_path / "run", [scenes], TINY, say=lambda line: None)
    weights, file = tmp_path / "run" / loop.WEIGHTS, tmp_path / "detector.onnx"
    export_detector(weights, file)
    detector = WordDetector(file, threads=1)
    assert (detector.name, detector.unit) == ("words-small", "word")
    pictures = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3)).astype(np.uint8)
    scores, edges = detector._session().run(None, {"pictures": pictures})
    with torch.no_grad():
        expected = ExportedDetector(load_detector(weights)[0])(torch.from_numpy(pictures))
    np.testing.assert_allclose(scores, expected[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(edges, expected[1].numpy(), atol=1e-3, rtol=1e-3)
    for shape in ((33, 70, 3), (1, 1, 3), (700, 1400, 3)):
        assert isinstance(detector.find(np.full(shape, 200, np.uint8)), list)
    copy = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(copy._session().run(None, {"pictures": pictures})[0], scores)


def test_words_come_back_in_pixels_of_the_photograph() -> None:
    """A detector that sees one word in the middle of any picture."""
    detector = object.__new__(WordDetector)
    detector.longest_side, detector.policy = 160, WordMapPolicy()

    class Session:
        def run(self, names: object, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            _, height, width, _ = feeds["pictures"].shape
            assert (height, width) == (96, 160)
            scores, edges = np.zeros((1, 48, 80), np.float32), np.zeros((1, 4, 24, 40), np.float32)
            scores[0, 20:28, 20:60] = 1  # rows 40 to 56, columns 40 to 120
            rows = (np.arange(24, dtype=np.float32) + 0.5)[:, None] * 4
            edges[0, 0] = np.log(np.maximum(rows - 32, 0.5) / 8)
            edges[0, 1] = np.log(np.maximum(64 - rows, 0.5) / 8)
            edges[0, 2] = 1
            return scores, edges

    detector._session = Session
    (word,) = detector.find(np.zeros((180, 320, 3), np.uint8))  # twice as large
    np.testing.assert_allclose(word.quad, [(64, 64), (256, 64), (256, 128), (64, 128)], atol=1.5)
    assert word.score == pytest.approx(1)


def test_files_that_are_no_detector(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(StrAppError, match="not a word detector"):
        WordDetector(tmp_path / "a.onnx")
    with pytest.raises(StrAppError, match="no weights of a word detector"):
        load_detector(tmp_path / "a.onnx")


def test_weights_of_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "FORMAT", "str-app-detector/9")
        save_detector(tmp_path / "later.safetensors", loop.WordDetector(), {})
    with pytest.raises(StrAppError, match=r"format 'str-app-detector/9'; this version reads 'str-app-detector/1'"):
        load_detector(tmp_path / "later.safetensors")


def test_settings_of_a_run_do_what_they_say(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates, norms, shown = [], [], []
    step, set_rate, losses = Optimizers.step, Optimizers.set_rate, loop.detector_losses

    def noting_step(self: Optimizers) -> None:
        gradients = [p.grad for group in self._groups() for p in group["params"] if p.grad is not None]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())
        step(self)

    monkeypatch.setattr(Optimizers, "step", noting_step)
    monkeypatch.setattr(Optimizers, "set_rate", lambda self, rate: rates.append(rate) or set_rate(self, rate))
    monkeypatch.setattr(
        loop, "detector_losses", lambda maps, batch: shown.append(batch.pictures) or losses(maps, batch)
    )
    settings = dataclasses.replace(TINY, steps=3, optimizer="adamw", cooling=0.9, clip_norm=1e-3)
    train_detector(tmp_path / "0", [scenes], settings, say=lambda line: None)
    assert rates == [constant(k, 3, 1, 0.9) for k in range(3)]
    train_detector(tmp_path / "1", [scenes], dataclasses.replace(settings, steps=1, seed=1), say=lambda line: None)
    assert max(norms) < 1.01e-3
    assert not torch.equal(shown[0], shown[3])
    saved, _ = load_detector(tmp_path / "0" / loop.WEIGHTS)
    torch.manual_seed(0)
    latest = load_state(tmp_path / "0" / loop.STATE)["model"]
    for others in (loop.WordDetector().state_dict(), latest):  # neither the first weights nor the last: their average
        assert any(not torch.equal(tensor, others[name]) for name, tensor in saved.named_parameters())


def answers(batch: DetectorBatch) -> WordMaps:
    """Maps that agree with the targets."""
    return WordMaps(40 * batch.cores - 20, batch.edges.clone())


def test_losses_are_of_what_is_wrong_and_counts() -> None:
    cores, counted = torch.zeros(1, 1, 16, 16), torch.ones(1, 16, 16)
    cores[..., 4:8, 4:8], counted[:, 12:, 12:] = 1, 0
    edges, edge_weights = torch.rand(1, 4, 8, 8), torch.zeros(1, 8, 8)
    edge_weights[:, 2:4, 2:4] = 0.5
    batch = DetectorBatch(torch.zeros(1, 3, 32, 32), cores, counted, edges, edge_weights)
    assert detector_losses(answers(batch), batch).total().item() == pytest.approx(0, abs=1e-4)
    elsewhere = answers(batch)
    elsewhere.cores[..., 12:, 12:] = 20  # where an illegible word is
    elsewhere.edges[:, :, 5:] += 1  # where no word is
    assert detector_losses(elsewhere, batch).total().item() == pytest.approx(0, abs=1e-4)
    missed = answers(batch)
    missed.cores[..., 4, 4] = -20
    losses = detector_losses(missed, batch)
    assert losses.cores.item() == pytest.approx(20 / 16, rel=1e-3)
    assert losses.overlap.item() == pytest.approx(1 - (2 * 15 + 1) / (15 + 16 + 1), rel=1e-3)
    for part, name, error in ((slice(0, 2), "distances", 2 * (1 - 0.05)), (slice(2, 4), "directions", 2.0)):
        wrong = answers(batch)
        wrong.edges[:, part] += 1
        losses = detector_losses(wrong, batch)
        assert getattr(losses, name).item() == pytest.approx(error, rel=1e-3)
        assert losses.total().item() == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
    "word",
    [
        LabelledWord(((20, 20), (90, 20), (90, 40), (20, 40)), None),
        LabelledWord(((20, 20), (90, 20), (90, 23), (20, 23)), "small"),
    ],
)
def test_illegible_and_tiny_words_are_not_learned(tmp_path: Path, word: LabelledWord) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((60, 110, 3), np.uint8))
    crops = SceneCrops([LabelledPhoto(tmp_path / "a.png", (word,))], side=64, seed=0)
    batch = collate([crops[index] for index in range(12)])
    assert not batch.cores.any()
    assert not batch.edge_weights.any()
    assert not batch.counted.all()
