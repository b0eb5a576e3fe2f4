"""Folders of crops, what lies beside them, and telling them from LMDBs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from str_app.datasets.folder import FolderSource
from str_app.datasets.lexicon import find_subsets, read_lexicons, read_subset
from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.opening import find_sources, open_source
from str_app.datasets.sample import DataError, UnreadableSample
from str_app.datasets.shards import ShardedSource, shard_path
from tests.datasets.pictures import ODD_LABELS, encoded, picture, write_folder


def test_samples(tmp_path: Path) -> None:
    source = FolderSource(write_folder(tmp_path / "IC13", ["Tiredness", "A"]))
    assert (source.name, len(source)) == ("IC13", 2)
    assert source[1].text == "A"
    assert np.array_equal(source[1].image, picture(2))
    assert source.identifier(1) == "images/2.png"
    assert source.image_bytes(1) == encoded(picture(2))


def test_labels_are_split_on_the_first_tab_only(tmp_path: Path) -> None:
    source = FolderSource(write_folder(tmp_path / "odd", [*ODD_LABELS, ""]))
    assert [source.label(i) for i in range(len(source))] == [*ODD_LABELS, ""]


def test_separators_of_unicode_do_not_end_a_line(tmp_path: Path) -> None:
    label = "a\u2028b\x0bc\x85d"
    assert FolderSource(write_folder(tmp_path / "odd", [label])).label(0) == label


def test_byte_order_mark_windows_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "labels.tsv").write_bytes("\ufeffa.png\tCafé\r\n\r\n \r\nb.png\tb".encode())
    source = FolderSource(tmp_path)
    assert [(source.identifier(i), source.label(i)) for i in range(2)] == [("a.png", "Café"), ("b.png", "b")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.png\ta\nb.png b\n", r"labels\.tsv line 2: no tab between path and text"),
        (b"a.png\ta\nb.png\tcaf\xe9\n", r"labels\.tsv line 2: not UTF-8"),
        (b"\n", "no samples"),
    ],
)
def test_broken_labels(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "labels.tsv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        FolderSource(tmp_path)


def test_unreadable_images_are_named_and_keep_their_label(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words", ["a", "b", "c"])
    (folder / "images" / "1.png").unlink()
    (folder / "images" / "2.png").write_bytes(b"")
    source = FolderSource(folder)
    with pytest.raises(UnreadableSample, match=r"images/1\.png: No such file"):
        source[0]
    with pytest.raises(UnreadableSample, match=r"images/2\.png: the image is empty"):
        source[1]
    assert source.label(0) == "a"
    with pytest.raises(IndexError):
        source[3]


def test_open_source_tells_what_is_there(tmp_path: Path) -> None:
    write_folder(tmp_path / "b_folder", ["a"])
    with LmdbWriter(tmp_path / "a.lmdb") as writer:
        writer.add(encoded(picture()), "a")
    (tmp_path / "notes").mkdir()
    assert isinstance(open_source(tmp_path / "a.lmdb"), LmdbSource)
    assert isinstance(open_source(tmp_path / "a.lmdb" / "data.mdb"), LmdbSource)
    assert isinstance(open_source(tmp_path / "b_folder"), FolderSource)
    assert find_sources(tmp_path) == [tmp_path / "a.lmdb", tmp_path / "b_folder"]
    assert find_sources(tmp_path / "b_folder") == [tmp_path / "b_folder"]
    assert find_sources(tmp_path / "a.lmdb/data.mdb") == [tmp_path / "a.lmdb/data.mdb"], "an LMDB without a folder"
    assert len(open_source(tmp_path / "a.lmdb/data.mdb")) == len(open_source(tmp_path / "a.lmdb"))
    with pytest.raises(DataError, match="neither an LMDB"):
        open_source(tmp_path / "notes")
    (tmp_path / "word.PNG").write_bytes(encoded(picture()))
    with pytest.raises(DataError, match=r"word\.PNG: an image, not a data set: give an LMDB, or a folder"):
        open_source(tmp_path / "word.PNG")
    with pytest.raises(DataError, match=r"no data set here or below: .* folders with labels\.tsv$"):
        find_sources(tmp_path / "notes")
    for find in (open_source, find_sources):
        with pytest.raises(DataError, match="no such"):
            find(tmp_path / "missing")


def test_lists_are_no_data_sets(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words", ["a"])
    with pytest.raises(DataError, match=rf"labels\.tsv: a list of labels, not a data set: give its folder, {folder}$"):
        open_source(folder / "labels.tsv")
    (folder / "labels.tsv").rename(folder / "labels.csv")
    with pytest.raises(DataError, match=rf"labels\.csv: a list, .*`str-app convert folder {folder}/labels.csv --out"):
        open_source(folder / "labels.csv")
    for find in (open_source, find_sources):
        with pytest.raises(
            DataError, match=rf"; for its labels\.csv, `str-app convert folder {folder} --out NAME.lmdb`"
        ):
            find(folder)


def test_shards_are_one_data_set(tmp_path: Path) -> None:
    for number, texts in enumerate((["a", "b"], ["c"], ["d", "e", "f"])):
        with LmdbWriter(shard_path(tmp_path / "set", number)) as writer:
            for text in texts:
                writer.add(encoded(picture(number)), text, path=f"{text}.png")
    assert find_sources(tmp_path) == [tmp_path / "set"]
    source = pickle.loads(pickle.dumps(open_source(tmp_path / "set")))
    assert isinstance(source, ShardedSource)
    assert (source.name, len(source)) == ("set", 6)
    assert [source[k].text for k in range(6)] == [source.label(k) for k in range(6)] == list("abcdef")
    assert source.identifier(2) == "shard-000001.lmdb/c.png"
    assert source.image_bytes(5) == encoded(picture(2))
    for outside in (-1, 6):
        with pytest.raises(IndexError):
            source.label(outside)


def test_data_sets_in_folders_of_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "test" / "regular" / "IC13", ["a"])
    write_folder(tmp_path / "test" / "SVT", ["a"])
    write_folder(tmp_path / "test" / ".hidden" / "IC15", ["a"])
    assert find_sources(tmp_path) == [tmp_path / "test" / "SVT", tmp_path / "test" / "regular" / "IC13"]
    with pytest.raises(DataError, match=r"give one of the data sets in it: .*SVT, .*regular/IC13"):
        open_source(tmp_path)


def test_paths_with_backslashes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "words", ["a"])
    (folder / "labels.tsv").write_text("path\ttext\nimages\\1.png\ta\n")
    source = FolderSource(folder)
    assert (len(source), source.identifier(0)) == (1, "images\\1.png")
    assert np.array_equal(source[0].image, picture(1))


@pytest.mark.parametrize("on_disk", ["gr\u00fcn", "gru\u0308n"])
@pytest.mark.parametrize("listed", ["images/gr\u00fcn.png", "images\\gru\u0308n.png"])
def test_accents_of_paths_may_be_characters_of_their_own(tmp_path: Path, on_disk: str, listed: str) -> None:
    folder = write_folder(tmp_path / "words", ["a"])
    (folder / "images" / "1.png").rename(folder / "images" / f"{on_disk}.png")
    too_long = "\u00fc" * 200
    (folder / "labels.tsv").write_text(f"{listed}\ta\nimages/{too_long}.png\tb\n", encoding="utf-8")
    source = FolderSource(folder)
    assert np.array_equal(source[0].image, picture(1))
    with pytest.raises(UnreadableSample, match="File name too long"):
        source.image_bytes(1)


@pytest.mark.skipif(os.name == "nt", reason="no such devices")
def test_only_files_are_read_and_only_so_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "words", ["a", "b"])
    monkeypatch.setattr("str_app.datasets.folder.MAX_BYTES", len(encoded(picture(1))))
    (folder / "images" / "2.png").write_bytes(encoded(picture(1)) + b"x")
    (folder / "labels.tsv").write_text("/dev/null\ta\nimages/2.png\tb\nimages/1.png\tc\nimages\td\n")
    source = FolderSource(folder)
    for index, message in enumerate(["a pipe, socket or device", "larger than"]):
        with pytest.raises(UnreadableSample, match=message):
            source[index]
    assert source[2].text == "c"
    with pytest.raises(UnreadableSample, match="Is a directory"):
        source.image_bytes(3)


def test_subsets_and_lexicons(tmp_path: Path) -> None:
    (tmp_path / "subset_857.txt").write_text("images/1.png\nimages/3.png\n")
    (tmp_path / "subset_1015.txt").write_text("images/1.png\n")
    (tmp_path / "lexicon50.tsv").write_text("images/1.png\tdoor,the,wild\nimages/2.png\tginger\n")
    assert {name: read_subset(path) for name, path in find_subsets(tmp_path).items()} == {
        "857": ["images/1.png", "images/3.png"],
        "1015": ["images/1.png"],
    }
    assert read_lexicons(tmp_path / "lexicon50.tsv") == {
        "images/1.png": ["door", "the", "wild"],
        "images/2.png": ["ginger"],
    }


def test_empty_subsets_and_lexicons(tmp_path: Path) -> None:
    (tmp_path / "subset_1.txt").write_text("\n")
    with pytest.raises(DataError, match="empty"):
        read_subset(tmp_path / "subset_1.txt")
    (tmp_path / "lexicon50.tsv").write_text("images/1.png\t\n")
    with pytest.raises(DataError, match=r"no words for images/1\.png"):
        read_lexicons(tmp_path / "lexicon50.tsv")
