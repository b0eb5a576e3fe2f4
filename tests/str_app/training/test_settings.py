"""Settings of training runs."""

import json

from str_app.training.settings import load_settings, make_settings, save_settings


def test_an_older_name_on_the_command_line_is_taken_with_a_note(capsys):
    settings = make_settings(["architecture.squash=layernorm"], train=("words.lmdb",))
    assert settings.architecture.activation == "layernorm"
    assert "architecture.activation" in capsys.readouterr().err


def test_older_names_in_the_settings_of_a_run_are_read(tmp_path):
    settings = make_settings(["architecture.activation=none"], train=("words.lmdb",))
    path = tmp_path / "settings.json"
    save_settings(settings, path)
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["architecture"]["squash"] = stored["architecture"].pop("activation")
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert load_settings(path) == settings
