"""Labelled photographs in three layouts, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from str_app.datasets.labelled_photos import open_photos
from str_app.datasets.sample import DataError

QUAD = [10.0, 20.0, 60.0, 20.0, 60.0, 40.0, 10.0, 40.0]
CORNERS = ((10.0, 20.0), (60.0, 20.0), (60.0, 40.0), (10.0, 40.0))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / name, "")


def test_own_layout(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "img_10.jpg", "img_2.jpg")
    rows = [
        {"image": f"images/{name}.jpg", "words": [{"quad": QUAD, "text": "EXIT"}, {"quad": QUAD, "text": "###"}]}
        for name in ("img_10", "img_2")
    ]
    write(tmp_path / "labels.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    photos = open_photos(tmp_path)
    assert [photo.path.name for photo in photos] == ["img_2.jpg", "img_10.jpg"]
    assert [word.text for word in photos[0].words] == ["EXIT", None]
    assert photos[0].words[0].polygon == CORNERS


def test_points_and_null(tmp_path: Path) -> None:
    """The quads of `str-app read --json`, and words that nobody can read."""
    pictures(tmp_path, "a.jpg")
    words = [{"quad": list(map(list, CORNERS)), "text": "None"}, {"quad": QUAD, "text": None}]
    write(tmp_path / "labels.jsonl", json.dumps({"image": "a.jpg", "words": words}))
    (photo,) = open_photos(tmp_path)
    assert [(word.polygon, word.text) for word in photo.words] == [(CORNERS, "None"), (CORNERS, None)]


@pytest.mark.parametrize("named", ["caf\u00e9/a.jpg", "cafe\u0301\\a.jpg"])
def test_paths_as_other_systems_write_them(tmp_path: Path, named: str) -> None:
    pictures(tmp_path, "cafe\u0301/a.jpg")
    write(tmp_path / "labels.jsonl", json.dumps({"image": named, "words": []}))
    (photo,) = open_photos(tmp_path)
    assert photo.path == tmp_path / "cafe\u0301" / "a.jpg"


@pytest.mark.parametrize("text", ["###", "#", "*"])
def test_texts_of_words_that_nobody_can_read(tmp_path: Path, text: str) -> None:
    pictures(tmp_path, "a.jpg")
    write(tmp_path / "labels.jsonl", json.dumps({"image": "a.jpg", "words": [{"quad": QUAD, "text": text}]}))
    (photo,) = open_photos(tmp_path)
    assert [word.text for word in photo.words] == [None]


def test_icdar_2015(tmp_path: Path) -> None:
    pictures(tmp_path / "ch4_test_images", "img_1.jpg")
    write(tmp_path / "gt" / "gt_img_1.txt", "\ufeff10,20,60,20,60,40,10,40,A, B\r\n10,20,60,20,60,40,10,40,###\r\n")
    (photo,) = open_photos(tmp_path)
    assert [(word.polygon, word.text) for word in photo.words] == [(CORNERS, "A, B"), (CORNERS, None)]


def test_total_text(tmp_path: Path) -> None:
    pictures(tmp_path / "Images", "img11.jpg")
    lines = [
        "x: [[10 35 60 60 35\n 10]], y: [[20 18 20 40 38 40]], ornt: [u'c'], transcriptions: [u'PETROSAINS']",
        "x: [[1 2 3]], y: [[4 5 6]], ornt: [u'#'], transcriptions: [u'#']",
        "x: [[1 2 3]], y: [[4 5 6]], ornt: [u'h'], transcriptions: [u\"L'OR\"]",
    ]
    write(tmp_path / "gt" / "poly_gt_img11.txt", "\n".join(lines).replace("35\n 10", "35 10"))
    (photo,) = open_photos(tmp_path)
    assert [word.text for word in photo.words] == ["PETROSAINS", None, "L'OR"]
    assert len(photo.words[0].polygon) == 6
    assert photo.words[0].polygon[1] == (35.0, 18.0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.jsonl", "{", "labels.jsonl line 1"),
        ("labels.jsonl", "[" * 100_000, "labels.jsonl line 1"),
        ("labels.jsonl", '{"image": "none.jpg", "words": []}', "no such file"),
        ("labels.jsonl", '{"image": "a.jpg", "words": [{"quad": [1, 2], "text": "x"}]}', "line 1"),
        ("labels.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("labels.jsonl", "[]", 'line 1: not an object with an "image"'),
        ("labels.jsonl", '{"image": null, "words": []}', 'line 1: not an object with an "image"'),
        ("labels.jsonl", '{"image": "a.jpg", "words": {}}', 'line 1: no list of "words"'),
        *[
            (
                "labels.jsonl",
                f'{{"image": "a.jpg", "words": [{{"quad": {quad}, "text": "x"}}]}}',
                f"line 1: word 1: {why}",
            )
            for quad, why in (
                ("[1, 2, 3, 4, 5, NaN]", "its coordinates are no pixels"),
                ("[1, 2, 3, 4, 5, -Infinity]", "its coordinates are no pixels"),
                (f"[1, 2, 3, 4, 5, 1{400 * '0'}]", "its coordinates are no pixels"),
                ("[[1, 2], [3, 4], [5]]", "its quad is neither"),
                ('["1", 2, 3, 4, 5, 6]', "its quad is neither"),
                ("null", "its quad is neither"),
                ("[[1, 2], [3, 4]]", "4 numbers are not the corners"),
            )
        ],
        *[
            ("labels.jsonl", f'{{"image": "a.jpg", "words": [{{"quad": {QUAD}, "text": {text}}}]}}', "its text is")
            for text in ("7", "true", '["a"]', "NaN")
        ],
        (
            "labels.jsonl",
            f'{{"image": "a.jpg", "words": [{{"quad": {QUAD}}}]}}',
            'not an object with "quad" and "text"',
        ),
        ("gt_a.txt", "1,2,3,4,5,6,7,nan,word", "line 1: its coordinates are no pixels"),
        ("gt_a.txt", "1,2,3,4,5,6,7,8", "line 1: not eight numbers"),
        ("gt_a.txt", "1,2,3,4,5,6,7,x,word", "line 1"),
        ("poly_gt_a.txt", "x: [[1 2 3]], y: [[1 2]], ornt: [u'h'], transcriptions: [u'a']", "3 x coordinates and 2 y"),
        ("gt_b.txt", "1,2,3,4,5,6,7,8,word", "no picture b"),
    ],
)
def test_broken_labels_name_file_and_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    pictures(tmp_path, "a.jpg")
    write(tmp_path / name, text)
    with pytest.raises(DataError, match=message):
        open_photos(tmp_path)


def test_no_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labelled photographs"):
        open_photos(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        open_photos(tmp_path / "nowhere")


def test_pictures_of_equal_names_are_those_beside_their_labels(tmp_path: Path) -> None:
    for part, text in (("train", "AAA"), ("test", "BBB")):
        pictures(tmp_path / part, "img_1.jpg")
        write(tmp_path / part / "gt_img_1.txt", f"10,20,60,20,60,40,10,40,{text}")
    found = {(photo.path.parent.name, photo.words[0].text) for photo in open_photos(tmp_path)}
    assert found == {("train", "AAA"), ("test", "BBB")}
    (tmp_path / "train/gt_img_1.txt").rename(tmp_path / "gt_img_1.txt")
    with pytest.raises(DataError, match=r"gt_img_1.txt: .*img_1.jpg and .*img_1.jpg both may be its picture"):
        open_photos(tmp_path)


def test_what_macos_adds_to_each_file_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "img_1.jpg").write_bytes(b"")
    (tmp_path / "gt_img_1.txt").write_text("0,0,9,0,9,9,0,9,word\n")
    for name in ("._img_1.jpg", "._gt_img_1.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (photo,) = open_photos(tmp_path)
    assert photo.path.name == "img_1.jpg"


def test_pictures_are_in_order_whatever_digits_their_names_have(tmp_path: Path) -> None:
    for name in ("img_10", "img_2", "img_\u00b2"):
        (tmp_path / f"{name}.jpg").write_bytes(b"")
        (tmp_path / f"gt_{name}.txt").write_text("0,0,9,0,9,9,0,9,word\n")
    assert [photo.path.stem for photo in open_photos(tmp_path)] == ["img_2", "img_10", "img_\u00b2"]
