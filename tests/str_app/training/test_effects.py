"""Each setting of a run does what it says."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from str_app.datasets.augmentation import Augmentation
from str_app.datasets.opening import open_source
from str_app.datasets.sample import Sample
from str_app.errors import StrAppError
from str_app.models.charset import Charset
from str_app.models.checkpoint import load_checkpoint
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from str_app.training import loop
from str_app.training.loop import Finished, Stopped, schedule, train
from str_app.training.objective import Objective, attention_outside_boxes
from str_app.training.optimizers import Optimizers
from str_app.training.run_logger import read_metrics
from str_app.training.samples import Prepared, TrainingSamples, spelled
from str_app.training.settings import TrainSettings, load_settings, save_settings
from str_app.training.state import load_state
from tests.str_app.training.test_training import stop_at
from tests.str_app.training.tiny_run import TINY, encoded, settings_for, weights, written
from tests.tiny_recognizer import changed

WIDE = changed(TINY, hidden_size=40)  # has matrices that Muon takes
EFFECTS: list[dict[str, Any]] = [
    {"label_smoothing": 0.3},
    {"loss_limit": 1e-6},
    {"clip_norm": 1e-4},
    {"ema_decay": 0.0},
    {"ctc_weight_end": 9.0},
    {"attention_weight_end": 9.0},
    {"learning_rate": 1e-2},
    {"matrix_learning_rate": 0.5},
    {"weight_decay": 5.0},
    {"augmentation": "strong"},
    {"seed": 1},
]


@pytest.mark.parametrize("setting", EFFECTS, ids=lambda setting: next(iter(setting)))
def test_changes_what_is_learnt(data: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    usual = settings_for(data, architecture=WIDE, optimizer="muon", validation=())
    for name, settings in (("usual", usual), ("again", usual), ("changed", dataclasses.replace(usual, **setting))):
        train(settings, tmp_path / name)
    first, again, other = (weights(tmp_path / name) for name in ("usual", "again", "changed"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_weights_choose_the_data(data: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other.lmdb", [(encoded(7), "ba")])
    both = settings_for(data, train=(str(data), str(other)), validation=(), weights=(0.0, 1.0))
    train(both, tmp_path / "both")
    train(dataclasses.replace(both, weights=(1.0, 0.0)), tmp_path / "other")
    seen = [load_state(tmp_path / name / "last.pt")["usage"] for name in ("both", "other")]
    assert str(seen[0]) != str(seen[1])


def test_so_many_validation_crops_are_read(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    evaluate = loop.evaluate_source
    monkeypatch.setattr(
        loop, "evaluate_source", lambda *given, **named: limits.append(named["limit"]) or evaluate(*given, **named)
    )
    train(settings_for(data, validation_limit=5), tmp_path / "run")
    assert set(limits) == {5}


def test_the_state_is_written_as_often_as_asked(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    save_state = loop.save_state
    monkeypatch.setattr(
        loop, "save_state", lambda path, state: written.append(state["step"]) or save_state(path, state)
    )
    train(settings_for(data, checkpoint_minutes=0.0), tmp_path / "run")
    assert written == [0, 1, 2, 3, 4, 5, 6, 6]


@pytest.mark.parametrize(("charset", "label"), [("ab\u00fc", "u\u0308"), ("abu\u0308", "\u00fc")])
def test_labels_may_have_accents_in_another_form_than_the_charset(tmp_path: Path, charset: str, label: str) -> None:
    """In a list of German words made on macOS, ü is u and two dots."""
    samples = [(encoded(20 + place), (label, "b")[place % 2]) for place in range(32)]
    train(settings_for(written(tmp_path / "data.lmdb", samples), charset=charset), tmp_path / "run")
    assert [line["unusable"] for line in read_metrics(tmp_path / "run") if "unusable" in line] == [0.0] * 3
    model, _ = load_checkpoint(tmp_path / "run/last.safetensors")
    assert model.charset.characters == charset


def test_boxes_of_characters_that_are_composed_are_unknown() -> None:
    charset, boxes = Charset("ab\u00fc"), np.zeros((3, 4), dtype=np.float32)
    crop = np.zeros((20, 40, 3), dtype=np.uint8)
    assert spelled(Sample(crop, "aab", boxes), charset).boxes is boxes
    decomposed = spelled(Sample(crop, "u\u0308b", boxes), charset)
    assert (decomposed.text, decomposed.boxes) == ("\u00fcb", None)


def test_more_unusable_samples_may_be_allowed(data: Path, tmp_path: Path) -> None:
    half = settings_for(data, charset="a", validation=(), steps=50, batch_size=24)
    with pytest.raises(StrAppError, match=r"^12 of 24 samples are unusable, more than unusable_limit=0\.05"):
        train(half, tmp_path / "run")
    train(dataclasses.replace(half, unusable_limit=0.6), tmp_path / "allowed")


def test_too_many_unusable_labels_end_a_run_before_it_starts(tmp_path: Path) -> None:
    data = written(tmp_path / "a.lmdb", [(encoded(k), "z" if k < 5 else "a") for k in range(100)])
    settings = settings_for(data, validation=(), steps=1, unusable_limit=0.04)
    with pytest.raises(StrAppError, match=r"^5 % of the labels .* unusable_limit=0\.04; .*'z' .*--charset FILE"):
        train(settings, tmp_path / "run")
    train(dataclasses.replace(settings, unusable_limit=0.05), tmp_path / "run")


def test_too_many_unreadable_images_stop_a_run(tmp_path: Path) -> None:
    data = written(tmp_path / "a.lmdb", [(encoded(k) if k % 4 else b"broken", "a") for k in range(24)])
    settings = settings_for(data, validation=(), steps=50, batch_size=24)
    with pytest.raises(StrAppError, match=r"^6 of 24 samples are unusable, .*not an image.*--set unusable_limit"):
        train(settings, tmp_path / "run")


def test_a_run_goes_on_with_data_that_were_repaired(data: Path, tmp_path: Path) -> None:
    half = settings_for(data, charset="a", validation=(), steps=50, batch_size=24, unusable_limit=0.6)
    train(half, tmp_path / "run")
    assert len(load_state(tmp_path / "run/last.pt")["usage"]["unusable"]) == 12
    repaired = written(tmp_path / "repaired.lmdb", [(encoded(k), "a") for k in range(24)])
    whole = dataclasses.replace(half, train=(str(repaired),), steps=100, unusable_limit=0.0)
    train(whole, tmp_path / "run", resume=True)
    assert load_state(tmp_path / "run/last.pt")["usage"]["unusable"] == []


def test_two_validation_sets_of_one_name(data: Path, tmp_path: Path) -> None:
    sets = []
    for name in ("v", "w"):
        (tmp_path / name).mkdir()
        shutil.copytree(data, tmp_path / name / "val")
        sets.append(str(tmp_path / name / "val"))
    train(settings_for(data, steps=2, validate_every=2, validation=tuple(sets)), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {"accuracy/val", "accuracy/val-2"} <= lines[-1].keys()


def test_no_decay_on_biases_norms_and_positions() -> None:
    model = Recognizer(WIDE, Charset("ab"), Preprocessing(widths=(64,)))
    optimizers = Optimizers(model, dataclasses.replace(TrainSettings(), weight_decay=0.5, optimizer="adamw"))
    decayed = {id(p) for group in optimizers._groups() if group["weight_decay"] for p in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert "decoder.cell.weight_ih" in names
    assert "decoder.attention.position" not in names
    assert not {name for name in names if name.endswith("bias")}
    assert {parameter.dim() for name, parameter in model.named_parameters() if name in names} <= {2, 4}


def test_the_attention_loss_is_of_what_lies_outside_the_box() -> None:
    attention = torch.tensor([[[0.7, 0.1, 0.1, 0.1]]])  # 2 rows of 2 columns, 16 × 4 pixels each
    box = torch.tensor([[[0.0, 0.0, 3.0, 15.0]]])
    inside = attention_outside_boxes(attention, box, (2, 2), 32, 4)
    assert inside.item() == pytest.approx(-np.log(0.7), rel=1e-5)
    below = attention_outside_boxes(attention, box + torch.tensor([0.0, 16.0, 0.0, 16.0]), (2, 2), 32, 4)
    assert below.item() == pytest.approx(-np.log(0.1), rel=1e-5)


def test_a_box_has_all_cells_that_it_touches() -> None:
    attention = torch.tensor([[[0.1, 0.6, 0.2, 0.1]]])
    loss = attention_outside_boxes(attention, torch.tensor([[[5.0, 1.0, 7.0, 15.0]]]), (2, 2), 32, 4)
    assert loss.item() == pytest.approx(-np.log(0.6), rel=1e-5)
    beyond = attention_outside_boxes(attention, torch.tensor([[[9.0, 1.0, 12.0, 15.0]]]), (2, 2), 32, 4)
    assert beyond.item() == 0, "outside of the crop"


def prepared(sample: Sample) -> Prepared:
    source: Any = type("One", (), {"name": "one", "__len__": lambda _: 1, "__getitem__": lambda _, index: sample})()
    samples = TrainingSamples([source], (), Charset("ab"), Preprocessing(widths=(64,)), 9, Augmentation("none"), 0)
    found = samples.prepare((0, 0), 0)
    assert isinstance(found, Prepared)
    return found


@pytest.mark.parametrize("scale", [1, 10])
def test_boxes_are_in_pixels_of_the_canvas(scale: int) -> None:
    image = np.full((64 * scale, 96 * scale, 3), 128, np.uint8)
    found = prepared(Sample(image, "a", np.array([[10, 20, 30, 60]], np.float32) * scale))
    x = found.width / 96
    assert found.boxes == pytest.approx(np.array([[10 * x, 10, 30 * x, 30]]), rel=1e-3)


@pytest.mark.parametrize("shape", [(40_000, 30), (30, 40_000), (3000, 4000)])
def test_large_crops_are_shrunk_before_they_are_augmented(shape: tuple[int, int], monkeypatch: Any) -> None:
    sizes = []
    monkeypatch.setattr(Augmentation, "__call__", lambda self, sample, key: sizes.append(sample.image.shape) or sample)
    prepared(Sample(np.zeros((*shape, 3), np.uint8), "a"))
    ((height, width, _),) = sizes
    assert height <= 128
    assert width <= 256


def test_an_empty_part_of_a_batch_is_no_error(data: Path, tmp_path: Path) -> None:
    some = written(tmp_path / "some.lmdb", [(encoded(40 + k), "?" if k % 8 == 0 else "ab") for k in range(24)])
    train(settings_for(some, parts=8, unusable_limit=1.0, validation=()), tmp_path / "run")


def test_a_best_of_other_validation_is_not_kept(data: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other.lmdb", [(encoded(7), "ba")])
    settings = settings_for(data)
    train(settings, tmp_path / "run")
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    torch.save({**state, "best": 99.0}, tmp_path / "run/last.pt")
    longer = dataclasses.replace(settings, steps=8)
    train(longer, tmp_path / "run", resume=True)
    assert load_state(tmp_path / "run/last.pt")["best"] == 99.0
    of_other = dataclasses.replace(longer, steps=10, validation=(str(other),))
    train(of_other, tmp_path / "run", resume=True)
    assert load_state(tmp_path / "run/last.pt")["best"] < 99.0


def test_weight_decay_may_change_in_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(data, architecture=WIDE, optimizer="muon", validation=())
    for name, decay in (("usual", 0.01), ("more", 9.0)):
        with monkeypatch.context() as patch:
            stop_at(patch, 3)
            with pytest.raises(Stopped):
                train(settings, tmp_path / name)
        train(dataclasses.replace(settings, weight_decay=decay), tmp_path / name, resume=True)
    usual, more = (weights(tmp_path / name)["decoder.cell.weight_hh"] for name in ("usual", "more"))
    assert not torch.equal(usual, more)


def test_a_run_can_be_ended_where_it_stopped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(data, steps=9)
    with monkeypatch.context() as patch:
        stop_at(patch, 5, signal.SIGINT)
        with pytest.raises(Stopped, match="end the run here with --set steps=5 as well"):
            train(settings, tmp_path / "run")
    with pytest.raises(StrAppError, match="step 5 is past steps=4; --set steps=5 ends the run there") as caught:
        train(dataclasses.replace(settings, steps=4), tmp_path / "run", resume=True)
    assert not isinstance(caught.value, Finished)  # which ends a command with success
    scored = []
    monkeypatch.setattr(loop, "calibrate_and_score", lambda best, *rest: scored.append(best) or [])
    train(dataclasses.replace(settings, steps=5), tmp_path / "run", resume=True)
    assert scored == [tmp_path / "run/best.safetensors"]
    with pytest.raises(Finished, match="all 5 steps are done"):
        train(dataclasses.replace(settings, steps=5), tmp_path / "run", resume=True)


def test_two_runs_do_not_share_a_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(data)
    go = loop._Run.go

    def and_another(self: Any, stop: Any) -> None:
        with pytest.raises(StrAppError, match=r"run: another process trains there; choose another --out"):
            loop._Run(settings, tmp_path / "run", torch.device("cpu"), self.world, False)
        go(self, stop)

    monkeypatch.setattr(loop._Run, "go", and_another)
    train(settings, tmp_path / "run")


def test_a_large_seed(data: Path, tmp_path: Path) -> None:
    train(settings_for(data, seed=202611301234567, steps=1, validation=()), tmp_path / "run")


def test_settings_are_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.json"
    save_settings(TrainSettings(steps=3), file)
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_settings(TrainSettings(steps=4), file)
    assert load_settings(file).steps == 3
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.fixture
def words_of_two(tmp_path: Path) -> Path:
    return written(tmp_path / "two.lmdb", [(encoded(40 + k), "ab") for k in range(8)])


def test_losses_are_weighted_and_logged_per_character(
    words_of_two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 16 characters and 8 ends, whose losses are multiples of one weight."""
    weight: list[torch.nn.Parameter] = []
    slopes, rates = [], []

    def losses(self: Objective, *batch: torch.Tensor) -> torch.Tensor:
        weight[:] = [self.model.decoder.classifier.bias]
        scale = 1 + weight[0].sum() - weight[0].sum().detach()
        return torch.tensor([48.0, 32.0, 16.0]) * scale

    step, set_rate = Optimizers.step, Optimizers.set_rate
    monkeypatch.setattr(Objective, "forward", losses)
    monkeypatch.setattr(Optimizers, "step", lambda self: slopes.append(weight[0].grad[0].item()) or step(self))
    monkeypatch.setattr(Optimizers, "set_rate", lambda self, rate: rates.append(rate) or set_rate(self, rate))
    ends = {"ctc_weight": 1.0, "ctc_weight_end": 0.0, "attention_weight": 0.0, "attention_weight_end": 3.0}
    settings = settings_for(words_of_two, validation=(), steps=4, log_every=1, clip_norm=1e9, **ends)
    train(settings, tmp_path / "run")
    assert slopes == pytest.approx([2 + 2, 2 + 1 + 1.5, 2 + 3, 2 + 3])  # the auxiliary weights change for half a run
    logged = read_metrics(tmp_path / "run")
    for name, value in (("characters", 2.0), ("ctc", 2.0), ("attention", 1.0)):
        assert [values[f"loss/{name}"] for values in logged] == [value] * 4
    assert rates == [schedule(k, settings) for k in range(4)]
    assert [values["learning_rate"] for values in logged] == pytest.approx([1e-3 * rate for rate in rates], abs=1e-6)


