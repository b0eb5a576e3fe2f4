"""Each archive's layout in small, written as its authors do."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from str_app.datasets.converters import CONVERTERS, load_converter
from str_app.datasets.converters.conversion import convert
from str_app.datasets.converters.record import Record, Skipped
from str_app.datasets.image_decoding import decode_image
from str_app.datasets.lexicon import read_lexicons, read_subset
from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.sample import DataError
from tests.datasets.pictures import ODD_LABELS, encoded, picture, write_folder


def read(kind: str, source: Path, split: str | None = None) -> tuple[list[Record], list[Skipped]]:
    total, items = load_converter(kind)(source, split)
    found = list(items)
    assert total in (None, len(found))
    return [item for item in found if isinstance(item, Record)], [item for item in found if isinstance(item, Skipped)]


def texts(records: list[Record]) -> dict[str, str]:
    return {record.identifier: record.text for record in records}


def write_images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names, 1):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(picture(number), "JPEG" if name.endswith("jpg") else "PNG"))


# folder


def test_tab_separated(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words", [*ODD_LABELS, ""])
    with (folder / "labels.tsv").open("a", encoding="utf-8") as file:
        file.write("images/gone.png\tgone\nno tab here\n")
    records, skipped = read("folder", folder)
    assert [record.text for record in records] == ODD_LABELS
    assert records[2].image == encoded(picture(3))
    assert skipped == [
        Skipped(f"images/{len(ODD_LABELS) + 1}.png", "empty label"),
        Skipped("images/gone.png", "No such file or directory"),
        Skipped(f"labels.tsv line {len(ODD_LABELS) + 3}", "no tab between path and text"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        'a.png,"say ""hi"", Bob"\nb.png,Café\n',
        '\ufeffid,Text,Filename\n7,"say ""hi"", Bob",a.png\n8,Café,b.png\n',
        'label,image\r\n"say ""hi"", Bob",a.png\r\nCafé,b.png\r\n',
    ],
)
def test_comma_separated(tmp_path: Path, content: str) -> None:
    write_images(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_text(content, encoding="utf-8", newline="")
    records, skipped = read("folder", tmp_path)
    assert texts(records) == {"a.png": 'say "hi", Bob', "b.png": "Café"}
    assert skipped == []


def test_comma_separated_with_a_short_line(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png")
    (tmp_path / "words.csv").write_text("a.png,a\nb.png\n")
    records, skipped = read("folder", tmp_path / "words.csv")
    assert texts(records) == {"a.png": "a"}
    assert skipped == [Skipped("words.csv line 2", f"too few columns, separated by commas, or {NAMES}")]


NAMES = "name the columns image and text in the first line"


def labelled(tmp_path: Path, name: str, content: str) -> tuple[dict[str, str], list[Skipped]]:
    """Texts and skipped lines of a list with this content beside `1.png` … `4.png`."""
    write_images(tmp_path, *(f"images/{number}.png" for number in range(1, 5)))
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    records, skipped = read("folder", tmp_path)
    return texts(records), skipped


def test_commas_without_quotes_cut_no_label(tmp_path: Path) -> None:
    content = 'file,words\nimages/1.png,1,000\nimages/2.png,"1,000"\nimages/3.png,plain\n'
    assert labelled(tmp_path, "labels.csv", content) == (
        {"images/2.png": "1,000", "images/3.png": "plain"},
        [Skipped("labels.csv line 2", "too many columns: put quotes around a text with commas")],
    )


def test_without_a_header_only_two_columns_are_read(tmp_path: Path) -> None:
    content = "images/1.png,Hello, world\nimages/2.png,two\n"
    assert labelled(tmp_path, "labels.csv", content) == (
        {"images/2.png": "two"},
        [Skipped("labels.csv line 1", f"too many columns: put quotes around a text with commas, or {NAMES}")],
    )


def test_a_lone_quote_costs_its_own_line(tmp_path: Path) -> None:
    content = 'file,words\nimages/1.png,"\nimages/2.png,two\nimages/3.png,3"\nimages/4.png,4"\n'
    assert labelled(tmp_path, "labels.csv", content) == (
        {"images/2.png": "two", "images/4.png": '4"'},
        [
            Skipped("labels.csv line 2", "a quote that is not closed on its line"),
            Skipped("labels.csv line 4", "a quote that may close one opened on an earlier line"),
        ],
    )


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_csv_of_a_spreadsheet_in_another_language(tmp_path: Path, delimiter: str) -> None:
    lines = ["File;Text;Nr.", "images/1.png;3,50;1", 'images/2.png;"x;y";2']
    content = "\ufeff" + "\r\n".join(lines).replace(";", delimiter)
    texts_of = {"images/1.png": "3,50", "images/2.png": f"x{delimiter}y"}
    assert labelled(tmp_path, "labels.csv", content) == (texts_of, [])


def test_what_is_not_csv_is_named_with_its_line(tmp_path: Path) -> None:
    long_field = "x" * 200_000
    content = f'file,words\nimages/1.png,"a"b\nimages/2.png,{long_field}\nimages/3.png,three\n'
    found, skipped = labelled(tmp_path, "labels.csv", content)
    assert found == {"images/3.png": "three"}
    assert [location for location, _ in skipped] == ["labels.csv line 2", "labels.csv line 3"]
    assert all(reason.startswith("not CSV: ") for _, reason in skipped)


def test_labels_that_no_crop_can_have(tmp_path: Path) -> None:
    rows = [{"image": f"images/{n}.png", "text": text} for n, text in enumerate(["a\nb", "\u2028", "a\x07", "  "], 1)]
    assert labelled(tmp_path, "labels.jsonl", "\n".join(json.dumps(row) for row in rows)) == (
        {},
        [
            Skipped("images/1.png", "line break in the label"),
            Skipped("images/2.png", "blank label"),
            Skipped("images/3.png", "control character in the label"),
            Skipped("images/4.png", "blank label"),
        ],
    )


def test_a_list_made_on_windows(tmp_path: Path) -> None:
    content = "\ufeffimages\\1.png\tone\r\nimages\\2.png\ttwo\r\n"
    assert labelled(tmp_path, "gt.txt", content) == ({"images/1.png": "one", "images/2.png": "two"}, [])


def test_carriage_returns_alone_end_lines(tmp_path: Path) -> None:
    content = "images/1.png\tone\rimages/2.png\ttwo"
    assert labelled(tmp_path, "labels.tsv", content) == ({"images/1.png": "one", "images/2.png": "two"}, [])


def test_a_header_line_in_a_tsv(tmp_path: Path) -> None:
    content = "filename\twords\nimages/1.png\tone\n"
    assert labelled(tmp_path, "labels.tsv", content) == ({"images/1.png": "one"}, [])


def test_labels_of_trdg(tmp_path: Path) -> None:
    content = "images/1.png one\nimages/2.png two words\nimages/3.png\n"
    assert labelled(tmp_path, "labels.txt", content) == (
        {"images/1.png": "one", "images/2.png": "two words"},
        [Skipped("labels.txt line 3", "no space between path and text")],
    )


def test_utf_16(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png")
    (tmp_path / "labels.tsv").write_text("a.png\tCafé\n", encoding="utf-16")
    assert texts(read("folder", tmp_path)[0]) == {"a.png": "Café"}
    (tmp_path / "labels.tsv").write_bytes("a.png\tCafé\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.tsv line 1: not UTF-8 \(.* at byte 9\): save the file as UTF-8"):
        read("folder", tmp_path)


def test_json_lines(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", "b.png")
    rows = [{"image": "a.png", "text": "tab\there"}, {"file_name": "b.png", "label": "日本"}, {"image": "c.png"}]
    lines = [*(json.dumps(row) for row in rows), "[1]", "{cut", "[" * 100_000, ""]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    records, skipped = read("folder", tmp_path, "train")
    assert texts(records) == {"a.png": "tab\there", "b.png": "日本"}
    assert skipped == [
        Skipped("train.jsonl line 3", "no image or no text in the object"),
        Skipped("train.jsonl line 4", "not a JSON object"),
        Skipped("train.jsonl line 5", "not JSON"),
        Skipped("train.jsonl line 6", "not JSON"),
    ]


def test_a_folder_without_or_with_two_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the list of labels not found: looked for .*labels\.tsv"):
        read("folder", tmp_path)
    for name in ("labels.csv", "labels.tsv"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=r"there are labels\.tsv, labels\.csv: choose one"):
        read("folder", tmp_path)


# IIIT5K


def write_iiit5k(folder: Path, split: str, rows: list[dict[str, Any]]) -> Path:
    """As in the archive: a 1 × N struct array whose lexicons are cell arrays."""
    kinds = [("ImgName", object), ("GroundTruth", object), ("smallLexi", object), ("mediumLexi", object)]
    data = np.empty((1, len(rows)), dtype=kinds)
    for place, row in enumerate(rows):
        words = np.array(row["words"], dtype=object).reshape(1, -1)
        data[0, place] = (row["name"], row["text"], words, words)
    savemat(folder / f"{split}data.mat", {f"{split}data": data})
    return folder


def test_iiit5k(tmp_path: Path) -> None:
    write_images(tmp_path, "train/1_1.png", "train/2_1.png")
    rows = [
        {"name": "train/1_1.png", "text": "TO", "words": ["TO", "MY", "a,b"]},
        {"name": "train/2_1.png", "text": "7", "words": ["7"]},
        {"name": "train/3_1.png", "text": "GONE", "words": ["GONE", "x"]},
    ]
    records, skipped = read("iiit5k", write_iiit5k(tmp_path, "train", rows))
    assert texts(records) == {"train/1_1.png": "TO", "train/2_1.png": "7"}
    assert [record.lexicon for record in records] == [("TO", "MY", "a,b"), ("7",)]
    assert records[0].image == encoded(picture(1))
    assert skipped == [Skipped("train/3_1.png", "No such file or directory")]


def test_iiit5k_with_one_word_and_character_boxes(tmp_path: Path) -> None:
    write_images(tmp_path, "test/1_1.png")
    write_iiit5k(tmp_path, "test", [{"name": "test/1_1.png", "text": "To", "words": ["To"]}])
    bounds = np.empty((1, 1), dtype=[("ImgName", object), ("chars", object), ("charBB", object)])
    bounds[0, 0] = ("test/1_1.png", "TO", np.array([[1, 2, 10, 12], [12, 2, 9, 12]], dtype=float))
    savemat(tmp_path / "testCharBound.mat", {"testCharBound": bounds})
    (record,), _ = read("iiit5k", tmp_path, "test")
    assert record.boxes is not None
    assert record.boxes.tolist() == [[1, 2, 11, 14], [12, 2, 21, 14]]


@pytest.mark.parametrize(("characters", "shape"), [("CAT", (2, 4)), ("DOG", (3, 4)), ("CAT", (3, 3))])
def test_character_boxes_of_another_text_are_left_out(tmp_path: Path, characters: str, shape: tuple[int, int]) -> None:
    write_images(tmp_path, "test/1_1.png")
    write_iiit5k(tmp_path, "test", [{"name": "test/1_1.png", "text": "Cat", "words": ["Cat"]}])
    bounds = np.empty((1, 1), dtype=[("ImgName", object), ("chars", object), ("charBB", object)])
    bounds[0, 0] = ("test/1_1.png", characters, np.ones(shape))
    savemat(tmp_path / "testCharBound.mat", {"testCharBound": bounds})
    (record,), _ = read("iiit5k", tmp_path, "test")
    assert record.boxes is None


def test_iiit5k_asks_for_the_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_iiit5k(tmp_path, split, [{"name": "a.png", "text": "a", "words": ["a"]}])
    with pytest.raises(DataError, match="choose one with --split"):
        read("iiit5k", tmp_path)
    with pytest.raises(DataError, match=r"not found: looked for .*valdata\.mat"):
        read("iiit5k", tmp_path, "val")
    (tmp_path / "testdata.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut")
    with pytest.raises(DataError, match=r"testdata\.mat: not a readable \.mat file"):
        read("iiit5k", tmp_path, "test")


# SVT

SVT_XML = """<?xml version="1.0" encoding="utf-8"?>
<tagset>
  <image>
    <imageName>img/00_01.jpg</imageName>
    <address>1 Main Street</address>
    <lex>LIVING,ROOM,THEATERS</lex>
    <Resolution x="80" y="60"/>
    <taggedRectangles>
      <taggedRectangle height="20" width="30" x="10" y="5"><tag>LIVING</tag></taggedRectangle>
      <taggedRectangle height="20" width="30" x="-4" y="50"><tag>ROOM</tag></taggedRectangle>
      <taggedRectangle height="20" width="30" x="100" y="5"><tag>OUTSIDE</tag></taggedRectangle>
      <taggedRectangle height="20" width="30" x="1" y="5"><tag> </tag></taggedRectangle>
      <taggedRectangle height="20" width="wide" x="1" y="5"><tag>WIDE</tag></taggedRectangle>
    </taggedRectangles>
  </image>
  <image>
    <imageName>img/gone.jpg</imageName>
    <lex>A</lex>
    <taggedRectangles>
      <taggedRectangle height="2" width="3" x="1" y="5"><tag>A</tag></taggedRectangle>
    </taggedRectangles>
  </image>
