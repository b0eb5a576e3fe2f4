"""`str-app evaluate`: the table, the JSON contract, and the report."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import lmdb
import pytest
from typer.testing import CliRunner

from str_app.cli import app
from str_app.cli.evaluate import write_file
from str_app.errors import StrAppError
from str_app.evaluation.protocol import evaluate_source
from str_app.evaluation.report import render_report
from str_app.policy import DEFAULT_POLICY
from str_app.reader import Reader
from tests.str_app.fake_engine import FakeEngine
from tests.str_app.painted_data import PaintedSource, write_folder, write_lmdb


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, *, batch_size: int, **options: Any) -> Reader:
        return Reader(FakeEngine(), batch_size)

    monkeypatch.setattr(Reader, "load", load)


def evaluate(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_table_and_json(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data" / "IC13")
    (folder / "subset_1015.txt").write_text("images/0.png\nimages/3.png\n")
    write_lmdb(tmp_path / "data" / "own.lmdb")
    result = evaluate("--data", tmp_path / "data", "--json", tmp_path / "new" / "scores.json", "--batch-size", 3)
    assert result.exit_code == 0, result.stderr
    assert [line.split("|")[1].strip() for line in result.stdout.splitlines()] == [
        "set",
        "-" * len("weighted total") + "--",
        "IC13 (1015)",
        "IC13 †",
        "own",
        "weighted total",
        "plain mean",
    ]
    content = json.loads((tmp_path / "new" / "scores.json").read_text(encoding="utf-8"))
    rows = [(row["name"], row["subset"], row["n"], row["accuracy"]) for row in content["sets"]]
    assert rows == [("IC13", "1015", 2, 50.0), ("IC13", None, 7, 71.43), ("own", None, 7, 71.43)]
    assert (content["weighted"], content["mean"]) == (pytest.approx(66.67), pytest.approx(60.71, abs=0.01))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (1, "IC13: 1 image that cannot be read counts as wrong: images/1.png"),
        (
            6,
            "IC13: 6 images that cannot be read count as wrong: images/1.png, images/2.png, images/3.png, "
            "images/4.png, images/5.png, …",
        ),
    ],
)
def test_images_that_cannot_be_read_are_named(tmp_path: Path, broken: int, said: str) -> None:
    folder = write_folder(tmp_path / "IC13", [("Cafe", "Cafe"), *[("lost", None)] * broken])
    assert said in evaluate("--data", folder).stderr.splitlines()
    assert "cannot be read" not in evaluate("--data", write_folder(tmp_path / "whole", [("Cafe", "Cafe")])).stderr


def test_data_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    words = [("ab", "ab"), ("cd", "xy")]
    folders = [write_folder(tmp_path / place / "IC13", words[:count]) for place, count in (("a", 2), ("b", 1))]
    for folder in folders:
        (folder / "subset_1015.txt").write_text("images/0.png\n")
    files = "--json", tmp_path / "scores.json", "--readings", tmp_path / "all.tsv", "--report", tmp_path / "page.html"
    result = evaluate("--data", folders[0], "--data", folders[1], *files)
    assert result.exit_code == 0, result.stderr
    shown = [line.split("|")[1].strip() for line in result.stdout.splitlines()]
    assert shown[2:6] == ["IC13 (1015)", "IC13 †", "IC13-2 (1015)", "IC13-2 †"]
    assert "IC13-2: 1 crops in" in result.stderr
    sets = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["sets"]
    assert [(row["name"], row["n"]) for row in sets] == [("IC13", 1), ("IC13", 2), ("IC13-2", 1), ("IC13-2", 1)]
    lines = (tmp_path / "all.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["set", "IC13", "IC13", "IC13-2"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(IC13.*)</h2>", page) == ["IC13", "IC13-2"]
    assert len(re.findall(r">\s*IC13-2\s*</td>", page)) == 1, "in the table of confidences"


def test_a_data_set_given_twice_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "de" / "val")
    (tmp_path / "link").symlink_to(folder)
    for again in (folder, tmp_path / "link"):
        result = evaluate("--data", tmp_path / "de", "--data", again)
        assert result.exit_code == 1
        assert f"{again}: given twice: its crops would be scored twice" in result.stderr


def test_readings_are_written_with_what_they_were_compared_with(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own", [("a\tb", "ab"), ("open", "oven"), ("!!", "11"), ("lost", None)])
    (folder / "images" / "0.png").rename(folder / "images" / "back\\slash.png")
    lines = (folder / "labels.tsv").read_text(encoding="utf-8").replace("0.png", "back\\slash.png")
    (folder / "labels.tsv").write_text(lines, encoding="utf-8")
    result = evaluate("--data", folder, "--readings", tmp_path / "new" / "readings.tsv")
    assert result.exit_code == 0, result.stderr
    with (tmp_path / "new" / "readings.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert all(0 < float(row.pop("confidence")) < 1 for row in rows[:2])
    assert [list(row.values()) for row in rows] == [
        ["own", "images/back\\\\slash.png", "a\\tb", "ab", "1"],
        ["own", "images/1.png", "open", "oven", "0"],
        ["own", "images/3.png", "lost", "", "0.0000", "0"],
    ]


def test_labels_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    data = write_lmdb(tmp_path / "own.lmdb", [("one", "one"), ("two", "two"), ("!!", "11")])
    with lmdb.open(str(data)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"label-000000002")
    result = evaluate("--data", data, "--json", tmp_path / "scores.json")
    assert result.exit_code == 0, result.stderr
    reason = f"{data} record 2 (label-000000002): missing"
    assert f"own: 1 label cannot be read; its sample is dropped; the first: {reason}" in result.stderr.splitlines()
    (row,) = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["sets"]
    assert (row["n"], row["dropped"]) == (1, 2)
    with lmdb.open(str(data)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"label-000000001")
    result = evaluate("--data", data)
    assert result.exit_code == 1
    assert "own: 2 of its 3 labels cannot be read, and none can be scored; the first: " in result.stderr
    assert "record 1 (label-000000001): missing" in result.stderr


def test_a_terminal_obeys_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a progress bar, as on a terminal
    result = evaluate("--data", write_folder(tmp_path / "\x1b]0;x\x07[red]\x9b"))
    assert "\\x1b]0;x\\x07[red]\\x9b" in result.stdout
    assert "\\x1b]0;x\\x07[red]\\x9b: 7 crops in" in result.stderr
    for output in (result.stdout, result.stderr):
        assert not {"\x1b]", "\x07", "\x9b"} & {*output, *(output[k : k + 2] for k in range(len(output)))}


def test_a_file_is_written_whatever_is_in_a_name(tmp_path: Path) -> None:
    write_file(tmp_path / "scores.json", json.dumps(os.fsdecode(b"odd\xff"), ensure_ascii=False))
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == "odd\udcff"


def test_a_lexicon_word_that_cannot_be_read_is_named_with_its_image(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "IC13")
    (folder / "lexicon50.tsv").write_text("images/1.png\topen\nimages/3.png\topen,caf\u00e9\n", encoding="utf-8")
    result = evaluate("--data", folder, "--lexicon50")
    assert result.exit_code == 1
    assert "lexicon50.tsv: images/3.png: lexicon word 'caf\u00e9': the model's charset has no" in result.stderr
    assert "IC13: 7 crops" not in result.stderr, "said before anything is read"
    assert evaluate("--data", folder).exit_code == 0


def test_an_error_without_a_number_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("unplugged")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StrAppError, match=r"scores\.json: cannot be written: unplugged"):
        write_file(tmp_path / "scores.json", "{}")


def test_lexicon50(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "IIIT5K")
    (folder / "lexicon50.tsv").write_text("images/3.png\topen,shut\n")
    free = evaluate("--data", folder)
    bound = evaluate("--data", folder, "--lexicon50")
    assert "71.43" in free.stdout
    assert "85.71" in bound.stdout


@pytest.mark.parametrize(("arguments", "beam"), [([], None), (["--beam", 1], 1)])
def test_how_unsure_readings_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[Any], beam: int
) -> None:
    asked = []
    read = Reader.read_crops
    monkeypatch.setattr(
        Reader, "read_crops", lambda self, crops, **given: asked.append(given.get("beam")) or read(self, crops, **given)
    )
    assert evaluate("--data", write_folder(tmp_path / "own"), *arguments).exit_code == 0
    assert beam in asked
    assert f"[default: {DEFAULT_POLICY.beam}]" in " ".join(evaluate("--help").stdout.replace("│", " ").split())
    assert evaluate("--data", tmp_path / "own", "--beam", 0).exit_code == 2


def test_directories_without_data(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        result = evaluate("--data", directory)
        assert result.exit_code == 1
        assert str(directory) in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert evaluate().exit_code == 2


def test_a_report_is_written(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own")
    result = evaluate("--data", folder, "--report", tmp_path / "pages" / "report.html", "--mistakes", 1)
    assert result.exit_code == 0, result.stderr
    content = (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    assert content.startswith("<!doctype html>")
    assert content.count('<div class="mistake">') == 1


def test_plots_are_files_of_their_own(tmp_path: Path) -> None:
    result = evaluate("--data", write_folder(tmp_path / "own"), "--plots", tmp_path / "pictures")
    assert result.exit_code == 0, result.stderr
    names = sorted(file.name for file in (tmp_path / "pictures").iterdir())
    assert names == ["coverage.svg", "reliability-own.svg"]
    assert (tmp_path / "pictures" / "coverage.svg").read_text(encoding="utf-8").startswith("<svg xmlns=")


def test_protocols(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own", [("Tür", "Tur"), ("щи", "11")])
    assert "| own            | 1 |   100.00 |" in evaluate("--data", folder).stdout
    assert "| own            | 2 |     0.00 |" in evaluate("--data", folder, "--protocol", "unicode").stdout
    assert evaluate("--data", folder, "--protocol", "latin").exit_code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that plays a full disk")
@pytest.mark.parametrize("option", ["--json", "--readings", "--report"])
def test_a_full_disk_is_one_clear_line(tmp_path: Path, option: str) -> None:
    result = evaluate("--data", write_folder(tmp_path / "own"), option, "/dev/full")
    assert result.exit_code == 1
    assert "str-app evaluate: /dev/full: cannot be written: No space left on device" in result.stderr
    assert "71.43" in result.stdout  # the table is out before anything is written


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links.extend(value or "" for name, value in attrs if name in ("src", "href"))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_shows_the_surest_mistakes_and_loads_nothing() -> None:
    words = [("<bb>", "bb"), ("x<i>", "y<i>"), ("gone", None), *((f"wwwwww{n}", f"vvvvvv{n}") for n in range(6))]
    source = PaintedSource(words, name="a&b")
    reader = Reader(FakeEngine())
    content = render_report(reader, [source], [evaluate_source(reader, source)], mistakes=4)
    page = _Page()
    page.feed(content)
    assert "<i>" not in content
    assert {"x<i>", "y<i>", "a&b"} <= set(page.text)
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert not re.search(r"(src|href)=\"?http|url\(|@import", content)
    assert content.count('<div class="mistake">') == 4
    assert "8 of 9 wrong; the 4 most confident are shown." in page.text
    assert "Cannot be decoded: 1 (records 3)." in page.text


def test_a_mistake_is_shown_with_the_attention_at_each_character() -> None:
    source = PaintedSource([("ab", "xy")])
    reader = Reader(FakeEngine())
    page = _Page()
    page.feed(render_report(reader, [source], [evaluate_source(reader, source)]))
    assert len(page.links) == 1 + 3  # the crop; two characters and the end


def test_mistakes_are_sorted_by_confidence_and_named_by_their_record() -> None:
    source = PaintedSource([("ab", "ab"), ("cd", "vwxyz"), ("ef", "xy")], name="IC13")  # the shorter is the surer
    reader = Reader(FakeEngine())
    result = evaluate_source(reader, source, subsets={"1015": frozenset({0, 1})})
    content = render_report(reader, [source], [result])
    assert re.findall(r'alt="record (\d+),', content) == ["3", "2"]
    page = _Page()
    page.feed(content)
    cells = [text.strip() for text in page.text if text.strip()]
    assert ("IC13", "2") in pairwise(cells), "the selective metrics are of the default subset"


def test_a_report_without_mistakes() -> None:
    source = PaintedSource([("ab", "ab")])
    reader = Reader(FakeEngine())
    assert "0 of 1 wrong." in render_report(reader, [source], [evaluate_source(reader, source)])


def test_mistakes_are_read_again_as_they_were_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    source, reader = PaintedSource([("ab", "xy")]), Reader(FakeEngine())
    results = [evaluate_source(reader, source, beam=1)]
    asked = []
    read = reader.read_crops
    monkeypatch.setattr(reader, "read_crops", lambda crops, **options: asked.append(options) or read(crops, **options))
    render_report(reader, [source], results, beam=1)
    assert asked == [{"beam": 1, "attention": True}]


@pytest.mark.parametrize(
    ("option", "value", "needed"), [("--mistakes", 3, "--report"), ("--ray-address", "x", "--ray")]
)
def test_an_option_without_effect_is_wrong_usage(option: str, value: Any, needed: str) -> None:
    result = evaluate("--data", "x", option, value)
    assert result.exit_code == 2
    assert f"{option} needs {needed}" in result.stderr


def test_a_subset_without_anything_to_score_is_named_and_costs_nothing_else(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "IC13", [("one", "one"), ("!!!", "!!!")])
    for name in ("1015", "marks"):
        (folder / f"subset_{name}.txt").write_text("images/1.png\n")
    result = evaluate("--data", folder, "--json", tmp_path / "scores.json", "--plots", tmp_path / "plots")
    assert result.exit_code == 0, result.stderr
    assert "no sample of its subset marks can be scored" in result.stderr
    (row,) = json.loads((tmp_path / "scores.json").read_text())["sets"]
    assert (row["subset"], row["n"], row["dropped"]) == (None, 1, 1)


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scores.json").write_text("old")
    (tmp_path / "link.json").symlink_to("scores.json")
    write_file(tmp_path / "link.json", "new")
    assert (tmp_path / "scores.json").read_text() == "new"
    assert (tmp_path / "link.json").is_symlink()

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StrAppError, match=r"scores\.json: cannot be written: No space left"):
        write_file(tmp_path / "scores.json", "newer")
    assert (tmp_path / "scores.json").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "scores.json"]


def test_a_file_that_cannot_be_replaced_is_written_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*arguments: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)  # as for a file that a container mounts
    (tmp_path / "scores.json").write_text("older and longer")
    write_file(tmp_path / "scores.json", "new")
    assert (tmp_path / "scores.json").read_text() == "new"