def test_the_seed_and_the_step_decide_dropout_and_order(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, shown = [], []
    forward = Objective.forward

    def noting(self: Objective, canvases: torch.Tensor, *batch: torch.Tensor) -> torch.Tensor:
        drawn.append(torch.rand(()).item())
        shown.append(sorted(canvases.flatten(1).float().mean(dim=1).tolist()))
        return forward(self, canvases, *batch)

    monkeypatch.setattr(Objective, "forward", noting)
    for seed in (0, 1):
        settings = settings_for(data, validation=(), steps=3, augmentation="none", seed=seed)
        train(settings, tmp_path / str(seed))
    assert len(set(drawn)) == 6
    assert shown[:3] != shown[3:]


def test_augmentation_depends_on_the_seed_and_the_position(data: Path) -> None:
    def canvas(seed: int, position: int) -> Any:
        augmentation = Augmentation("strong")
        source = open_source(data)
        samples = TrainingSamples([source], (), Charset("ab"), Preprocessing(widths=(64,)), 9, augmentation, seed)
        found = samples.prepare((0, 5), position)
        assert isinstance(found, Prepared)
        return found.canvas

    usual = canvas(0, 0)
    assert np.array_equal(usual, canvas(0, 0))
    assert not np.array_equal(usual, canvas(1, 0))
    assert not np.array_equal(usual, canvas(0, 24)), "the next time that the crop is shown"


def test_validated_and_kept_are_the_averaged_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[dict[str, torch.Tensor]] = []
    make_engine = loop.make_engine

    def noting(model: Recognizer, *given: Any, **named: Any) -> Any:
        read.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return make_engine(model, *given, **named)

    monkeypatch.setattr(loop, "make_engine", noting)
    train(settings_for(data, steps=4, name="mine"), tmp_path / "run")
    for name in ("best.safetensors", "last.safetensors"):
        assert load_checkpoint(tmp_path / "run" / name)[1]["name"] == "mine"
        kept = weights(tmp_path / "run", name)
        assert all(torch.equal(kept[key], tensor) for key, tensor in read[0].items())
    latest = load_state(tmp_path / "run/last.pt")["objective"]
    assert any(not torch.equal(tensor, latest[f"model.{key}"]) for key, tensor in read[0].items())


def test_every_validation_crop_counts_alike(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy by which the best is chosen is that of all crops, not the mean of the sets."""
    one = written(tmp_path / "one.lmdb", [(encoded(7), "ba")])
    evaluate = loop.evaluate_source

    def right_in_the_large_set(reader: Any, source: Any, **named: Any) -> Any:
        result = evaluate(reader, source, **named)
        read = [dataclasses.replace(each, correct=len(source) > 1) for each in result.predictions]
        return dataclasses.replace(result, predictions=tuple(read))

    monkeypatch.setattr(loop, "evaluate_source", right_in_the_large_set)
    both = (str(data), str(one))
    train(settings_for(data, steps=1, validation=both), tmp_path / "run")
    (accuracy,) = [values["accuracy"] for values in read_metrics(tmp_path / "run") if "accuracy" in values]
    assert accuracy == pytest.approx(100 * 24 / 25, abs=1e-3)


def test_a_best_of_fewer_validation_crops_is_not_kept(data: Path, tmp_path: Path) -> None:
    settings = settings_for(data, steps=1)
    train(settings, tmp_path / "run")
    state = load_state(tmp_path / "run/last.pt")
    torch.save({**state, "best": 101.0}, tmp_path / "run/last.pt")
    train(dataclasses.replace(settings, steps=2, validation_limit=5), tmp_path / "run", resume=True)
    assert load_state(tmp_path / "run/last.pt")["best"] <= 100


@pytest.mark.parametrize("loss", ["ctc", "attention"])
def test_an_auxiliary_loss_may_begin_at_nothing(data: Path, tmp_path: Path, loss: str) -> None:
    weights_of = {f"{loss}_weight": 0.0, f"{loss}_weight_end": 0.5}
    train(settings_for(data, validation=(), steps=2, **weights_of), tmp_path / "run")
    assert read_metrics(tmp_path / "run")[-1][f"loss/{loss}"] > 0
