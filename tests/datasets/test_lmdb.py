"""An LMDB comes back as it was written, appears whole or not at all, and names every record that is broken."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from str_app.datasets import lmdb_writer
from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.datasets.opening import find_sources
from str_app.datasets.sample import DataError, UnreadableSample
from tests.datasets.pictures import ODD_LABELS, encoded, picture, unreadable_records


def write(path: Path, labels: list[str]) -> Path:
    with LmdbWriter(path) as writer:
        for number, label in enumerate(labels):
            writer.add(encoded(picture(number)), label)
    return path


def write_raw(path: Path, records: dict[str, bytes]) -> Path:
    """As other programs of the field write it: any keys, a lock file beside."""
    with lmdb.open(str(path), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value)
    return path


characters = st.characters(exclude_categories=["Cs"])
samples = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=300), st.text(characters, max_size=30), st.booleans(), st.text(characters)
    ),
    min_size=1,
    max_size=20,
)


@given(samples, st.integers(1, 400))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_round_trip(written: list[tuple[bytes, str, bool, str]], batch_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "words.lmdb"
        with LmdbWriter(path) as writer:
            writer.BATCH_BYTES = batch_bytes
            for image, text, has_boxes, name in written:
                boxes = np.arange(4 * len(text), dtype=np.float64).reshape(-1, 4) if has_boxes else None
                writer.add(image, text, boxes, name)
        source = LmdbSource(path)
        assert len(source) == len(written)
        assert [source.image_bytes(i) for i in range(len(source))] == [image for image, *_ in written]
        assert [source.label(i) for i in range(len(source))] == [text for _, text, *_ in written]
        assert [source.identifier(i) for i in range(len(source))] == [name for *_, name in written]


def test_samples_with_boxes(tmp_path: Path) -> None:
    boxes = np.array([[0, 1, 9.5, 15], [10, 1, 20, 15]])
    with LmdbWriter(tmp_path / "words.lmdb") as writer:
        writer.add(encoded(picture(1)), "TO", boxes)
        writer.add(encoded(picture(2)), "it's")
    first, second = LmdbSource(tmp_path / "words.lmdb")[0], LmdbSource(tmp_path / "words.lmdb")[1]
    assert np.array_equal(first.image, picture(1))
    assert first.boxes is not None
    assert first.boxes.dtype == np.float32
    assert np.array_equal(first.boxes, boxes)
    assert (second.text, second.boxes) == ("it's", None)


def test_labels_are_kept_to_the_letter(tmp_path: Path) -> None:
    source = LmdbSource(write(tmp_path / "odd.lmdb", [*ODD_LABELS, ""]))
    assert [source.label(i) for i in range(len(source))] == [*ODD_LABELS, ""]


def test_opens_what_others_wrote(tmp_path: Path) -> None:
    path = write_raw(
        tmp_path / "MJ", {"num-samples": b"1", "image-000000001": encoded(picture()), "label-000000001": b"Lube"}
    )
    source = LmdbSource(path)
    assert (source.name, len(source), source[0].text, source.identifier(0)) == ("MJ", 1, "Lube", "image-000000001")
    assert not unreadable_records(path)


# Reading in several places at once.


def test_two_sources_of_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "words.lmdb", ["a", "b"])
    first, second = LmdbSource(path), LmdbSource(path)
    del first
    assert second.label(1) == "b"


def test_pickled_without_its_environment(tmp_path: Path) -> None:
    source = LmdbSource(write(tmp_path / "words.lmdb", ["a", "b"]))
    assert source.label(0) == "a"
    state = pickle.dumps(source)
    assert b"Environment" not in state
    assert pickle.loads(state).label(1) == "b"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_used_by_worker_processes(tmp_path: Path, method: str) -> None:
    source = LmdbSource(write(tmp_path / "words.lmdb", list("abcdef")))
    assert source.label(0) == "a"  # open already, so that a fork inherits the environment
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(source.label, range(6)) == list("abcdef")
    assert source.label(5) == "f"


def test_threads(tmp_path: Path) -> None:
    labels = [str(number) for number in range(50)]
    source = LmdbSource(write(tmp_path / "words.lmdb", labels))
    with ThreadPoolExecutor(4) as pool:
        assert [sample.text for sample in pool.map(source.__getitem__, range(50))] == labels


def test_replaced_while_open(tmp_path: Path) -> None:
    path = write(tmp_path / "words.lmdb", ["old"])
    before = LmdbSource(path)
    with LmdbWriter(path, overwrite=True) as writer:
        writer.add(encoded(picture()), "new")
    assert (before.label(0), LmdbSource(path).label(0)) == ("old", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["words.lmdb"]


# Broken data sets.


@pytest.mark.parametrize("kept", [0, 100, 5000, 0.5, -1])
def test_cut_short(tmp_path: Path, kept: float) -> None:
    file = write(tmp_path / "words.lmdb", ["a"] * 40) / "data.mdb"
    whole = file.read_bytes()
    file.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(DataError, match=r"words\.lmdb: (not an LMDB, or damaged|the LMDB is truncated)"):
        LmdbSource(file.parent)


def test_opened_by_the_caller_with_lmdb_already(tmp_path: Path) -> None:
    path = write(tmp_path / "words.lmdb", ["a"])
    with lmdb.open(str(path), readonly=True, lock=False), pytest.raises(DataError, match="close that one first"):
        LmdbSource(path)
    assert LmdbSource(path).label(0) == "a"


def test_no_lmdb(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an LMDB: expected a folder"):
        LmdbSource(tmp_path)
    (tmp_path / "data.mdb").write_text("path\ttext\n" * 2000)
    with pytest.raises(DataError, match="not an LMDB"):
        LmdbSource(tmp_path)
    assert not (tmp_path / "lock.mdb").exists()


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ({"label-000000001": b"a"}, "num-samples is missing"),
        ({"num-samples": b"many"}, "num-samples is b'many', not a number"),
        ({"num-samples": b"0"}, "the data set is empty"),
        (
            {"num-samples": b"99999999999999", "image-000000001": b"x", "label-000000001": b"a"},
            "num-samples is 99999999999999, but the LMDB has only 2 other records: it is damaged",
        ),
    ],
)
def test_without_a_number_of_samples(tmp_path: Path, records: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LmdbSource(write_raw(tmp_path / "words", records))


def test_every_broken_record_is_named_and_none_replaced(tmp_path: Path) -> None:
    good = encoded(picture())
    path = write_raw(
        tmp_path / "words",
        {
            "num-samples": b"7",
            **{"image-000000001": good, "label-000000001": b"good"},
            **{"label-000000002": b"no image"},
            **{"image-000000003": good},
            **{"image-000000004": good[:60], "label-000000004": b"cut"},
            **{"image-000000005": b"", "label-000000005": b"empty"},
            **{"image-000000006": good, "label-000000006": b"caf\xe9"},
            **{"image-000000007": good, "label-000000007": b"ab", "boxes-000000007": b"1234"},
        },
    )
    source = LmdbSource(path)
    assert source[0].text == "good"
    for index, record in enumerate(["image", "label", "image", "image", "label", "boxes"], 1):
        with pytest.raises(UnreadableSample, match=rf"words record {index + 1} \({record}-00000000{index + 1}\)"):
            source[index]
    assert source.label(1) == "no image"
    assert [index for index, message in enumerate(unreadable_records(path), 2) if f"record {index} " in message] == [
        *range(2, 8)
    ]
    for outside in (-1, 7):
        with pytest.raises(IndexError):
            source[outside]


# Writing.


def test_the_map_grows_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LmdbWriter, "INITIAL_MAP_BYTES", 2**15)
    path = write(tmp_path / "words.lmdb", ["word"] * 300)
    size = (path / "data.mdb").stat().st_size
    assert size > 2**19
    with lmdb.open(str(path), readonly=True, lock=False) as environment:
        assert environment.info()["map_size"] <= max(4 * size, 10 * 2**20)  # nothing near the field's 1 TB
    assert not unreadable_records(path)


def test_the_same_samples_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process had in its memory gets nowhere near the file."""
    monkeypatch.setattr(LmdbWriter, "BATCH_BYTES", 2**16)
    files = []
    for turn in range(3):
        secrets = [b"secret" * (turn + 1) * length for length in range(1, 2000)]
        with LmdbWriter(tmp_path / f"{turn}.lmdb") as writer:
            for number in range(600):
                secrets.pop()
                writer.add(bytes([number % 256]) * (300 + 7 * number), "word")
        files.append((tmp_path / f"{turn}.lmdb" / "data.mdb").read_bytes())
    assert b"secret" not in files[0]
    assert files[0] == files[1] == files[2]


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with LmdbWriter(tmp_path / "words.lmdb") as writer:
            writer.add(encoded(picture()), "a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from str_app.datasets.lmdb_writer import LmdbWriter
with LmdbWriter(sys.argv[1]) as writer:
    writer.BATCH_BYTES = 1
    for number in range(100):
        writer.add(b"image", str(number))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path / "words.lmdb")], cwd=Path.cwd())
    assert ended.returncode == -9
    assert not (tmp_path / "words.lmdb").exists()
    with pytest.raises(DataError, match="no data set here"):
        find_sources(tmp_path)


