"""The fitted temperature mends confidences that are too sure or too shy."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from str_app.datasets.sample import Sample, UnreadableSample
from str_app.decoding.word_prior import WordPrior
from str_app.engines.load import make_engine
from str_app.errors import StrAppError
from str_app.models.checkpoint import read_header
from str_app.reader import Reader
from str_app.training import finishing
from str_app.training.calibration import TEMPERATURES, best_temperature, fit_temperature
from str_app.training.finishing import calibrate_and_score
from tests.str_app.fake_engine import FakeEngine, paint
from tests.tiny_recognizer import tiny_recognizer


@dataclasses.dataclass
class Crops:
    """Crops, None where one is broken."""

    images: list
    labels: list
    name = "crops"

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if self.images[index] is None:
            raise UnreadableSample("crops, 0: broken")
        return Sample(self.images[index], self.labels[index])

    def label(self, index):
        return self.labels[index]

    def identifier(self, index):
        return str(index)


@pytest.mark.parametrize("sharpness", [0.7, 1.0, 2.0])
def test_recovers_the_temperature(sharpness):
    """Readings of three steps whose logits are `sharpness` times too large for how often they are right.

    Classes 1 and 2 are the cases of one letter: either is right.
    """
    random = np.random.default_rng(0)
    other_case = np.array([0, 2, 1, 3, 4])
    tables, right = [], []
    for _ in range(3000):
        logits = random.normal(size=(3, 5)) * random.uniform(0.5, 4)
        honest = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        chosen = honest.argmax(axis=1)
        other = other_case[chosen]
        steps = np.arange(3)
        chance = np.exp(honest[steps, chosen]) + np.where(other == chosen, 0, np.exp(honest[steps, other]))
        right.append(random.random() < chance.prod())
        loud = logits * sharpness - np.logaddexp.reduce(logits * sharpness, axis=1, keepdims=True)
        others = np.where(other == chosen, -np.inf, loud[steps, other])
        tables.append(np.column_stack([loud[steps, chosen], others, loud]))
    assert best_temperature(tables, np.array(right)) == pytest.approx(sharpness, rel=0.1)


def test_a_model_that_is_sure_and_wrong_is_made_shy():
    model = tiny_recognizer(max_length=2)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (32, 20 * k, 3), dtype=np.uint8) for k in range(1, 9)]  # every canvas width
    with torch.no_grad():
        model.decoder.classifier.bias[0] = 30.0
    assert fit_temperature(make_engine(model), [Crops([None, *images], ["d"] * 9)]) == TEMPERATURES[-1]


def test_broken_crops_are_left_out():
    model = tiny_recognizer(max_length=2)
    with pytest.raises(StrAppError, match="no readable"):
        fit_temperature(make_engine(model), [Crops([None], ["a"])])


@pytest.mark.parametrize(("label", "temperature"), [("aB-C", TEMPERATURES[0]), ("abd", TEMPERATURES[-1])])
def test_a_reading_is_right_under_the_protocol(label, temperature):
    """Which does not compare case and marks."""
    assert fit_temperature(FakeEngine(), [Crops([paint("Abc", 0.7)] * 4, [label] * 4)]) == temperature


def test_the_best_weights_are_scored_as_readers_will_read_them(tiny_checkpoint, tmp_path, monkeypatch):
    """With the temperature that was fitted, and with the known words that readers have unless told otherwise."""

    def engine(model, info=None, device="cpu"):
        made = FakeEngine()
        made.info = dict(info or {})
        return made

    path = shutil.copy(tiny_checkpoint, tmp_path / "best.safetensors")
    monkeypatch.setattr(finishing, "make_engine", engine)
    monkeypatch.setattr(finishing, "fit_temperature", lambda engine, sources: 2.0)
    crops = Crops([paint("thd", [0.99, 0.99, 0.6]), paint("Qx7", 0.95)], ["the", "Qx7"])
    (result,) = calibrate_and_score(path, [crops])
    assert [each.text for each in result.predictions] == crops.labels, "the first is a word if it is in doubt"
    reader = Reader(engine(None, {"temperature": 2.0}), prior=WordPrior.released())
    confidences = [each.confidence for each in reader.read_crops(crops.images)]
    assert [each.confidence for each in result.predictions] == pytest.approx(confidences)
    stored = read_header(path)["info"]
    assert (stored["name"], stored["temperature"]) == ("tiny", 2.0)
    assert stored["metrics"] == {"validation": [result.score().as_json()]}
