"""`str-app convert` as a person or a script runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from str_app.cli import app
from str_app.datasets.lmdb_source import LmdbSource
from tests.datasets.pictures import write_folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


@pytest.fixture
def words(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "words", [str(number) for number in range(40)])


def test_writes_and_sums_up(tmp_path: Path, words: Path) -> None:
    for number in (3, 5):
        (words / "images" / f"{number}.png").write_bytes(b"")
    result = run("folder", words, "--out", tmp_path / "words.lmdb")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{tmp_path}/words.lmdb: 38 samples written, 2 skipped",
        "  2 the image is empty (0 bytes): images/3.png, images/5.png",
    ]
    assert result.stderr == ""
    assert len(LmdbSource(tmp_path / "words.lmdb")) == 38


def test_a_terminal_obeys_no_name(tmp_path: Path, words: Path) -> None:
    name = "images/\x1b[2J\x9b.png"
    (words / name).write_bytes(b"")
    with (words / "labels.tsv").open("a", encoding="utf-8") as labels:
        labels.write(f"{name}\ta\n")
    result = run("folder", words, "--out", tmp_path / "words.lmdb")
    assert result.stdout.splitlines()[1] == "  1 the image is empty (0 bytes): images/\\x1b[2J\\x9b.png"


def test_progress_is_plain_lines_when_piped(tmp_path: Path, words: Path) -> None:
    (words / "labels.tsv").write_text("images/1.png\ta\n" * 2500)
    result = run("folder", words, "--out", tmp_path / "words.lmdb")
    assert result.stderr.splitlines() == ["1000 of 2500 records", "2000 of 2500 records"]


def test_json(tmp_path: Path, words: Path) -> None:
    result = run("folder", words, "--out", tmp_path / "words.lmdb", "--json")
    assert json.loads(result.stdout) == {"out": f"{tmp_path}/words.lmdb", "written": 40, "skipped": {}}


def test_the_share_of_unusable_records_and_the_split(tmp_path: Path, words: Path) -> None:
    (words / "train.tsv").write_text("images/1.png\ta\nimages/2.png\t\n")
    for arguments, exit_code in (((), 1), (("--max-skipped", 0.5), 0)):
        result = run("folder", words, "--split", "train", "--out", tmp_path / "out", *arguments)
        assert result.exit_code == exit_code
    assert result.stdout.startswith(f"{tmp_path}/out: 1 samples written, 1 skipped")


def test_overwriting_must_be_asked_for(tmp_path: Path, words: Path) -> None:
    out = tmp_path / "words.lmdb"
    assert run("folder", words, "--out", out).exit_code == 0
    again = run("folder", words, "--out", out)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert run("folder", words, "--out", out, "--overwrite").exit_code == 0


def test_failures_are_one_line_and_exit_1(tmp_path: Path, words: Path) -> None:
    (words / "labels.tsv").write_text("images/1.png\ta\nimages/2.png\t\n")
    result = run("folder", words, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "1 of 2 records (50.0 %) are unusable" in result.stderr
    assert not (tmp_path / "out").exists()
    assert run("folder", words, "--out", tmp_path / "out", "--max-skipped", "0.5").exit_code == 0
    assert run("svt", words, "--out", tmp_path / "svt").exit_code == 1
    assert run("folder", tmp_path / "gone", "--out", tmp_path / "x").exit_code == 1


def test_wrong_usage_is_exit_2(tmp_path: Path, words: Path) -> None:
    result = run("IC99", words, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "'IC99' is not one of 'folder', 'iiit5k', 'svt'" in " ".join(result.stderr.split())
    assert run("folder", words).exit_code == 2
    assert run("folder", words, "--out", tmp_path / "out", "--max-skipped", "2").exit_code == 2


def test_help_shows_an_example() -> None:
    assert "str-app convert folder my_crops --out runs/my_crops.lmdb" in " ".join(run("--help").stdout.split())