@pytest.mark.parametrize("batch_bytes", [1, 2**30])
def test_a_full_disk_is_told_and_cleaned_up(tmp_path: Path, batch_bytes: int) -> None:
    program = """
import resource, sys
from str_app.datasets.lmdb_writer import LmdbWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
LmdbWriter.BATCH_BYTES = int(sys.argv[2])
try:
    with LmdbWriter(sys.argv[1]) as writer:
        for number in range(1000):
            writer.add(bytes(3000), str(number))
except Exception as error:
    print(type(error).__name__, error)
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "words.lmdb"), str(batch_bytes)]
    said = subprocess.run(arguments, cwd=Path.cwd(), capture_output=True, text=True).stdout
    assert said.startswith(f"DataError cannot write {tmp_path}/words.lmdb after ")
    assert "MiB are free" in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = write(tmp_path / "words.lmdb", ["old"])
    with pytest.raises(DataError, match="exists already"):
        LmdbWriter(path)
    assert LmdbSource(path).label(0) == "old"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="exists and is not an LMDB"):
        LmdbWriter(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "me.jpg").exists()


def test_an_overwrite_that_fails_keeps_the_old_one(tmp_path: Path) -> None:
    path = write(tmp_path / "words.lmdb", ["old"])
    with pytest.raises(DataError, match="no samples were added"), LmdbWriter(path, overwrite=True):
        pass
    assert LmdbSource(path).label(0) == "old"
    assert os.listdir(tmp_path) == ["words.lmdb"]  # noqa: PTH208


def test_samples_that_cannot_be_written(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "words.lmdb") as writer:
        writer.add(b"image", "a")
        with pytest.raises(DataError, match=r"\(1, 4\) boxes for 2 characters"):
            writer.add(b"image", "ab", np.zeros((1, 4)))
        with pytest.raises(DataError, match="not valid Unicode"):
            writer.add(b"image", "\ud800")
    assert len(LmdbSource(tmp_path / "words.lmdb")) == 1


def test_the_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        LmdbWriter(tmp_path / "file" / "words.lmdb")


@pytest.mark.skipif(sys.platform == "win32", reason="writers are kept apart by flock")
def test_two_writers_of_one_resumable_lmdb_are_kept_apart(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "words.lmdb", resume="these words") as writer:
        with pytest.raises(DataError, match="being written by another process"):
            LmdbWriter(tmp_path / "words.lmdb", resume="these words")
        writer.add(encoded(picture(), "PNG"), "kept")
    assert LmdbSource(tmp_path / "words.lmdb")[0].text == "kept"


@pytest.mark.skipif(sys.platform == "win32", reason="writers are kept apart by flock")
def test_a_resumable_lmdb_is_locked_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def publish(folder: Path, path: Path) -> None:
        with pytest.raises(DataError, match="being written by another process") as caught:
            LmdbWriter(tmp_path / "words.lmdb", resume="these words")
        refused.append(caught)
        real(folder, path)

    real = lmdb_writer._publish
    monkeypatch.setattr(lmdb_writer, "_publish", publish)
    with LmdbWriter(tmp_path / "words.lmdb", resume="these words") as writer:
        writer.add(encoded(picture(), "PNG"), "kept")
    assert len(refused) == 1
    assert sorted(os.listdir(tmp_path / "words.lmdb")) == ["data.mdb"]  # noqa: PTH208


def test_ctrl_c_within_a_sample_leaves_whole_ones(tmp_path: Path) -> None:
    """Wherever in `add` it comes; the same command goes on after it."""
    image, boxes, interrupted = encoded(picture(), "PNG"), np.ones((1, 4), np.float32), True
    for line in itertools.count(1):
        path = tmp_path / f"{line}.lmdb"
        with suppress(KeyboardInterrupt), LmdbWriter(path, resume="key") as writer:
            writer.add(image, "a", boxes)
            interrupted = interrupt_at(line, writer.add, image, "b", boxes)
            raise KeyboardInterrupt
        with LmdbWriter(path, resume="key") as writer:
            for number in range(len(writer), 3):
                writer.add(image, "abc"[number], boxes)
        written = LmdbSource(path)
        assert [written[index].text for index in range(3)] == ["a", "b", "c"]
        assert all(written[index].boxes is not None for index in range(3))
        if not interrupted:
            break
    assert line > 5


def interrupt_at(line: int, function: Any, *arguments: Any) -> bool:
    """Call with a KeyboardInterrupt before its line-th line; whether it has so many."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code is not function.__func__.__code__:
            return None
        if event == "line":
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(previous)
    return False


