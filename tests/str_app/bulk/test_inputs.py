"""Every kind of input gives all its items once, in order, however it is cut into parts."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import random
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from str_app.bulk.inputs import Columns, Item, open_inputs
from str_app.errors import ImageError, StrAppError
from str_app.inputs.images import DEFAULT_LIMITS, PHOTO_LIMITS
from tests.str_app.painted_data import write_folder, write_lmdb

WORDS = [(f"word{k}", f"word{k}") for k in range(7)]


def items_of(path: Path, shard_size: int = 3, columns: Columns = Columns()) -> list[list[Item]]:  # noqa: B008
    """Items of each part, which another process would have opened."""
    parts = [part for each in open_inputs([path], shard_size, columns) for part in each.parts]
    return [list(pickle.loads(pickle.dumps(part)).items()) for part in parts]


def flat(parts: list[list[Item]]) -> list[Item]:
    return [item for part in parts for item in part]


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_an_lmdb_without_a_folder(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a", WORDS)
    (tmp_path / "a/data.mdb").rename(tmp_path / "single.mdb")
    assert [len(part) for part in items_of(tmp_path / "single.mdb")] == [3, 3, 1]
    write_folder(tmp_path / "more", WORDS[:1])
    (tmp_path / "single.mdb").rename(tmp_path / "more/single.mdb")
    assert [opened.kind for opened in open_inputs([tmp_path / "more"], 10)] == ["folder", "lmdb"]


def test_a_folder_with_everything_in_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", WORDS)
    (tmp_path / "a/images/sub").mkdir()
    (tmp_path / "a/images/0.png").rename(tmp_path / "a/images/sub/0.PNG")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/x.png").touch()
    write_lmdb(tmp_path / "b", WORDS[:4])
    pq.write_table(pa.table({"image": [b"x", b"y"]}), tmp_path / "c.parquet")
    write_tar(tmp_path / "d.tar", {"0.jpg": b"x"})
    inputs = open_inputs([tmp_path], 3)
    assert [(each.kind, [part.count for part in each.parts]) for each in inputs] == [
        ("folder", [3, 3, 1]),
        ("parquet", [2]),
        ("tar", [1]),
        ("lmdb", [3, 1]),
    ]
    ids = [item.id.removeprefix(f"{tmp_path}/") for item in flat(items_of(tmp_path))]
    pictures = [f"a/images/{k}.png" for k in range(1, 7)] + ["a/images/sub/0.PNG"]
    assert ids == [*pictures, "c.parquet#1", "c.parquet#2", "d.tar/0.jpg", *(f"b/images/{k}.png" for k in range(4))]


def test_the_fingerprint_knows_what_changed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", WORDS)
    before = open_inputs([folder], 3)[0].fingerprint
    assert open_inputs([folder], 3)[0].fingerprint == before
    (folder / "images/0.png").write_bytes(b"shorter")
    after = open_inputs([folder], 3)[0].fingerprint
    (folder / "images/0.png").unlink()
    assert len({before, after, open_inputs([folder], 3)[0].fingerprint}) == 3


def test_the_fingerprint_knows_the_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "photo": [b"y"]}), tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_text("image,photo\nx.png,y.png\n")
    for file in (tmp_path / "x.parquet", tmp_path / "x.csv"):
        (usual,), (other,) = (open_inputs([file], 3, Columns(image)) for image in (None, "photo"))
        assert usual.fingerprint != other.fingerprint


@pytest.mark.parametrize("group", [1, 2, 5, 100])
def test_parquet_by_ranges_of_rows(tmp_path: Path, group: int) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [b"%d" % k for k in range(10)]}), file, row_group_size=group)
    for size in (1, 3, 4, 10, 11):
        parts = items_of(file, size)
        assert [item.image for item in flat(parts)] == [b"%d" % k for k in range(10)]
        assert max(len(part) for part in parts) <= size


def test_a_value_of_many_rows_is_not_in_memory_for_each(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [bytes(2**18)] * 256}), file, compression="zstd")
    assert file.stat().st_size < 2000
    before = pa.total_allocated_bytes()
    (part,) = open_inputs([file], 256)[0].parts
    assert sum(len(item.image) == 2**18 and pa.total_allocated_bytes() < before + 2**24 for item in part.items()) == 256


def test_columns_of_parquet(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    rows: list[dict[str, Any]] = [
        {"image": {"bytes": b"x", "path": None}, "id": "one", "regions": [[0.0, 0.0, 8.0, 8.0]]},
        {"image": {"bytes": None, "path": "sub/y.png"}, "id": None, "regions": None},
        {"image": None, "id": "three", "regions": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    one, two, three = flat(items_of(file))
    assert one == Item("one", b"x", [[0.0, 0.0, 8.0, 8.0]])
    assert two == Item("sub/y.png", tmp_path / "sub/y.png")
    assert isinstance(three.image, ImageError)
    assert (three.id, three.image.code) == ("three", "no_image")


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        ({"text": ["a"]}, Columns(), "no column of images; its columns are text: name one with --image-column"),
        ({"image": [b"a"]}, Columns(image="photo"), "no column 'photo'; its columns are image"),
        ({"image": [b"a"]}, Columns(id="key"), "no column 'key'"),
        ({"image": [1.5]}, Columns(), "column 'image' holds double"),
    ],
)
def test_parquet_without_the_column_is_one_clear_error(
    tmp_path: Path, table: dict[str, list[Any]], columns: Columns, message: str
) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table(table), file)
    with pytest.raises(StrAppError, match=r"x\.parquet: ") as caught:
        open_inputs([file], 3, columns)
    assert message in str(caught.value)


def test_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(StrAppError, match="not a Parquet file, or damaged"):
        open_inputs([tmp_path], 3)


def test_an_empty_parquet_file_is_an_empty_shard(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "x.parquet")
    assert items_of(tmp_path / "x.parquet") == [[]]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_samples_of_a_tar(tmp_path: Path, mode: str) -> None:
    regions = json.dumps({"regions": [[0, 0, 5, 5]]}).encode()
    members = {"a/0.jpg": b"x", "a/0.txt": b"label", "a/1.json": regions, "a/1.png": b"y", "a/2.tif": b"z"}
    path = write_tar(tmp_path / ("t.tar" if mode == "w" else "t.tar.gz"), members, mode)
    first, second, third = flat(items_of(path))
    assert first == Item(f"{path}/a/0.jpg", b"x")
    assert second == Item(f"{path}/a/1.png", b"y", [[0, 0, 5, 5]])
    assert isinstance(third.image, ImageError)
    assert third.image.message == "no image in this sample: a/2.tif"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_cut_anywhere_keeps_what_is_whole_and_says_so(tmp_path: Path, mode: str) -> None:
    members = {f"{k:02}.png": random.Random(k).randbytes(700) for k in range(20)}
    whole = write_tar(tmp_path / "whole", members, mode).read_bytes()
    cut = tmp_path / ("cut.tar" if mode == "w" else "cut.tar.gz")
    used = 20 * (512 + 1024) if mode == "w" else len(whole) - 100
    for size in {*range(1, used, 397), *range(0, used, 2048)}:
        cut.write_bytes(whole[:size])
        *good, last = flat(items_of(cut))
        assert [item.image for item in good] == list(members.values())[: len(good)]
        assert isinstance(last.image, ImageError)
        assert last.image.code == "truncated"
        there = size if mode == "w" else len(zlib.decompressobj(31).decompress(whole[:size]))
        assert len(good) == (there + 1536 - 512 - 700) // 1536
    cut.write_bytes(whole)
    assert [item.image for item in flat(items_of(cut))] == list(members.values())


def test_a_tar_cut_beside_an_image(tmp_path: Path) -> None:
    for other, kept in (("0.txt", True), ("0.json", False)):
        path = write_tar(tmp_path / "t.tar", {"0.png": b"x" * 512, other: b"y" * 512})
        path.write_bytes(path.read_bytes()[: 3 * 512 + 100])
        image, notice = flat(items_of(path))
        assert (image.image == b"x" * 512) is kept  # without its regions it would be read as one word
        assert isinstance(notice.image, ImageError)
        assert notice.id == f"{path}/{other}"


def test_a_damaged_header_within_a_tar_is_not_its_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {f"{k}.png": bytes([k]) * 512 for k in range(4)})
    damaged = bytearray(path.read_bytes())
    damaged[2 * 1024 + 3] ^= 1  # in the third header
    path.write_bytes(damaged)
    *good, notice = flat(items_of(path))
    assert [item.image for item in good] == [b"\0" * 512, b"\1" * 512]
    assert isinstance(notice.image, ImageError)
    assert "damaged header (bad checksum)" in notice.image.message


def test_tars_appended_to_each_other_are_read_whole(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / f"{name}.tar", {f"{name}.png": name.encode()}) for name in "ab")
    both = tmp_path / "both.tar"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert [item.image for item in flat(items_of(both))] == [b"a", b"b"]


def test_links_in_a_tar_are_rows_with_errors(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for name, kind in (("0.png", tarfile.REGTYPE), ("1.png", tarfile.LNKTYPE), ("2.png", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "0.png" if kind != tarfile.REGTYPE else ""
            archive.addfile(entry)
    good, *links = flat(items_of(tmp_path / "t.tar"))
    assert good.image == b""
    for link in links:
        assert isinstance(link.image, ImageError)
        assert link.image.message == "a link to 0.png: links in archives are not followed"


def test_no_more_of_a_member_is_read_than_a_photograph_may_have(tmp_path: Path) -> None:
    assert PHOTO_LIMITS.max_bytes > DEFAULT_LIMITS.max_bytes
    zeros = bytes(PHOTO_LIMITS.max_bytes + 2**20)
    path = write_tar(tmp_path / "t.tar.gz", {"0.png": zeros, "1.json": zeros, "1.png": b"x", "2.png": b"y"}, "w:gz")
    large, described, small = flat(items_of(path))
    assert isinstance(large.image, bytes)
    assert len(large.image) == PHOTO_LIMITS.max_bytes + 1
    assert isinstance(described.image, ImageError)
    assert described.image.code == "too_many_bytes"
    assert small.image == b"y"


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_an_enormous_header_is_not_read(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=kind) as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
        archive.addfile(tarfile.TarInfo("b" * 20_000 + ".png"))
    good, notice = flat(items_of(path))
    assert good.image == b""
    assert isinstance(notice.image, ImageError)
    assert re.search(r"a name or pax header of 20,\d+ bytes; at most 16,384 are read", notice.image.message)


def test_a_chain_of_headers_ends_the_archive_not_the_run(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.png")
    entry.pax_headers = {"comment": "x"}
    header = entry.tobuf(tarfile.PAX_FORMAT)[:1024]
    (tmp_path / "t.tar").write_bytes(header * 2000 + bytes(1024))
    (notice,) = flat(items_of(tmp_path / "t.tar"))
    assert isinstance(notice.image, ImageError)
    assert notice.image.code == "truncated"


def test_an_empty_tar(tmp_path: Path) -> None:
    assert items_of(write_tar(tmp_path / "t.tar", {})) == [[]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", 'file,id,note\r\nx.png,one,"a\nb"\r\n\r\n"y,z.png",two,c\r\nw.png,,\r\n'),
        ("l.tsv", 'note\timage\tid\na\tx.png\tone\n"b\ty,z.png\ttwo\n\tw.png\t\n'),
        ("l.jsonl", '\ufeff{"image": "x.png", "id": "one"}\n\n{"image": "y,z.png", "id": "two"}\n{"image": "w.png"}'),
    ],
)
@pytest.mark.parametrize("shard_size", [1, 2, 3])
def test_lists(tmp_path: Path, name: str, content: str, shard_size: int) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    parts = items_of(tmp_path / name, shard_size)
    expected = [("one", "x.png"), ("two", "y,z.png"), ("w.png", "w.png")]
    assert flat(parts) == [Item(identity, tmp_path / file) for identity, file in expected]
    assert [len(part) for part in parts] == [min(shard_size, 3 - k) for k in range(0, 3, shard_size)]


def test_a_field_of_a_list_may_be_long(tmp_path: Path) -> None:
    regions = [[0, 0, 4, 4]] * 20_000
    (tmp_path / "l.csv").write_text(f'image,regions\nx.png,"{regions}"\n')
    (item,) = flat(items_of(tmp_path / "l.csv"))
    assert item.regions == regions


@pytest.mark.parametrize("content", ['image\nx.png\n"y.png\nz.png\n', "image\rx.png\ry.png\r"])
def test_a_list_that_is_no_csv_is_one_clear_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "l.csv").write_text(content, newline="")
    with pytest.raises(StrAppError, match=r"l\.csv lines \d to \d: "):
        items_of(tmp_path / "l.csv")


def test_a_list_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "l.tsv").write_text("x.png\tlabel\ny.png\tother\n")
    assert [item.id for item in flat(items_of(tmp_path / "l.tsv"))] == ["x.png", "y.png"]
    with pytest.raises(StrAppError, match="no column 'photo' in its first line"):
        items_of(tmp_path / "l.tsv", columns=Columns(image="photo"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "foo,bar\nx.png,1\n", "is neither a header with an image column nor starts"),
        ("l.csv", "image;id\nx.png;1\n", "fields end at a comma"),
        ("l.tsv", "path,id\nx.png,1\n", "fields end at a tab"),
        ("l.jsonl", '{"img": "x.png"}\n{"img": "y.png", "n": 1}\n', "no column of images; its columns are img, n"),
    ],
)
def test_a_list_whose_columns_are_not_known(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(StrAppError, match=message):
        items_of(tmp_path / name)
    with pytest.raises(StrAppError, match="no column 'nope'"):
        items_of(tmp_path / name, columns=Columns(image="nope"))


def test_json_lines_with_an_image_under_another_usual_name(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text('{"id": "a"}\n{"path": "x.png", "id": "b"}\n{\n')
    first, second, third = flat(items_of(tmp_path / "l.jsonl"))
    assert second == Item("b", tmp_path / "x.png")
    assert all(isinstance(item.image, ImageError) for item in (first, third))


def test_records_that_cannot_be_used_are_rows_with_errors(tmp_path: Path) -> None:
    lines = [
        '{"image": "x.png", "regions": [[0, 0, 4, 4]]}',
        "{",
        "[" * 100_000,
        "[1]",
        '{"photo": "x"}',
        '{"image": "x", "regions": 3}',
    ]
    (tmp_path / "l.jsonl").write_text("\n".join(lines))
    good, *bad = flat(items_of(tmp_path / "l.jsonl"))
    assert good.regions == [[0, 0, 4, 4]]
    codes = [item.image.code for item in bad if isinstance(item.image, ImageError)]
    assert codes == ["no_image", "no_image", "no_image", "no_image", "bad_region"]
    assert bad[0].id == f"{tmp_path / 'l.jsonl'}#2"


@pytest.mark.parametrize(("name", "message"), [("gone", "no such file"), ("x.zip", "cannot be read in bulk")])
def test_what_is_no_input(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "x.zip").touch()
    with pytest.raises(StrAppError, match=message):
        open_inputs([tmp_path / name], 3)
    with pytest.raises(StrAppError, match="nothing to read in this folder"):
        open_inputs([tmp_path], 3)


def test_nothing_is_read_twice(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", WORDS[:2])
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write_lmdb(tmp_path / "ab", WORDS[:2])
    assert len(open_inputs([tmp_path / "a", tmp_path / "ab"], 3)) == 2
    for again in ("a", "./a/", "link"):
        with pytest.raises(StrAppError, match="given twice"):
            open_inputs([tmp_path / "a", tmp_path / "ab", f"{tmp_path}/{again}"], 3)
    image = tmp_path / "a/images/0.png"
    for paths in ([tmp_path, image], [image, tmp_path]):
        with pytest.raises(StrAppError, match=f"{image}: lies in {tmp_path}, which is given too"):
            open_inputs(paths, 3)


@pytest.mark.parametrize("described", ['{"regions": [[1,2,3', '{"regions": 3}', "[" * 100_000])
def test_regions_of_a_tar_that_cannot_be_used_are_an_error(tmp_path: Path, described: str) -> None:
    write_tar(tmp_path / "a.tar", {"1.json": described.encode(), "1.png": b"x"})
    (item,) = flat(items_of(tmp_path / "a.tar"))
    assert isinstance(item.image, ImageError)
    assert item.image.code == "bad_region"
    assert "1.json" in item.image.message


def test_regions_of_a_list_that_are_no_json_say_so(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps({"image": "x.png", "regions": "[[1, 2"}))
    (item,) = flat(items_of(tmp_path / "list.jsonl"))
    assert isinstance(item.image, ImageError)
    assert item.image.message == "row 1: 'regions' is not valid JSON"


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "a", WORDS[:1])
    (tmp_path / "a/closed").mkdir()
    scan = os.scandir

    def refusing(path: Any) -> Any:  # root may list every folder
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(StrAppError, match="closed: Permission denied"):
        open_inputs([tmp_path / "a"], 3)


def test_what_macos_adds_to_each_file_of_a_tar_is_left_out(tmp_path: Path) -> None:
    regions = b'{"regions": [[0, 0, 9, 9]]}'
    members = {"._000.jpg": b"\0\5", "000.jpg": b"image", "./._000.json": b"\0\5", "000.json": regions}
    (item,) = flat(items_of(write_tar(tmp_path / "a.tar", members)))
    assert (item.image, item.regions) == (b"image", [[0, 0, 9, 9]])


def test_a_damaged_page_of_a_parquet_file_is_a_row_with_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    column = pa.array([os.urandom(200) for _ in range(6)])
    pq.write_table(pa.table({"image": column}), path, row_group_size=2, compression="none", use_dictionary=False)
    with pq.ParquetFile(path) as file:
        start = file.metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 30] = b"\xff" * 30
    path.write_bytes(content)
    for shard_size in (1, 3, 4, 10):
        items = flat(items_of(path, shard_size))
        assert [item.id for item in items] == [f"{path}#{row}" for row in range(1, 7)]
        lost = [item.image for item in items if isinstance(item.image, ImageError)]
        assert [each.code for each in lost] == ["truncated"] * 2
        assert "row 3 is damaged: " in lost[0].message


def test_a_text_that_is_no_utf_8_costs_its_own_row(tmp_path: Path) -> None:
    texts = pa.array([b"a.jpg", b"\xff.jpg", b"b.jpg"]).view(pa.string())
    pq.write_table(pa.table({"image": texts}), tmp_path / "a.parquet")
    items = flat(items_of(tmp_path / "a.parquet"))
    assert [isinstance(item.image, ImageError) for item in items] == [False, True, False]


def test_an_error_of_the_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*arguments: object, **options: object) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle")
        yield

    pq.write_table(pa.table({"image": pa.array([b"x"])}), tmp_path / "a.parquet")
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", stale)
    with pytest.raises(OSError, match="Stale"):
        items_of(tmp_path / "a.parquet")
