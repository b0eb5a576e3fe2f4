"""Settings of a run: keys, values, files, and those of older versions."""

import json

import pytest

from str_app.errors import StrAppError
from str_app.training.loop import new_network
from str_app.training.settings import load_settings, make_settings, save_settings


def test_settings_survive_a_file(tmp_path):
    overrides = [
        "architecture.attention=1d",
        "architecture.backbone.strides=[[2,2],[2,1],[2,1]]",
        "architecture.decoder.dropout=0",
        "steps=1_000",
        "weights=1,2",
    ]
    settings = make_settings(overrides, train=("a", "b"))
    save_settings(settings, tmp_path / "settings.json")
    assert load_settings(tmp_path / "settings.json") == settings
    assert settings.architecture.attention == "1d"
    assert settings.steps == 1000
    assert settings.weights == (1.0, 2.0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stepz=3", "unknown key"),
        ("architecture.depth=3", "unknown key"),
        ("architecture.backbone.depth=3", "architecture.backbone.depth=3: unknown key; known: blocks, fpn, name"),
        ("architecture.backbone.fpn=yes", "expected true or false"),
        ("architecture.backbone=resnet", "a section; set its fields: backbone.blocks"),
        ("architecture.backbone.name=vgg", "unknown backbone 'vgg': choose one of resnet"),
        ("steps.more=1", "unknown key"),
        ("steps=many", "a whole number"),
        ("precision=fp8", "one of auto, bf16, fp32"),
        ("steps", "key=value"),
        ("preset=base", "--set preset=…: give --preset with a new run"),
        ("start_from=small", "--set start_from=…: give --from with a new run"),
        ("weight_decay=-1", "at least 0"),
        ("ctc_weight=-1", "at least 0"),
        ("unusable_limit=-0.1", "at least 0"),
        ("steps=0", "at least 1"),
        ("learning_rate=-1", "above 0"),
        ("learning_rate=nan", "not a number"),
        ("learning_rate=inf", "finite"),
        ("clip_norm=nan", "not a number"),
        ("seed=-1", "at least 0"),
        ("validation_limit=-5", "at least 0"),
        ("workers=-1", "at least 0"),
        ("ema_decay=1", "below 1"),
        ("label_smoothing=-0.1", "at least 0 and below 1"),
        ("weights=0", "not all 0"),
        ("weights=nan", "must all be at least 0, and not all 0"),
        ("weights=1,2,3", "one per set"),
        ("frozen_stages=1", "give --from"),
        ("frozen_stages=4", "has 3 stages"),
        ("threads=100000", "from 1 to 1024"),
        ("architecture.max_length=0", "at least 1"),
        ("architecture.decoder.dropout=2", "at least 0 and below 1"),
    ],
)
def test_wrong_settings_say_what_to_write(override, words):
    with pytest.raises(StrAppError, match=words):
        make_settings([override], train=("a",))


def test_the_charset_of_a_run_stays(capsys):
    settings = make_settings(["charset=ab", "steps=20", "warmup_steps=20"], train=("a",))
    assert "warmup_steps=20 of 20 steps: the learning rate never reaches its peak" in capsys.readouterr().err
    with pytest.raises(StrAppError, match="give --charset with a new run"):
        make_settings(["charset=ba"], base=settings)
    make_settings(["warmup_steps=19"], train=("a",))
    assert capsys.readouterr().err == ""


def test_no_data_and_unknown_preset():
    with pytest.raises(StrAppError, match="--train"):
        make_settings([])
    with pytest.raises(ValueError, match="base, small"):
        make_settings([], preset="huge", train=("a",))


def test_keys_of_older_versions_work_and_say_what_they_are_called_now(capsys):
    former = ["blocks=2,2,2", "pyramid=false", "locate=false", "hidden_size=9", "dropout=0", "squash=none"]
    sections = ["backbone.blocks=2,2,2", "backbone.fpn=false", "decoder.positional_glimpse=false"]
    sections += ["decoder.hidden_size=9", "decoder.dropout=0", "decoder.activation=none"]
    old = make_settings([f"architecture.{key}" for key in former] + ["preprocessing.spread=70"], train=("a",))
    notes = capsys.readouterr().err.splitlines()
    new = make_settings([f"architecture.{key}" for key in sections] + ["preprocessing.widen_below=70"], train=("a",))
    assert old == new
    assert "--set architecture.pyramid=…: this key is now architecture.backbone.fpn" in notes
    assert len(notes) == 7
    assert not capsys.readouterr().err


@pytest.mark.parametrize("age", ["before widening", "before nesting"])
def test_run_folders_of_older_versions(tmp_path, age):
    """Flat architectures, and preprocessing without what was added later."""
    settings = make_settings(["preprocessing.widen_below=0", "architecture.backbone.blocks=1,2,2"], train=("a",))
    path = tmp_path / "settings.json"
    save_settings(settings, path)
    stored = json.loads(path.read_text())
    backbone, decoder = stored["architecture"].pop("backbone"), stored["architecture"].pop("decoder")
    backbone["pyramid"], decoder["locate"] = backbone.pop("fpn"), decoder.pop("positional_glimpse")
    decoder["squash"] = decoder.pop("activation")
    stored["architecture"] |= {key: value for key, value in (backbone | decoder).items() if key != "name"}
    stored["architecture"]["mixers"] = [0, 0]
    spread = stored["preprocessing"].pop("widen_below")
    if age == "before nesting":
        stored["preprocessing"]["spread"] = spread
    path.write_text(json.dumps(stored))
    assert load_settings(path) == settings


def test_damaged_run_folders(tmp_path):
    path = tmp_path / "settings.json"
    with pytest.raises(StrAppError, match=r"settings\.json: not found, so there is no run to resume"):
        load_settings(path)
    path.write_text("[" * 100_000)
    with pytest.raises(StrAppError, match=r"settings\.json: not valid JSON \(.*\); start a new run"):
        load_settings(path)
    path.write_text("{}")
    with pytest.raises(StrAppError, match=r"settings\.json: damaged settings"):
        load_settings(path)


@pytest.mark.parametrize(
    ("override", "words"),
    [("preprocessing.widths=33", "multiples of the backbone's stride"), ("architecture.decoder.hidden_size=0", "zero")],
)
def test_settings_that_make_no_network_say_so(override, words):
    settings = make_settings([override], train=("a",))
    with pytest.raises(StrAppError, match=f"no network can be built from these settings: .*{words}"):
        new_network(settings)
