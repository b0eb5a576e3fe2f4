"""`str-app recognize` on images, folders and LMDBs, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from str_app.cli import app
from str_app.reader import Reader
from tests.str_app.fake_engine import FakeEngine, paint
from tests.str_app.painted_data import png, write_folder, write_lmdb


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, *, device: str, threads: int | None, batch_size: int) -> Reader:
        return Reader(FakeEngine(), batch_size)

    monkeypatch.setattr(Reader, "load", load)


def recognize(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["recognize", *map(str, arguments)])


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    folder = tmp_path / "crops"
    folder.mkdir()
    for word in ("alpha", "beta", "gamma"):
        (folder / f"{word}.png").write_bytes(png(paint(word)))
    return folder


def test_one_line_per_image(crops: Path) -> None:
    result = recognize(crops / "beta.png", crops, "--batch-size", 2)
    assert result.exit_code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [(Path(path).stem, text) for path, text, _ in rows] == [
        ("beta", "beta"),
        ("alpha", "alpha"),
        ("beta", "beta"),
        ("gamma", "gamma"),
    ]
    assert 0.5 < float(rows[0][2]) < 1


def test_json_lines_have_the_contract(crops: Path) -> None:
    result = recognize(crops / "beta.png", "--json")
    (line,) = map(json.loads, result.stdout.splitlines())
    assert set(line) == {"image", "text", "confidence", "characters"}
    assert (line["image"], line["text"]) == (str(crops / "beta.png"), "beta")
    assert [set(character) for character in line["characters"]] == [{"text", "confidence", "box"}] * 4
    assert line["characters"][1]["box"] == pytest.approx([8, 0, 16, 32], abs=0.1)


def test_bad_images_are_named_and_the_others_read(crops: Path) -> None:
    (crops / "note.png").write_text("words, but no picture")
    (crops / "void.png").touch()
    (crops / "half.png").write_bytes(png(paint("half"))[:60])
    result = recognize(crops, crops / "gone.png")
    assert result.exit_code == 1
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["alpha", "beta", "gamma"]
    reasons = result.stderr.splitlines()
    assert len(reasons) == 5
    for name, reason in {"half": "damaged", "note": "not an image", "void": "empty", "gone": "no such file"}.items():
        assert any(f"{name}.png: " in line and reason in line for line in reasons)
    assert reasons[-1] == "str-app recognize: 4 of 7 images could not be read"


def test_a_data_set_folder_and_an_lmdb(tmp_path: Path) -> None:
    words = [("one", "one"), ("two", None), ("three", "three")]
    folder = recognize(write_folder(tmp_path / "set", words))
    assert [line.split("\t")[1] for line in folder.stdout.splitlines()] == ["one", "three"]
    lmdb = recognize(write_lmdb(tmp_path / "set.lmdb", words))
    assert lmdb.exit_code == 1
    assert [line.split("\t")[:2] for line in lmdb.stdout.splitlines()] == [
        [f"{tmp_path / 'set.lmdb'}/images/0.png", "one"],
        [f"{tmp_path / 'set.lmdb'}/images/2.png", "three"],
    ]
    assert "record 2" in lmdb.stderr


def test_an_empty_folder_and_a_broken_lmdb(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = recognize(tmp_path / "empty")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no image in this folder" in result.stderr
    (tmp_path / "broken.lmdb").mkdir()
    (tmp_path / "broken.lmdb" / "data.mdb").write_bytes(b"no database" * 500)
    result = recognize(tmp_path / "broken.lmdb")
    assert result.exit_code == 1
    assert "broken.lmdb" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_lexicon_and_a_beam(crops: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("# Greek\nBetb\n\n  delta  \n", encoding="utf-8")
    assert recognize(crops / "beta.png", "--lexicon", words).stdout.split("\t")[1] == "Betb"
    assert recognize(crops / "beta.png", "--beam", 4).stdout.split("\t")[1] == "beta"


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "no word"), (b"\xff\xfe\x00", "not UTF-8"), ("na\u00efve\n".encode(), "charset")]
)
def test_a_lexicon_that_cannot_be_used(crops: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    words = tmp_path / "words.txt"
    words.write_bytes(content)
    result = recognize(crops, "--lexicon", words)
    assert result.exit_code == 1
    assert reason in result.stderr


def test_wrong_usage() -> None:
    assert recognize().exit_code == 2
    assert recognize("word.png", "--beam", 0).exit_code == 2
