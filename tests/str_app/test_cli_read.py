"""`str-app read` and `str-app evaluate-photos`, on photographs of painted words."""

from __future__ import annotations

import errno
import json
import os
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from str_app import client
from str_app.cli import app
from str_app.errors import StrAppError
from str_app.inputs import images
from str_app.photos import load
from str_app.photos.photo_reader import PhotoPipeline, PhotoPolicy
from str_app.photos.reading import PhotoReading, PhotoWord, in_lines
from str_app.reader import Reader
from str_app.reading import Reading
from tests.str_app.fake_engine import FakeEngine
from tests.str_app.painted_data import png, write_lmdb
from tests.str_app.photos.painted_photo import KnownPlaces, photo_of

WORDS = {(20, 10): "Mind", (80, 10): "the", (130, 10): "gap", (24, 60): "A&B"}
PHOTO, QUADS = photo_of(WORDS)


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "load", lambda model, **options: Reader(FakeEngine()))
    monkeypatch.setattr(
        load, "load_pipeline", lambda *arguments: PhotoPipeline(KnownPlaces(QUADS), policy=PhotoPolicy(room=0.0))
    )


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    path.write_bytes(png(PHOTO))
    return path


def test_one_row_per_line_of_text(photo: Path) -> None:
    result = run("read", photo)
    assert result.exit_code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [[str(photo), "Mind the gap"], [str(photo), "A&B"]]
    assert all(0 < float(row[2]) < 1 for row in rows)


def test_a_line_is_as_certain_as_its_least_certain_word(photo: Path) -> None:
    line, *_ = run("read", photo).stdout.splitlines()
    words = json.loads(run("read", photo, "--json").stdout)["words"][:3]
    confidences = {word["confidence"] for word in words}
    assert len(confidences) > 1
    assert line.split("\t")[2] == f"{min(confidences):.4f}"


def test_text_only(photo: Path) -> None:
    assert run("read", photo, "--text").stdout == "Mind the gap\nA&B\n"


def test_an_empty_line_between_the_texts_of_photographs(photo: Path) -> None:
    result = run("read", photo, photo.with_name("gone.png"), photo, "--text")
    assert (result.exit_code, result.stdout) == (1, "Mind the gap\nA&B\n\nMind the gap\nA&B\n")