</tagset>
"""


def test_svt(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    whole = encoded(picture(3, 60, 80), "JPEG", quality=95)
    (tmp_path / "img" / "00_01.jpg").write_bytes(whole)
    (tmp_path / "test.xml").write_text(SVT_XML)
    records, skipped = read("svt", tmp_path)
    assert texts(records) == {"img/00_01.jpg#1": "LIVING", "img/00_01.jpg#2": "ROOM"}
    pixels = decode_image(whole)
    assert np.array_equal(decode_image(records[0].image), pixels[5:25, 10:40])
    assert np.array_equal(decode_image(records[1].image), pixels[50:60, 0:26])
    assert records[0].lexicon == ("LIVING", "ROOM", "THEATERS")
    assert [(place[-2:], reason) for place, reason in skipped] == [
        ("#3", "the box is empty or outside the photograph"),
        ("#4", "empty label"),
        ("#5", "no readable rectangle"),
        ("#1", "No such file or directory"),
    ]
    (tmp_path / "test.xml").write_text(SVT_XML[:300])
    with pytest.raises(DataError, match=r"test\.xml: damaged XML"):
        read("svt", tmp_path)


# IC13 and IC15

ICDAR_LINES = [
    'word_1.png, "Tiredness"',
    r'word_2.png, "say \"hi\", Bob"',
    r'word_3.png, "back\\slash"',
    'word_4.png, "Café"',
    'word_5.png, ""',
    "word_6.png Tiredness",
]


@pytest.mark.parametrize("kind", ["ic13", "ic15"])
def test_icdar_training_archive(tmp_path: Path, kind: str) -> None:
    write_images(tmp_path, *(f"word_{number}.png" for number in range(1, 7)))
    (tmp_path / "gt.txt").write_text("\ufeff" + "\r\n".join(ICDAR_LINES) + "\r\n", encoding="utf-8", newline="")
    (tmp_path / "coords.txt").write_text("word_1.png,1,2,3,4,5,6,7,8\n")
    records, skipped = read(kind, tmp_path)
    assert texts(records) == {
        "word_1.png": "Tiredness",
        "word_2.png": 'say "hi", Bob',
        "word_3.png": "back\\slash",
        "word_4.png": "Café",
    }
    assert skipped == [
        Skipped("word_5.png", "empty label"),
        Skipped("gt.txt line 6", 'not a line of `name, "text"`'),
    ]


def test_icdar_test_archive(tmp_path: Path) -> None:
    write_images(tmp_path / "Challenge2_Test_Task3_Images", "word_1.png")
    write_images(tmp_path / "Challenge2_Training_Task3_Images_GT", "word_1.png")
    (tmp_path / "Challenge2_Test_Task3_GT.txt").write_text('word_1.png, "PROPER"\n')
    (tmp_path / "Challenge2_Training_Task3_Images_GT" / "gt.txt").write_text('word_1.png, "train"\n')
    with pytest.raises(DataError, match="choose one with --split"):
        read("ic13", tmp_path)
    assert texts(read("ic13", tmp_path, "test")[0]) == {"Challenge2_Test_Task3_Images/word_1.png": "PROPER"}
    assert texts(read("ic13", tmp_path, "train")[0]) == {"word_1.png": "train"}


# SVTP and CUTE80


def test_svtp(tmp_path: Path) -> None:
    write_images(tmp_path / "par1", "13_15_0_par.jpg", "13_15_1_par.jpg")
    (tmp_path / "gt.txt").write_text("13_15_0_par.jpg WYNDHAM\n13_15_1_par.jpg two words\n13_15_2_par.jpg GONE\n")
    records, skipped = read("svtp", tmp_path)
    assert texts(records) == {"par1/13_15_0_par.jpg": "WYNDHAM", "par1/13_15_1_par.jpg": "two words"}
    assert [reason for _, reason in skipped] == ["No such file or directory"]


def test_cute80(tmp_path: Path) -> None:
    write_images(tmp_path / "timage", "001.jpg", "002.jpg", "003.jpg")
    (tmp_path / "gt.txt").write_text("timage/001.jpg RONALDO 1 RONALDO\ntimage/002.jpg 7 1 7\ntimage/003.jpg\n")
    records, skipped = read("cute80", tmp_path)
    assert texts(records) == {"timage/001.jpg": "RONALDO", "timage/002.jpg": "7"}
    assert skipped == [Skipped("timage/003.jpg", "empty label")]


# MJSynth and SynthText


@pytest.mark.parametrize("below", ["", "mnt/ramdisk/max/90kDICT32px"])
def test_mjsynth(tmp_path: Path, below: str) -> None:
    folder = tmp_path / below
    write_images(folder, "2425/1/115_Lube_45484.jpg", "1/2/7_don_t_9.jpg", "1/2/odd.jpg")
    (folder / "annotation_train.txt").write_text(
        "./2425/1/115_Lube_45484.jpg 45484\n./1/2/7_don_t_9.jpg 9\n./1/2/odd.jpg 1\n./1/2/3_gone_4.jpg 4\n"
    )
    records, skipped = read("mjsynth", tmp_path, "train")
    assert texts(records) == {"2425/1/115_Lube_45484.jpg": "Lube", "1/2/7_don_t_9.jpg": "don_t"}
    assert skipped == [
        Skipped("1/2/odd.jpg", "the file name is not NUMBER_WORD_NUMBER"),
        Skipped("1/2/3_gone_4.jpg", "No such file or directory"),
    ]


def cells(items: list[Any]) -> np.ndarray:
    row = np.empty((1, len(items)), dtype=object)
    for place, item in enumerate(items):
        row[0, place] = item
    return row


def quadrilaterals(*boxes: tuple[float, float, float, float]) -> np.ndarray:
    """(2, 4, n), or (2, 4) for one word, as MATLAB drops a last dimension of one."""
    corners = np.array([[[x0, x1, x1, x0], [y0, y0, y1, y1]] for x0, y0, x1, y1 in boxes], dtype=float)
    return corners[0] if len(boxes) == 1 else corners.transpose(1, 2, 0)


def test_synthtext(tmp_path: Path) -> None:
    (tmp_path / "8").mkdir()
    for number in (1, 2, 3):
        (tmp_path / "8" / f"ballet_{number}.jpg").write_bytes(encoded(picture(number, 60, 90), "JPEG", quality=95))
    labels = {
        "imnames": cells(["8/ballet_1.jpg", "8/ballet_2.jpg", "8/ballet_3.jpg", "8/gone.jpg"]),
        "wordBB": cells(
            [
                quadrilaterals((1, 2, 30, 20), (31.5, 2, 60.2, 20), (-5, 30, 40, 50), (95, 3, 120, 9)),
                quadrilaterals((10, 10, 50, 30)),
                quadrilaterals((10, 10, 50, 30)),
                quadrilaterals((10, 10, 50, 30)),
            ]
        ),
        "txt": cells(
            [
                np.array(["Lines:\nI lost ", "out"]),
                np.array(["alone"]),
                np.array(["two words"]),
                np.array(["gone"]),
            ]
        ),
    }
    savemat(tmp_path / "gt.mat", labels)
    records, skipped = read("synthtext", tmp_path)
    assert texts(records) == {
        "8/ballet_1.jpg#1": "Lines:",
        "8/ballet_1.jpg#2": "I",
        "8/ballet_1.jpg#3": "lost",
        "8/ballet_2.jpg#1": "alone",
    }
    shapes = [decode_image(record.image).shape[:2] for record in records]
    assert shapes == [(18, 29), (18, 30), (20, 40), (20, 40)]
    assert skipped == [
        Skipped("8/ballet_1.jpg#4", "the box is empty or outside the image"),
        Skipped("8/ballet_3.jpg", "different numbers of words and boxes"),
        Skipped("8/gone.jpg#1", "No such file or directory"),
    ]
    (tmp_path / "gt.mat").write_bytes(b"MATLAB")
    with pytest.raises(DataError, match=r"gt\.mat: not a readable \.mat file"):
        read("synthtext", tmp_path)


# Writing to an LMDB


def test_converted_images_are_the_same_bytes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "IC13", ODD_LABELS)
    written, skipped = convert("folder", folder, tmp_path / "IC13.lmdb")
    source = LmdbSource(tmp_path / "IC13.lmdb")
    assert (written, skipped) == (len(ODD_LABELS), {})
    assert [source.label(i) for i in range(written)] == ODD_LABELS
    assert [source.image_bytes(i) for i in range(written)] == [encoded(picture(i + 1)) for i in range(written)]
    assert [source.identifier(i) for i in range(written)] == [f"images/{i + 1}.png" for i in range(written)]


def test_subsets_and_lexicons_travel_without_what_was_skipped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "IC13", ["a", "b", "c"])
    (folder / "images" / "2.png").write_bytes(b"")
    (folder / "subset_2.txt").write_text("images/2.png\nimages/3.png\n")
    (folder / "lexicon50.tsv").write_text("images/1.png\ta,x\nimages/2.png\tb\n")
    assert convert("folder", folder, tmp_path / "out", max_skipped=0.5).written == 2
    assert read_subset(tmp_path / "out" / "subset_2.txt") == ["images/3.png"]
    assert read_lexicons(tmp_path / "out" / "lexicon50.tsv") == {"images/1.png": ["a", "x"]}


def test_lexicons_of_the_archive_are_written(tmp_path: Path) -> None:
    write_images(tmp_path, "train/1_1.png")
    write_iiit5k(tmp_path, "train", [{"name": "train/1_1.png", "text": "TO", "words": ["TO", "a,b", "MY"]}])
    convert("iiit5k", tmp_path, tmp_path / "out")
    assert read_lexicons(tmp_path / "out" / "lexicon50.tsv") == {"train/1_1.png": ["TO", "MY"]}


def test_bad_records_are_counted_and_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words", ["a", "", "c", "d", "e", "f"])
    (folder / "images" / "1.png").write_bytes(encoded(picture())[:80])
    (folder / "images" / "3.png").write_bytes(b"")
    (folder / "images" / "4.png").unlink()
    summary = convert("folder", folder, tmp_path / "out", max_skipped=0.7)
    assert summary.written == 2
    assert summary.skipped == {
        "the image cannot be decoded": ["images/1.png"],
        "empty label": ["images/2.png"],
        "the image is empty (0 bytes)": ["images/3.png"],
        "No such file or directory": ["images/4.png"],
    }
    source = LmdbSource(tmp_path / "out")
    assert [(source.label(i), source.identifier(i)) for i in range(2)] == [("e", "images/5.png"), ("f", "images/6.png")]


def test_too_many_bad_records_write_nothing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words", ["a", "", "c", ""])
    with pytest.raises(DataError, match=r"2 of 4 records \(50\.0 %\) are unusable, nothing written\. empty label: 2"):
        convert("folder", folder, tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["words"]


def test_nothing_to_convert(tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_text("")
    with pytest.raises(DataError, match="no records in it"):
        convert("folder", tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="no such file or folder"):
        convert("folder", tmp_path / "gone", tmp_path / "out")
    with pytest.raises(DataError, match="unknown kind of data set 'IC99': one of folder, "):
        convert("IC99", tmp_path, tmp_path / "out")


def test_records_are_read_lazily(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words", ["a", "b"])
    records: Iterator[Record | Skipped] = load_converter("folder")(folder, None).records
    assert isinstance(next(records), Record)
    (folder / "images" / "2.png").unlink()
    assert isinstance(next(records), Skipped)


# Registration


def test_a_converter_added_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path("docs/how-to/extending.md").read_text(encoding="utf-8")
    section = page.split("## Add a converter")[1].split("\n## ")[0]
    source, registration = map(dedent, re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    module = ModuleType("str_app.datasets.converters.my_layout")
    exec(source, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    layout, function = re.findall(r'"(.*?)"', registration)
    monkeypatch.setitem(CONVERTERS, layout, function)
    write_images(tmp_path / "downloads", "crops/1_exit.png", "crops/2_.png", "crops/3_A.png")
    summary = convert("mine", tmp_path / "downloads", tmp_path / "mine.lmdb", max_skipped=0.5)
    assert summary == (2, {"empty label": ["crops/2_.png"]})
    written = LmdbSource(tmp_path / "mine.lmdb")
    assert [(written.identifier(i), written.label(i)) for i in range(2)] == [
        ("crops/1_exit.png", "exit"),
        ("crops/3_A.png", "A"),
    ]


@pytest.mark.parametrize("layout", CONVERTERS)
def test_every_registered_converter_loads(layout: str) -> None:
    assert callable(load_converter(layout))


def test_lists_that_cannot_be_used_are_told_before_the_work(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words", ["a", "b"])
    (folder / "subset_x.txt").write_text("\n")
    done: list[int] = []
    with pytest.raises(DataError, match="the subset is empty"):
        convert("folder", folder, tmp_path / "out", progress=lambda count, total: done.append(count))
    assert not done


def test_ground_truth_that_macos_adds_is_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, "word_1.png")
    (tmp_path / "gt.txt").write_text('word_1.png, "one"\n')
    (tmp_path / "._gt.txt").write_bytes(b"\0\5\x16\7")
    assert texts(read("ic15", tmp_path)[0]) == {"word_1.png": "one"}
