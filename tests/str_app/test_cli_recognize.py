"""`str-app recognize` on images, folders and LMDBs, good and bad."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import lmdb
import numpy as np
import pytest
from typer.testing import CliRunner

from str_app.cli import app
from str_app.client import Client, ServerError
from str_app.errors import ImageError
from str_app.policy import DEFAULT_POLICY
from str_app.reader import Reader, Reading
from tests.str_app.fake_engine import FakeEngine, paint
from tests.str_app.painted_data import png, write_folder, write_lmdb


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: str, *, batch_size: int, **options: Any) -> Reader:
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


def test_any_file_name_makes_one_row_and_valid_json(crops: Path) -> None:
    """A newline made two rows; a byte that is not UTF-8 made JSON that nothing can parse."""
    (crops / "beta.png").rename(crops / "be\tt\na\\.png")
    (crops / "gamma.png").rename(crops / os.fsdecode(b"gamm\xe9.png"))
    rows = recognize(crops / "be\tt\na\\.png").stdout
    assert rows.startswith(f"{crops}/be\\tt\\na\\\\.png\tbeta\t")
    line = recognize(crops / os.fsdecode(b"gamm\xe9.png"), "--json").stdout_bytes
    assert json.loads(line.decode("utf-8"))["image"] == f"{crops}/gamm\ufffd.png"


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


@pytest.mark.parametrize("label", [None, b"\xff"])
def test_the_records_of_an_lmdb_need_no_labels(tmp_path: Path, label: bytes | None) -> None:
    data = write_lmdb(tmp_path / "set.lmdb", [("one", "one"), ("two", None)])
    with lmdb.open(str(data)) as environment, environment.begin(write=True) as transaction:
        for key in (b"label-000000001", b"label-000000002"):
            transaction.delete(key) if label is None else transaction.put(key, label)
    result = recognize(data)
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["one"]
    assert f"{data} record 2 (image-000000002): the image cannot be decoded" in result.stderr


def test_skipped_files_are_counted(crops: Path) -> None:
    (crops / "moving.gif").touch()
    (crops / "nowhere.png").symlink_to(crops / "gone.png")
    (crops / "folder").mkdir()
    (crops / ".hidden").touch()
    result = recognize(crops)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 3)
    below, skipped = result.stderr.splitlines()
    assert below == f"str-app: {crops}: 1 sub-folder is not read; name it, or use `str-app bulk`"
    assert skipped.startswith(f"str-app: {crops}: 2 files skipped: not .")


def test_a_regions_file_without_regions(crops: Path, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    result = recognize(crops / "beta.png", "--regions", tmp_path / "none.json")
    assert result.exit_code == 1
    assert "none.json: no region in this file" in result.stderr


def test_an_empty_folder_and_a_broken_lmdb(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = recognize(tmp_path / "empty")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no image in this folder" in result.stderr
    assert "sub-folder" not in result.stderr
    (tmp_path / "empty" / "a").mkdir()
    (tmp_path / "empty" / "b").mkdir()
    assert "(2 sub-folders are not read; name them, or use `str-app bulk`)" in recognize(tmp_path / "empty").stderr
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
    words.write_text("Betb\r\ndelta\r\n", encoding="utf-8-sig", newline="")
    assert recognize(crops / "beta.png", "--lexicon", words).stdout.split("\t")[1] == "Betb"
    assert recognize(crops / "beta.png", "--beam", 4).stdout.split("\t")[1] == "beta"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no word"),
        (b"\xff\xfe\x00", "damaged UTF-16"),
        (b"caf\xe9", "line 1: not UTF-8"),
        ("na\u00efve\n".encode(), "charset"),
        ("beta\n".encode("utf-16-le"), "words.txt line 1: a NUL character, as in UTF-16"),
        (b"beta\n\nnew york\n", "words.txt line 3: lexicon word 'new york': the model's charset has no ' '; remove"),
        (
            b"beta\n" + b"a" * 17,
            "words.txt line 2: lexicon word 'aaaaaaaaaaaaaaaaa' has 17 characters",
        ),
        (b"a" * 17, "more than the 16 of the model; remove it"),
    ],
)
def test_a_lexicon_that_cannot_be_used(crops: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    words = tmp_path / "words.txt"
    words.write_bytes(content)
    result = recognize(crops, "--lexicon", words)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert "--debug" not in result.stderr


def test_wrong_usage() -> None:
    assert recognize().exit_code == 2
    assert recognize("word.png", "--beam", 0).exit_code == 2
    assert f"[default: {DEFAULT_POLICY.beam}]" in " ".join(recognize("--help").stdout.replace("│", " ").split())


def test_regions_of_a_photograph(tmp_path: Path) -> None:
    picture = np.full((100, 200, 3), 128, dtype=np.uint8)
    picture[10:42, 20:60] = paint("left")
    photo, marked = tmp_path / "photo.png", tmp_path / "regions.txt"
    photo.write_bytes(png(picture))
    marked.write_text("20,10,60,42,left\n900,10,960,42\n20,10,60,10,60,42,20,42\n")
    result = recognize(photo, "--regions", marked)
    assert result.exit_code == 1
    assert [line.split("\t")[:2] for line in result.stdout.splitlines()] == [
        [f"{photo}#1", "left"],
        [f"{photo}#3", "left"],
    ]
    assert "region 2 of 3" in result.stderr
    assert "1 of 3 regions" in result.stderr
    marked.write_text("[[20, 10, 60, 42]]")
    (line,) = map(json.loads, recognize(photo, "--regions", marked, "--json").stdout.splitlines())
    assert line["characters"][0]["box"] == [20.0, 10.0, 28.0, 42.0]
    assert recognize(photo, photo, "--regions", marked).exit_code == 2


def test_rotate(tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    path.write_bytes(png(np.ascontiguousarray(np.rot90(paint("EXIT", [0.99, 0.99, 0.6, 0.99], scale=2), 2))))
    (line,) = map(json.loads, recognize(path, "--rotate", "--json").stdout.splitlines())
    assert (line["text"], line["rotation"]) == ("EXIT", 180)


@pytest.mark.parametrize("where", [(), ("--server", "http://there")])
def test_allowed_characters(tmp_path: Path, where: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("str_app.client.Client", Remote)
    path = tmp_path / "meter.png"
    path.write_bytes(png(paint("1a2")))
    (line,) = recognize(path, "--characters", "0-9", *where).stdout.splitlines()
    assert line.split("\t")[1].isdigit()


def test_a_list_of_characters_that_means_nothing(crops: Path) -> None:
    result = recognize(crops, "--characters", "9-0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "characters '9-0': the range 9-0 runs backwards" in result.stderr


class Remote:
    """In place of `str_app.client.Client`: reads here, and keeps what it was asked."""

    asked: ClassVar[list[Any]] = []

    def __init__(self, url: str, api_key: str | None) -> None:
        self.asked.append((url, api_key))

    def recognize(self, images: list[bytes], rotate: bool, characters: str | None) -> list[Reading | ImageError]:
        self.asked.append((len(images), rotate))
        outcomes: list[Reading | ImageError] = []
        for image in images:
            try:
                outcomes += Reader(FakeEngine()).recognize([image], characters=characters)
            except ImageError as error:
                outcomes.append(ImageError(error.code, "damaged"))
        return outcomes

    def recognize_regions(self, photo: Path, regions: list[Any], rotate: bool, characters: str | None) -> list[Reading]:
        return Reader(FakeEngine()).recognize_regions(photo, regions, characters=characters)


def test_a_server_reads_the_same(crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("str_app.client.Client", Remote)
    monkeypatch.setenv("STR_APP_API_KEY", "k1")
    Remote.asked.clear()
    write_lmdb(tmp_path / "data.lmdb", [("delta", "delta"), ("epsilon", "epsilon")])
    sources = (crops, tmp_path / "data.lmdb")
    here = recognize(*sources, "--json")
    there = recognize(*sources, "--json", "--server", "http://there", "--batch-size", 4)
    assert (there.exit_code, there.stdout) == (0, here.stdout)
    assert Remote.asked == [("http://there", "k1"), (4, False), (1, False)]
    (crops / "bad.png").write_bytes(b"junk")
    result = recognize(crops, "--server", "http://there")
    assert result.exit_code == 1
    assert f"{crops / 'bad.png'}: damaged" in result.stderr
    assert len(result.stdout.splitlines()) == 3
    marked = tmp_path / "regions.json"
    marked.write_text("[[0, 0, 40, 32]]")
    assert "\tbeta\t" in recognize(crops / "beta.png", "--regions", marked, "--server", "http://there").stdout


@pytest.mark.parametrize("where", [(), ("--server", "http://there")])
@pytest.mark.parametrize("regions", [False, True])
def test_a_missing_file_is_named_alike(
    crops: Path, tmp_path: Path, where: tuple[str, ...], regions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("str_app.client.Client", Remote)
    marked = tmp_path / "regions.txt"
    marked.write_text("0,0,40,32")
    missing = crops / "missing.jpg"
    result = recognize(missing, *(("--regions", marked) if regions else ()), *where)
    assert result.exit_code == 1
    assert f"str-app recognize: {missing}: no such file\n" in result.stderr


def test_what_the_server_decides_is_not_an_option(crops: Path) -> None:
    result = recognize(crops, "--server", "http://there", "--beam", 4)
    assert result.exit_code == 2
    assert "--beam" in result.output


def test_a_photograph_is_pointed_to_read(crops: Path) -> None:
    photo = np.full((480, 640, 3), 128, np.uint8)
    (crops / "street.png").write_bytes(png(photo))
    result = recognize(crops)
    assert result.exit_code == 0
    assert "street.png looks like a photograph" in result.stderr
    assert "`str-app read" in result.stderr
    (crops / "street.png").unlink()
    (crops / "large.png").write_bytes(png(paint("sure", 0.99, scale=20)))
    assert "photograph" not in recognize(crops).stderr


def test_an_lmdb_without_a_folder(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "folder")
    whole = recognize(tmp_path / "folder").stdout
    (tmp_path / "folder" / "data.mdb").rename(tmp_path / "flat.lmdb")
    result = recognize(tmp_path / "flat.lmdb")
    assert "1 of 8 images could not be read" in result.stderr
    assert result.stdout == whole.replace(f"{tmp_path}/folder/", f"{tmp_path}/flat.lmdb/")


@pytest.mark.parametrize("code", ["body_too_large", "too_many_images"])
def test_images_too_many_for_one_request_are_sent_in_several(
    crops: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    huge = png(paint("huge"))
    (crops / "huge.png").write_bytes(huge)

    def answer(client: Client, images: list[bytes], **choices: Any) -> list[Reading]:
        if len(images) > 2 or huge in images:
            raise ServerError(413, code, "More than a request may have.")
        return [Reading("word", 0.5, ())] * len(images)

    monkeypatch.setattr(Client, "recognize", answer)
    result = recognize(crops, "--server", "http://localhost:1")
    assert result.exit_code == 1
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["word"] * 3
    assert f"{crops / 'huge.png'}: More than a request may have." in result.stderr
    assert "1 of 4 images could not be read" in result.stderr