def test_a_terminal_obeys_no_server(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(*arguments: Any, **options: Any) -> PhotoReading:
        word = PhotoWord(Reading("a\x1b]0;b\x07\x9bc\\d", 0.9, ()), ((0, 0), (9, 0), (9, 9), (0, 9)), 1.0, 0)
        return in_lines((10, 10), [[word]])

    monkeypatch.setattr(client.Client, "read_photo", hostile)
    shown = [
        run("read", photo, "--server", "http://localhost", form).stdout
        for form in ("--text", "--json", "--hocr", "--alto")
    ]
    assert not any({"\x1b", "\x07", "\x9b"} & {*output} for output in shown)
    assert shown[0] == "a\\x1b]0;b\\x07\\x9bc\\d\n"
    assert json.loads(shown[1])["words"][0]["text"] == "a\x1b]0;b\x07\x9bc\\d"


def test_json(photo: Path) -> None:
    fields = json.loads(run("read", photo, "--json").stdout)
    assert fields["image"] == str(photo)
    assert [word["text"] for word in fields["words"]] == list(WORDS.values())
    assert fields["words"][0]["quad"] == QUADS[0]


@pytest.mark.parametrize("form", ["--hocr", "--alto"])
def test_documents(photo: Path, form: str) -> None:
    text = run("read", photo, form).stdout
    ElementTree.fromstring(text[text.index("\n") + 1 :])
    assert "A&amp;B" in text
    other = photo.with_name("other.png")
    other.write_bytes(photo.read_bytes())
    refused = run("read", photo, other, form)
    assert refused.exit_code == 2
    assert "one photograph" in refused.stderr


def test_one_form_at_a_time(photo: Path) -> None:
    assert run("read", photo, "--json", "--text").exit_code == 2


def test_what_is_left_out_is_said(photo: Path) -> None:
    (photo.parent / "more").mkdir()
    data = write_lmdb(photo.parent / "words.lmdb")
    result = run("read", photo.parent, data, "--text")
    assert (result.exit_code, result.stdout) == (0, "Mind the gap\nA&B\n")
    below, lmdb = result.stderr.splitlines()
    assert below.endswith("2 sub-folders are not read; name them, or use `str-app bulk --photos`")
    assert lmdb.startswith(f"str-app read: {data}: an LMDB is not read")


def test_a_broken_photograph_costs_no_other(photo: Path) -> None:
    (photo.parent / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    result = run("read", photo.parent, "--text")
    assert result.exit_code == 1
    assert result.stdout.startswith("Mind the gap")
    assert "broken.jpg" in result.stderr
    assert "1 of 2 photographs could not be read" in result.stderr


def test_pictures(photo: Path, tmp_path: Path) -> None:
    assert run("read", photo, "--picture", tmp_path / "out" / "found.png").exit_code == 0
    picture = cv2.imread(str(tmp_path / "out" / "found.png"))
    assert picture.shape == PHOTO.shape
    assert (picture != PHOTO[:, :, ::-1]).any()
    (photo.parent / "two.png").write_bytes(photo.read_bytes())
    assert run("read", photo, photo.parent / "two.png", "--picture", tmp_path / "all").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["street.png", "two.png"]
    for suffix in (".docx", ".pbm"):  # the second takes one channel alone
        refused = run("read", photo, "--picture", tmp_path / f"found{suffix}")
        assert refused.exit_code == 1
        assert "use .png or .jpg" in refused.stderr


def test_a_photograph_is_decoded_once(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    open_image = images.open_image
    monkeypatch.setattr(images, "open_image", lambda *arguments: opened.append(arguments) or open_image(*arguments))
    assert run("read", photo, "--picture", tmp_path / "found.png").exit_code == 0
    assert len(opened) == 1


def test_pictures_of_photographs_with_the_same_name(photo: Path, tmp_path: Path) -> None:
    for place in ("a/x.png", "a/x.jpg", "b/x.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(photo.read_bytes())
    out = tmp_path / "out"
    assert run("read", tmp_path / "a", tmp_path / "b", "--picture", out).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["x-2.png", "x-3.png", "x.png"]


def test_a_folder_of_one_photograph_and_an_existing_folder_get_a_picture_inside(photo: Path, tmp_path: Path) -> None:
    assert run("read", photo.parent, "--picture", tmp_path / "marked").exit_code == 0
    assert (tmp_path / "marked" / "street.png").is_file()
    (tmp_path / "there").mkdir()
    assert run("read", photo, "--picture", tmp_path / "there").exit_code == 0
    assert run("read", photo, "--picture", tmp_path / "new").exit_code == 0
    assert (tmp_path / "new" / f"{photo.stem}.png").is_file()
    assert (tmp_path / "there" / "street.png").is_file()


def test_photographs_are_never_overwritten(photo: Path) -> None:
    content = photo.read_bytes()
    for source, target in ((photo, photo), (photo, photo.parent), (photo.parent, photo.parent)):
        result = run("read", source, "--picture", target)
        assert result.exit_code == 1
        assert "would overwrite" in result.stderr
        assert not result.stdout
    assert photo.read_bytes() == content


def test_a_picture_replaces_no_file(photo: Path, tmp_path: Path) -> None:
    """`read a.jpg --picture .` replaced another photograph, a.png."""
    other = photo.with_name("another.png")
    other.write_bytes(b"another photograph")
    (tmp_path / "in").mkdir()
    source = photo.rename(tmp_path / "in" / "another.jpg")
    for _ in range(2):
        assert run("read", source, "--picture", tmp_path).exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["another-2.png", "another-3.png", "another.png"]
    refused = run("read", source, "--picture", other)
    assert refused.exit_code == 1
    assert "another.png: exists already: give another name, or delete it" in refused.stderr
    assert not refused.stdout
    assert other.read_bytes() == b"another photograph"


def test_a_full_disk_leaves_no_broken_picture(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in place, the picture was cut off where the disk was full."""
    out = tmp_path / "out"
    out.mkdir()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = run("read", photo, "--picture", out, "--text")
    assert result.exit_code == 1
    assert result.stdout == "Mind the gap\nA&B\n"
    assert "street.png: cannot be written: No space left on device" in result.stderr
    assert not list(out.iterdir())


def test_pictures_that_cannot_be_written_are_said_before_anything_is_read(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "found.png", tmp_path / "file" / "deep" / "found.png"):
        result = run("read", photo, "--picture", target)
        assert result.exit_code == 1
        assert not result.stdout
        assert result.stderr.count("cannot be written") == 1
        assert "photographs could not be read" not in result.stderr


def test_a_picture_that_cannot_be_written_costs_no_reading(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "found.png").symlink_to(tmp_path / "nowhere" / "found.png")
    result = run("read", photo, "--picture", tmp_path / "found.png", "--text")
    assert result.exit_code == 1
    assert result.stdout == "Mind the gap\nA&B\n"
    assert "found.png: cannot be written: No such file or directory" in result.stderr


def test_file_names_in_any_script(photo: Path) -> None:
    strange = photo.with_name("caf\u00e9 \u732b.png")
    photo.rename(strange)
    for form in ((), ("--json",), ("--hocr",), ("--alto",)):
        result = run("read", strange, *form)
        assert result.exit_code == 0
        assert "\u732b" in result.stdout
    assert run("read", strange.parent, "--picture", strange.parent / "marked").exit_code == 0
    assert (strange.parent / "marked" / "caf\u00e9 \u732b.png").is_file()


@pytest.mark.parametrize("form", ["--json", "--hocr", "--alto"])
def test_documents_are_utf_8_whatever_the_terminal_s_encoding(photo: Path, form: str) -> None:
    strange = photo.rename(photo.with_name("caf\u00e9.png"))
    result = CliRunner(charset="latin-1").invoke(app, ["read", str(strange), form])
    assert result.exit_code == 0
    assert "caf\u00e9.png" in result.stdout_bytes.decode("utf-8")
    assert b"caf\xe9.png" in CliRunner(charset="latin-1").invoke(app, ["read", str(strange)]).stdout_bytes


def test_any_file_name_makes_one_row_and_valid_json(photo: Path) -> None:
    strange = photo.rename(photo.with_name(os.fsdecode(b"caf\xe9\n.png")))
    assert json.loads(run("read", strange, "--json").stdout_bytes.decode("utf-8"))["image"].endswith("caf\ufffd\n.png")
    newline = strange.rename(photo.with_name("a\nb.png"))
    assert run("read", newline).stdout.startswith(f"{photo.parent}/a\\nb.png\tMind the gap\t")


def test_pictures_of_several_photographs_need_a_folder(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("read", photo, photo, "--picture", tmp_path / "file")
    assert result.exit_code == 1
    assert "need a folder" in result.stderr


def test_what_is_wrong_with_the_options_is_said_once(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "Client", partial(client.Client, patience_s=0))
    (photo.parent / "two.png").write_bytes(photo.read_bytes())
    for options in (("--characters", ""), ("--server", "http://127.0.0.1:1")):
        result = run("read", photo.parent, *options)
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "code", "others"),
    [
        (413, "body_too_large", True),
        (422, "truncated", True),
        (500, "internal_error", True),
        (504, "deadline_exceeded", True),
        (422, "invalid_request", False),
        (401, "unauthorized", False),
        (0, "not_reached", False),
    ],
)
def test_a_refusal_of_one_photograph_costs_no_other(
    photo: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, others: bool
) -> None:
    class Remote:
        def __init__(self, url: str, api_key: str | None) -> None:
            pass

        def read_photo(self, path: Path, characters: str | None) -> PhotoReading:
            if path.name == "first.png":
                raise client.ServerError(status, code, "so it is")
            return PhotoReading(9, 9, (), ())

    monkeypatch.setattr(client, "Client", Remote)
    photo.with_name("first.png").write_bytes(photo.read_bytes())
    result = run("read", photo.parent, "--server", "http://there", "--json")
    assert result.exit_code == 1
    assert ("street.png" in result.stdout) == others
    assert result.stderr.count("so it is") == 1
    assert ("1 of 2 photographs could not be read" in result.stderr) == others


def test_folders_without_photographs(tmp_path: Path) -> None:
    result = run("read", tmp_path)
    assert result.exit_code == 1
    assert "no image in this folder" in result.stderr


def test_scores(photo: Path, tmp_path: Path) -> None:
    words = [{"quad": np.ravel(quad).tolist(), "text": text} for quad, text in zip(QUADS, WORDS.values(), strict=True)]
    words[1]["text"] = "then"
    words.append({"quad": [300, 100, 400, 100, 400, 130, 300, 130], "text": "missed"})
    (photo.parent / "labels.jsonl").write_text(json.dumps({"image": photo.name, "words": words}))
    result = run(
        *("evaluate-photos", "--data", photo.parent, "--json", tmp_path / "s.json", "--report", tmp_path / "r.html")
    )
    assert result.exit_code == 0, result.stderr
    assert "| found | 100.0 | 80.0 | 88.9 | 4 | 4 | 5 |" in result.stdout
    assert "| found and read | 75.0 | 60.0 | 66.7 | 3 | 4 | 5 |" in result.stdout
    assert json.loads((tmp_path / "s.json").read_text())["end_to_end"]["right"] == 3
    page = (tmp_path / "r.html").read_text()
    assert "missed" in page
    assert "then as the" in page
    none = run("evaluate-photos", "--data", photo.parent, "--threshold", 1, "--json", tmp_path / "s.json")
    assert none.exit_code == 0, none.stderr
    assert json.loads((tmp_path / "s.json").read_text())["end_to_end"]["right"] == 0


def test_an_unreadable_photograph_is_scored_as_missed(photo: Path, tmp_path: Path) -> None:
    words = [{"quad": np.ravel(quad).tolist(), "text": text} for quad, text in zip(QUADS, WORDS.values(), strict=True)]
    photo.with_name("broken.png").write_bytes(photo.read_bytes()[:200])
    names = ("broken.png", photo.name)
    lines = [json.dumps({"image": name, "words": words}) for name in names]
    (photo.parent / "labels.jsonl").write_text("\n".join(lines))
    files = ("--json", tmp_path / "s.json", "--report", tmp_path / "r.html")
    result = run("evaluate-photos", "--data", photo.parent, *files)
    assert result.exit_code == 0, result.stderr
    assert "| found and read | 100.0 | 50.0 | 66.7 | 4 | 4 | 8 |" in result.stdout
    assert "2 photographs, 1 of which could not be read (their words count as missed)" in result.stdout
    assert "broken.png: the PNG file is damaged or cut short; its words count as missed" in result.stderr
    scores = json.loads((tmp_path / "s.json").read_text())
    assert (scores["photographs"], scores["unreadable"]) == (2, 1)
    page = (tmp_path / "r.html").read_text()
    assert "their words count as missed: 1 (broken.png)" in page
    assert "<h3>broken.png</h3>\n<p>The photograph could not be read.</p>" in page
    assert "Mind, the, gap, A&amp;B" in page


def test_photographs_none_of_which_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "labels.jsonl").write_text('{"image": "broken.png", "words": []}')
    result = run("evaluate-photos", "--data", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "| found | 0.0 | 0.0 | 0.0 | 0 | 0 | 0 |" in result.stdout


def test_what_is_missing_is_named(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any) -> None:
        raise StrAppError("the detector needs rapidocr: pip install 'str-app[photo]'")

    monkeypatch.setattr(load, "load_pipeline", missing)
    result = run("read", photo)
    assert result.exit_code == 1
    assert "pip install 'str-app[photo]'" in result.stderr


def test_a_photograph_that_only_the_server_can_decode_is_read_but_not_marked(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Remote:
        def __init__(self, url: str, api_key: str | None) -> None:
            pass

        def read_photo(self, path: Path, characters: str | None) -> PhotoReading:
            return PhotoReading(9, 9, (), ())

    monkeypatch.setattr(client, "Client", Remote)
    photo.with_name("scan.png").write_bytes(b"II*\0 of a TIFF")
    marked = tmp_path / "marked"
    result = run("read", photo.parent, "--server", "http://there", "--json", "--picture", marked)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    assert "not marked: " in result.stderr
    assert [file.name for file in marked.iterdir()] == ["street.png"]
