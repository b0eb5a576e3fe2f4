"""Crops worth learning from: what a score says, what is kept, and that it is kept byte for byte."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.sample import Sample
from str_app.models.charset import Charset
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from str_app.training import selection
from str_app.training.selection import Rule, Score, scores, select
from tests.str_app.painted_data import png
from tests.tiny_recognizer import tiny_config

TINY = tiny_config(max_length=4)


@pytest.fixture
def network() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(TINY, Charset("abc"), Preprocessing()).eval()


def picture(width: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (24, width, 3), dtype=np.uint8)


def write(path: Path, labels: list[str]) -> LmdbSource:
    with LmdbWriter(path) as writer:
        for place, label in enumerate(labels):
            boxes = np.full((len(label), 4), place, dtype=np.float32) if place % 2 else None
            writer.add(png(picture(20 + 9 * place)), label, boxes)
    return LmdbSource(path)


def test_a_label_may_have_accents_in_another_form_than_the_charset() -> None:
    torch.manual_seed(0)
    network = Recognizer(TINY, Charset("abü"), Preprocessing()).eval()
    boxes = np.zeros((3, 4), dtype=np.float32)
    decomposed, composed = scores(network, [Sample(picture(40), "u\u0308b", boxes), Sample(picture(40), "üb")])
    assert decomposed is not None
    assert decomposed == composed


@pytest.mark.parametrize(
    ("total", "mean", "kind"),
    [(-0.01, -0.005, "easy"), (-0.1, -0.05, "hard"), (-9.9, -2.4, "hard"), (-5.2, -2.6, "hopeless")],
)
def test_kinds(total: float, mean: float, kind: str) -> None:
    assert Rule().kind(Score(total, mean)) == kind
    assert Rule().kind(None) == "unusable"
    assert Rule(hopeless=math.inf).kind(Score(-5000, -1000)) == "hard"


def test_a_score_is_the_labels_log_probability_whatever_it_is_batched_with(network: Recognizer) -> None:
    texts = ["ab", "", "a", "abcab", "cba", "d", "abca"]
    samples: list[Sample | None] = [Sample(picture(18 + 20 * k), text) for k, text in enumerate(texts)]
    samples.append(None)
    for sample, score in zip(samples, scores(network, samples), strict=True):
        if sample is None or sample.text in ("", "abcab", "d"):  # too long; not in the charset
            assert score is None
            continue
        canvas, covered = network.preprocessing(sample.image)
        targets = torch.tensor([network.charset.encode(sample.text)])  # with its end
        with torch.no_grad():
            images = network.normalize(torch.from_numpy(canvas[None]))
            logits, _, _ = network(images, torch.tensor([covered]), targets)
        expected = logits.log_softmax(-1).gather(2, targets[..., None]).sum().item()
        assert score is not None
        assert score.total == pytest.approx(expected, rel=0.02)  # bfloat16 convolutions
        assert score.mean == pytest.approx(score.total / (len(sample.text) + 1))


def test_what_is_kept_is_kept_byte_for_byte(
    network: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "all.lmdb", ["a", "ab", "abc", "b", "bc", "c"])
    given = [Score(-1, -0.5), Score(0, 0), Score(-9, -3), None, Score(-2, -0.7), Score(0, 0)]
    left = list(given)
    monkeypatch.setattr(selection, "CHUNK", 4)
    monkeypatch.setattr(selection, "scores", lambda folded, samples: [left.pop(0) for _ in samples])
    with LmdbWriter(tmp_path / "kept.lmdb") as writer:
        *_, last = select(network, source, writer, Rule(easy=0), "cpu")
    kept = LmdbSource(tmp_path / "kept.lmdb")
    assert (last.kept, len(kept)) == (2, 2)
    assert last.crops == {"hard": 2, "easy": 2, "hopeless": 1, "unusable": 1}
    assert last.nats == {"hard": 3, "easy": 0, "hopeless": 9}
    for place, index in enumerate((0, 4)):
        assert kept.image_bytes(place) == source.image_bytes(index)
        assert kept.label(place) == source.label(index)
        assert kept.identifier(place) == source.identifier(index)  # lexicons and subset lists refer to it
        assert (kept[place].boxes is None) == (source[index].boxes is None)


@pytest.mark.parametrize(("easy", "count"), [(0.0, 0), (1.0, 200)])
def test_a_share_of_the_easy_ones(
    network: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, easy: float, count: int
) -> None:
    source = write(tmp_path / "all.lmdb", ["a"] * 10)
    monkeypatch.setattr(selection, "scores", lambda folded, samples: [Score(0, 0)] * len(samples))
    kept = []
    for seed in range(20):
        with LmdbWriter(tmp_path / f"{seed}.lmdb") as writer:
            *_, last = select(network, source, writer, Rule(easy=easy, seed=seed), "cpu")
            kept.append(last.kept)
            writer.add(b"", "one at least")
    assert sum(kept) == count


def test_about_a_share_of_the_easy_ones(network: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "all.lmdb", ["a"] * 100)
    monkeypatch.setattr(selection, "scores", lambda folded, samples: [Score(0, 0)] * len(samples))
    with LmdbWriter(tmp_path / "kept.lmdb") as writer:
        *_, last = select(network, source, writer, Rule(easy=0.3), "cpu")
        writer.add(b"", "one at least")
    assert 15 <= last.kept <= 45


def test_the_seed_chooses_among_the_easy_ones(
    network: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "all.lmdb", ["a"] * 20)
    monkeypatch.setattr(selection, "scores", lambda folded, samples: [Score(0, 0)] * len(samples))
    kept = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        with LmdbWriter(tmp_path / name) as writer:
            *_, _ = select(network, source, writer, Rule(easy=0.5, seed=seed), "cpu")
        chosen = LmdbSource(tmp_path / name)
        kept.append([chosen.identifier(index) for index in range(len(chosen))])
    assert kept[0] == kept[1] != kept[2]
