"""`str-app synth`: an LMDB from a seed, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from str_app.cli import app
from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.opening import open_source
from str_app.datasets.sample import DataError
from str_app.datasets.shards import ShardedSource
from tests.datasets.pictures import unreadable_records
from tests.datasets.renderer_fonts import write_font


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return write_font(tmp_path / "fonts" / "a.ttf").parent


@pytest.fixture
def words(tmp_path: Path) -> Path:
    (tmp_path / "words.txt").write_text("open 9\nexit 3\nWE 2\n")
    return tmp_path / "words.txt"


def synth(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["synth", *map(str, arguments)])


def test_writes_a_whole_lmdb_and_a_preview(tmp_path: Path, fonts: Path, words: Path) -> None:
    out, sheet = tmp_path / "out.lmdb", tmp_path / "new" / "sheet.png"
    result = synth("--out", out, "--count", 60, "--fonts", fonts, "--words", words, "--only-words", "--preview", sheet)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("1 fonts (")
    assert f"{out}: 60 crops in " in result.stdout
    assert unreadable_records(out) == []
    source = LmdbSource(out)
    assert {source.label(index) for index in range(len(source))} == {"open", "exit", "WE"}
    assert source[0].boxes is not None
    with Image.open(sheet) as picture:
        assert picture.size == (8 * 190, 8 * 78)


def test_words_that_cannot_be_drawn_are_told(tmp_path: Path, fonts: Path) -> None:
    (tmp_path / "german.txt").write_text("Straße\nBahnhof\n" + "x" * 45 + "\n", encoding="utf-8")
    result = synth("--out", tmp_path / "out.lmdb", "--count", 2, "--fonts", fonts, "--words", tmp_path / "german.txt")
    assert result.exit_code == 0, result.stderr
    assert "2 words are left out, such as 'Straße': only printable ASCII of up to 32 characters" in result.stderr


def test_writes_scenes_and_a_preview(tmp_path: Path, fonts: Path, words: Path) -> None:
    out, sheet = tmp_path / "scenes", tmp_path / "sheet.png"
    result = synth("--scenes", "--out", out, "--count", 2, "--fonts", fonts, "--words", words, "--preview", sheet)
    assert result.exit_code == 0, result.stderr
    assert f"{out}: 2 scenes in " in result.stdout
    assert len((out / "labels.jsonl").read_text().splitlines()) == 2
    with Image.open(sheet) as picture:
        assert picture.size == (3 * 480, 360)
    again = synth("--scenes", "--out", out, "--fonts", fonts, "--words", words)
    assert again.exit_code == 1
    assert "exists already" in again.stderr


def test_scenes_and_previews_begin_where_they_are_told_to(tmp_path: Path, fonts: Path, words: Path) -> None:
    arguments = ["--fonts", fonts, "--words", words, "--seed", 3]
    for place, (start, count) in enumerate([(0, 2), (1, 1)]):
        out = tmp_path / str(place)
        assert synth("--scenes", "--out", out, "--start", start, "--count", count, *arguments).exit_code == 0
        sheet = tmp_path / f"{place}.png"
        assert synth("--preview", sheet, "--start", start, "--count", 1, *arguments).exit_code == 0
    both, second = ((tmp_path / name / "labels.jsonl").read_text().splitlines() for name in "01")
    assert [json.loads(second[0])["words"]] == [json.loads(both[1])["words"]]
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_effects_and_photographs_are_those_that_are_given(tmp_path: Path, fonts: Path, words: Path) -> None:
    arguments = ["--out", tmp_path / "out.lmdb", "--count", 1, "--fonts", fonts, "--words", words]
    refused = synth(*arguments, "--set", "nonsense=1")
    assert refused.exit_code == 1
    assert "nonsense" in refused.stderr
    (tmp_path / "empty").mkdir()
    refused = synth(*arguments, "--photographs", tmp_path / "empty")
    assert refused.exit_code == 1
    assert f"{tmp_path}/empty" in refused.stderr


def test_no_fonts_says_what_to_do(tmp_path: Path, words: Path, fonts: Path) -> None:
    (tmp_path / "none").mkdir()
    result = synth("--out", tmp_path / "out.lmdb", "--fonts", tmp_path / "none", "--words", words)
    assert result.exit_code == 1
    assert "run scripts/install_fonts.sh" in result.stderr
    assert not (tmp_path / "out.lmdb").exists()


def test_an_existing_output_is_left_alone(tmp_path: Path, fonts: Path, words: Path) -> None:
    (tmp_path / "out.lmdb").mkdir()
    result = synth("--out", tmp_path / "out.lmdb", "--fonts", fonts, "--words", words)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert list((tmp_path / "out.lmdb").iterdir()) == []


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--workers", "0"], ["--seed", "-1"], ["--only-words"]])
def test_wrong_usage(tmp_path: Path, wrong: list[str]) -> None:
    assert synth("--out", tmp_path / "out.lmdb", *wrong).exit_code == 2


def test_a_preview_that_cannot_be_written_is_named(tmp_path: Path, fonts: Path, words: Path) -> None:
    result = synth("--out", tmp_path / "out.lmdb", "--fonts", fonts, "--words", words, "--preview", tmp_path / "s.xyz")
    assert result.exit_code == 1
    assert "s.xyz: cannot write the preview" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_stopped_on_the_way_leaves_no_lmdb(tmp_path: Path, fonts: Path, words: Path, stop: signal.Signals) -> None:
    out = tmp_path / "out.lmdb"
    command = [sys.executable, "-u", "-m", "str_app", "synth", "--out", out, "--count", "200000", "--workers", "2"]
    process = subprocess.Popen(
        [*map(str, command), "--fonts", str(fonts), "--words", str(words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Where the tests run as a shell's background job, SIGINT is ignored from the start.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("1 fonts (")
    while not list(tmp_path.glob(".out.lmdb.partial-*")):
        assert process.poll() is None
    process.send_signal(stop)
    process.stdout.read()  # ends when the workers, which share it, have ended too
    process.wait(timeout=30)
    assert process.returncode == (130 if stop == signal.SIGINT else -signal.SIGKILL)
    assert not out.exists()


def crops_of(source: LmdbSource | ShardedSource) -> list[tuple[bytes, str]]:
    return [(source.image_bytes(index), source.label(index)) for index in range(len(source))]


@pytest.mark.parametrize("pool", [[], ["--workers", 2], pytest.param(["--ray"], marks=pytest.mark.slow)])
def test_shards_hold_the_crops_of_one_lmdb_whoever_draws_them(
    tmp_path: Path, fonts: Path, words: Path, pool: list[Any]
) -> None:
    if pool == ["--ray"]:
        pytest.importorskip("ray", reason="pip install -e '.[ray]' brings it")
    arguments = ["--count", 50, "--start", 7, "--seed", 3, "--fonts", fonts, "--words", words]
    assert synth("--out", tmp_path / "one.lmdb", *arguments).exit_code == 0
    sharded = ["--out", tmp_path / "set", "--shard-size", 20, *arguments, *pool]
    assert synth(*sharded).exit_code == 0
    source = open_source(tmp_path / "set")
    assert isinstance(source, ShardedSource)
    assert [len(shard) for shard in source.shards] == [20, 20, 10]
    assert crops_of(source) == crops_of(LmdbSource(tmp_path / "one.lmdb"))


def test_missing_shards_are_drawn_and_others_are_refused(tmp_path: Path, fonts: Path, words: Path) -> None:
    out = tmp_path / "set"
    arguments = ["--out", out, "--count", 30, "--shard-size", 10, "--fonts", fonts, "--words", words]
    assert synth(*arguments).exit_code == 0
    before = {shard: (shard / "data.mdb").stat().st_mtime_ns for shard in out.glob("*.lmdb")}
    middle = out / "shard-000001.lmdb"
    content = (middle / "data.mdb").read_bytes()
    shutil.rmtree(middle)
    with pytest.raises(DataError, match="20 of 30 crops: the `str-app synth` run that writes it has not finished"):
        open_source(out)
    assert synth(*arguments).exit_code == 0
    assert (middle / "data.mdb").read_bytes() == content
    after = {shard: (shard / "data.mdb").stat().st_mtime_ns for shard in out.glob("*.lmdb")}
    assert [shard.name for shard in before if before[shard] != after[shard]] == [middle.name]
    refused = synth(*arguments, "--seed", 1)
    assert refused.exit_code == 1
    assert "shards of another data set (identity)" in refused.stderr
    for damaged, problem in (("{", "not valid JSON"), ("[]", "not a JSON object"), ("{}", "no number of crops")):
        (out / "shards.json").write_text(damaged)
        with pytest.raises(DataError, match=rf"shards\.json: {problem}.*; remove the folder and draw"):
            open_source(out)
        assert f"shards.json: {problem}" in synth(*arguments).stderr
    (tmp_path / "mine").mkdir()
    assert "has no shards.json" in synth("--out", tmp_path / "mine", *arguments[2:]).stderr
    assert synth("--scenes", *arguments).exit_code == 2