def test_a_resumed_lmdb_holds_what_one_written_at_once_does(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "once.lmdb") as writer:
        writer.add(b"1", "a")
        writer.add(b"2", "b")
    with suppress(KeyboardInterrupt), LmdbWriter(tmp_path / "resumed.lmdb", resume="key") as writer:
        writer.add(b"1", "a")
        raise KeyboardInterrupt
    with LmdbWriter(tmp_path / "resumed.lmdb", resume="key") as writer:
        writer.add(b"2", "b")
    once, resumed = (records(tmp_path / name) for name in ("once.lmdb", "resumed.lmdb"))
    assert resumed == once


def records(path: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


@pytest.mark.skipif(os.name != "posix", reason="links need rights there")
def test_overwriting_a_link_replaces_what_it_leads_to(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    for path, text in ((disk / "real.lmdb", "old"), (tmp_path / "link.lmdb", "new")):
        if text == "new":
            path.symlink_to(disk / "real.lmdb")
        with LmdbWriter(path, overwrite=True) as writer:
            writer.add(b"x", text)
    assert (tmp_path / "link.lmdb").is_symlink()
    assert LmdbSource(disk / "real.lmdb").label(0) == "new"
    assert sorted(each.name for each in disk.iterdir()) == ["real.lmdb"]


def test_ctrl_c_between_two_renames_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "words.lmdb", ["old"])
    real, calls = Path.replace, 0

    def rename(source: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return real(source, target)

    monkeypatch.setattr(Path, "replace", rename)
    with pytest.raises(KeyboardInterrupt), LmdbWriter(path, overwrite=True) as writer:
        writer.add(encoded(picture()), "new")
    assert calls == 3
    assert LmdbSource(path).label(0) == "old"


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "words.lmdb", ["word"])
    content = bytearray((path / "data.mdb").read_bytes())
    said = set()
    for page in range(2, len(content) // 4096):
        damaged = content.copy()
        damaged[page * 4096 : page * 4096 + 64] = b"\xff" * 64
        (tmp_path / f"{page}").mkdir()
        (tmp_path / f"{page}" / "data.mdb").write_bytes(damaged)
        try:
            LmdbSource(tmp_path / f"{page}")
        except DataError as error:
            said.add(str(error).partition(" (")[0])
    assert f"{tmp_path}/2: the LMDB is damaged" in said or f"{tmp_path}/3: the LMDB is damaged" in said
