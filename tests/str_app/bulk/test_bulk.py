"""`str-app bulk`: what it writes, continues, refuses and never deletes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from str_app.bulk import output, work
from str_app.bulk.work import ShardReader
from str_app.cli import app
from str_app.errors import StrAppError
from str_app.models.presets import weights_path
from str_app.photos import LONGEST_SIDE
from str_app.photos import load as loading
from str_app.photos.photo_reader import PhotoPipeline, PhotoPolicy
from str_app.reader import Reader
from tests.str_app.bulk.test_inputs import write_tar
from tests.str_app.fake_engine import FakeEngine, paint
from tests.str_app.painted_data import encoded, png, write_folder, write_lmdb
from tests.str_app.photos.painted_photo import KnownPlaces, photo_of

WORDS = [(word, word) for word in "zero one two three four five six".split()]


class CountedEngine(FakeEngine):
    """A fake engine whose readers, of all calls, count the crops that they read."""

    precision = "fp32"
    crops = 0

    def encode(self, canvases: np.ndarray, widths: np.ndarray) -> Any:
        CountedEngine.crops += len(canvases)
        return super().encode(canvases, widths)


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    CountedEngine.crops = 0
    monkeypatch.setattr(Reader, "load", lambda *, batch_size, **options: Reader(CountedEngine(), batch_size))


def bulk(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["bulk", *map(str, arguments)])


def rows_of(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out).to_pylist()


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


def test_one_row_per_image_in_the_order_of_the_input(tmp_path: Path) -> None:
    data, out = write_lmdb(tmp_path / "data", [*WORDS, ("broken", None)]), tmp_path / "out"
    result = bulk(data, "--out", out, "--shard-size", 3, "--batch-size", 2)
    assert result.exit_code == 0, result.stderr
    assert f"{out}: 8 rows in 3 shards, 1 with errors, 1 truncated" in result.stdout
    rows = rows_of(out)
    assert [row["id"] for row in rows] == [f"{data}/images/{k}.png" for k in range(8)]
    assert [row["text"] for row in rows] == [word for word, _ in WORDS] + [None]
    assert rows[1]["confidence"] == pytest.approx(0.99**4, rel=0.02)
    assert [character["text"] for character in rows[1]["characters"]] == list("one")
    assert rows[1]["boxes"][1] == pytest.approx([8, 0, 16, 32], abs=0.1)
    assert rows[1]["error"] is None
    assert rows[7]["error"]["code"] == "truncated"
    assert "damaged or cut short" in rows[7]["error"]["message"]


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode there, and there are no pipes")
def test_odd_files_of_a_folder_are_rows(tmp_path: Path) -> None:
    """A name that is no UTF-8, a link to nothing, a pipe that nobody writes to, a folder."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in (b"good.png", b"odd\xff.png"):
        (data / os.fsdecode(name)).write_bytes(png(paint("one")))
    (data / "link.png").symlink_to("nothing")
    os.mkfifo(data / "pipe.png")
    (data / "folder.png").mkdir()
    result = bulk(data, "--out", out)
    assert result.exit_code == 0, result.stderr
    rows = {Path(row["id"]).name: row for row in rows_of(out)}
    assert rows["good.png"]["text"] == rows["odd\\udcff.png"]["text"] == "one"
    assert rows["link.png"]["error"]["code"] == "not_found"
    assert rows["pipe.png"]["error"]["code"] == "not_readable"
    assert len(rows) == 4


def test_a_broken_file_with_an_odd_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / os.fsdecode(b"odd\xff.png")).write_bytes(b"nonsense")
    assert bulk(tmp_path / "data", "--out", tmp_path / "out").exit_code == 0
    (row,) = rows_of(tmp_path / "out")
    assert row["error"]["code"] == "not_an_image"


def test_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    data = write_folder(tmp_path / os.fsdecode(b"odd\xff"), WORDS[:1])
    assert bulk(data, "--out", tmp_path / "out").exit_code == 0
    assert bulk(data, "--out", tmp_path / "out").exit_code == 0  # the same run
    (row,) = rows_of(tmp_path / "out")
    assert row["text"] == "zero"


@pytest.mark.parametrize(
    ("option", "value", "needed"),
    [
        ("--ray-address", "auto", "--ray"),
        ("--gpus-per-actor", 0.5, "--ray"),
        ("--memory-per-actor", 5, "--ray"),
        ("--detector", "auto", "--photos"),
        ("--longest-side", 99, "--photos"),
    ],
)
def test_an_option_without_effect_is_wrong_usage(tmp_path: Path, option: str, value: Any, needed: str) -> None:
    result = bulk(write_folder(tmp_path / "data", WORDS), "--out", tmp_path / "out", option, value)
    assert result.exit_code == 2
    assert f"{option} needs {needed}" in result.stderr


def test_a_name_of_a_model_is_not_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(Reader, "load", lambda **options: loaded.append(options["model"]) or Reader(CountedEngine()))
    data = write_folder(tmp_path / "data", WORDS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert bulk(data, "--out", tmp_path / "out").exit_code == 0
    assert set(loaded) == {"small"}


def test_the_output_must_be_a_folder(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", WORDS)
    (tmp_path / "out").touch()
    assert "out is a file: give a folder" in bulk(data, "--out", tmp_path / "out").stderr


def test_the_summary_and_the_manifest(tmp_path: Path) -> None:
    data, out = write_lmdb(tmp_path / "data", WORDS), tmp_path / "out"
    summary = json.loads(bulk(data, "--out", out, "--shard-size", 3, "--json").stdout)
    assert summary.pop("seconds") >= 0
    assert summary.pop("crops_per_second") > 0
    assert summary == {"out": str(out), "shards": 3, "skipped": 0, "rows": 7, "read": 7, "errors": {}}
    manifest = json.loads((out / output.MANIFEST).read_text())
    assert manifest["format"] == "str-app-bulk/1"
    assert manifest["model"]["engine"] == "torch"
    assert len(manifest["model"]["weights_sha256"]) == 64
    assert manifest["settings"]["prior"] is True
    assert manifest["versions"].keys() >= {"python", "str-app", "numpy", "pyarrow", "torch"}
    assert manifest["inputs"] == [
        {"name": str(data), "kind": "lmdb", "shards": 3, "fingerprint": manifest["inputs"][0]["fingerprint"]}
    ]


def test_regions_are_rows_in_pixels_of_the_photograph(tmp_path: Path) -> None:
    photo = np.full((100, 200, 3), 250, np.uint8)
    photo[10:42, 20:60] = paint("left")
    photo[60:92, 100:132] = paint("low")
    (tmp_path / "photo.png").write_bytes(png(photo))
    regions = [[20, 10, 60, 42], [300, 0, 310, 9], [100, 60, 132, 60, 132, 92, 100, 92]]
    (tmp_path / "list.jsonl").write_text(json.dumps({"image": "photo.png", "regions": regions}))
    assert bulk(tmp_path / "list.jsonl", "--out", tmp_path / "out").exit_code == 0
    first, second, third = rows_of(tmp_path / "out")
    assert [row["id"] for row in (first, second, third)] == ["photo.png#1", "photo.png#2", "photo.png#3"]
    assert (first["text"], third["text"]) == ("left", "low")
    assert first["region"] == [20, 10, 60, 10, 60, 42, 20, 42]
    assert first["boxes"][1] == pytest.approx([28, 10, 36, 42], abs=0.1)
    assert second["error"]["code"] == "bad_region"


def test_photographs_have_a_row_for_each_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, quads = photo_of({(40, 20): "left", (84, 20): "right", (40, 120): "low"})
    pipeline = PhotoPipeline(KnownPlaces(quads), policy=PhotoPolicy(room=0.0))
    monkeypatch.setattr(loading, "load_pipeline", lambda detector, longest_side, threads=None: pipeline)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(png(photo))
    (tmp_path / "photos/b.png").write_bytes(b"no picture")
    (tmp_path / "photos/c.png").write_bytes(png(photo))
    out = tmp_path / "out"
    result = bulk(tmp_path / "photos", "--photos", "--out", out, "--json")
    assert json.loads(result.stdout)["rows"] == 7
    rows = rows_of(out)
    assert [row["id"].rpartition("/")[2] for row in rows] == [*(f"a.png#{k}" for k in (1, 2, 3)), "b.png"] + [
        f"c.png#{k}" for k in (1, 2, 3)
    ]
    assert [row["text"] for row in rows[:4]] == ["left", "right", "low", None]
    assert [row["line"] for row in rows[:4]] == [0, 0, 1, None]
    assert rows[0]["region"] == [value for corner in quads[0] for value in corner]
    assert rows[3]["error"]["code"] == "not_an_image"
    manifest = json.loads((out / output.MANIFEST).read_text())
    assert manifest["settings"]["photos"] == {"detector": "known", "longest_side": LONGEST_SIDE}
    (tmp_path / "own.onnx").write_bytes(b"weights")
    bulk(tmp_path / "photos", "--photos", "--detector", tmp_path / "own.onnx", "--out", tmp_path / "own")
    manifest = json.loads((tmp_path / "own" / output.MANIFEST).read_text())
    assert manifest["settings"]["photos"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    pipeline.detector.detections.clear()
    bulk(tmp_path / "photos", "--photos", "--out", tmp_path / "none")
    assert [(row["text"], row["region"]) for row in rows_of(tmp_path / "none")] == [
        ("", None),
        (None, None),
        ("", None),
    ]
    assert bulk(tmp_path / "photos", "--photos", "--rotate", "--out", tmp_path / "x").exit_code == 2


def test_finished_shards_are_skipped_and_the_others_read(tmp_path: Path) -> None:
    data, out = write_lmdb(tmp_path / "data", WORDS), tmp_path / "out"
    arguments = [data, "--out", out, "--shard-size", 2, "--beam", 1, "--json"]
    bulk(*arguments)
    whole = contents(out)
    (out / "part-000001.parquet").unlink()
    (out / "part-000002.parquet").write_bytes(whole["part-000002.parquet"][:-5])
    (out / ".str-app-bulk-part-000001-dead").write_bytes(b"PAR1")
    CountedEngine.crops = 0
    summary = json.loads(bulk(*arguments).stdout)
    assert (summary["skipped"], summary["rows"], summary["read"]) == (2, 7, 4)
    assert CountedEngine.crops == 4
    assert contents(out) == whole
    assert json.loads(bulk(*arguments).stdout)["read"] == 0


def test_errors_of_finished_shards_are_in_the_summary(tmp_path: Path) -> None:
    data, out = write_lmdb(tmp_path / "data", [("broken", None), *WORDS]), tmp_path / "out"
    arguments = [data, "--out", out, "--shard-size", 2, "--json"]
    bulk(*arguments)
    (out / "part-000001.parquet").unlink()
    summary = json.loads(bulk(*arguments).stdout)
    assert (summary["skipped"], summary["rows"], summary["errors"]) == (3, 8, {"truncated": 1})


def test_the_output_of_another_run_is_refused(tmp_path: Path) -> None:
    data, out = write_lmdb(tmp_path / "data", WORDS), tmp_path / "out"
    bulk(data, "--out", out, "--shard-size", 2)
    (out / "notes.txt").write_text("mine")
    (out / "mine.parquet").write_bytes(b"mine too")
    before = contents(out)
    refused = bulk(data, "--out", out, "--shard-size", 4, "--no-prior")
    assert refused.exit_code == 1
    for part in ("settings.prior was True, now False", "shard_size was 2, now 4", "--overwrite"):
        assert part in refused.stderr
    assert contents(out) == before
    again = bulk(data, "--out", out, "--shard-size", 4, "--no-prior", "--overwrite")
    assert again.exit_code == 0, again.stderr
    assert sorted(contents(out)) == sorted(
        [output.LOCK, output.MANIFEST, "part-000000.parquet", "part-000001.parquet", "notes.txt", "mine.parquet"]
    )
    assert (out / "mine.parquet").read_bytes() == b"mine too"


def test_another_lexicon_is_another_run(tmp_path: Path) -> None:
    data, out = write_folder(tmp_path / "data", [("one", "one")]), tmp_path / "out"
    for words, text in (("one\ntwo\n", "one"), ("ons\ntwo\n", "ons")):
        (tmp_path / "words.txt").write_text(words)
        result = bulk(data, "--out", out, "--lexicon", tmp_path / "words.txt")
        assert ("settings.lexicon was" in result.stderr) == (text == "ons")
        assert bulk(data, "--out", out, "--lexicon", tmp_path / "words.txt", "--overwrite").exit_code == 0
        assert [row["text"] for row in rows_of(out)] == [text]


def test_only_allowed_characters_are_read(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", [("1a2", "1a2")])
    assert bulk(data, "--out", tmp_path / "out", "--characters", "0-9").exit_code == 0
    (row,) = rows_of(tmp_path / "out")
    assert row["text"].isdigit()


@pytest.mark.parametrize("name", ["part-000000.parquet", output.MANIFEST])
def test_overwriting_deletes_nothing_of_others(tmp_path: Path, name: str) -> None:
    data, out = write_lmdb(tmp_path / "data", WORDS), tmp_path / "out"
    out.mkdir()
    if name == output.MANIFEST:
        (out / name).write_text('{"format": "other"}')
    else:
        pq.write_table(pa.table({"other": [1]}), out / name)
    before = contents(out)
    for overwrite in ([], ["--overwrite"]):
        result = bulk(data, "--out", out, *overwrite)
        assert result.exit_code == 1
        assert f"{name} was not written by `str-app bulk`" in result.stderr
        assert {**contents(out), output.LOCK: b""} == {**before, output.LOCK: b""}


def test_shards_that_lost_their_manifest(tmp_path: Path) -> None:
    data, out = write_lmdb(tmp_path / "data", WORDS), tmp_path / "out"
    bulk(data, "--out", out)
    (out / output.MANIFEST).unlink()
    assert "has shards, but no _manifest.json" in bulk(data, "--out", out).stderr
    assert bulk(data, "--out", out, "--overwrite").exit_code == 0


def test_a_changed_input_is_another_run(tmp_path: Path) -> None:
    folder, out = write_folder(tmp_path / "data", WORDS), tmp_path / "out"
    bulk(folder, "--out", out)
    (folder / "images/9.png").write_bytes(encoded("nine"))
    assert "inputs differ" in bulk(folder, "--out", out).stderr


def test_two_commands_do_not_write_one_folder(tmp_path: Path) -> None:
    data, out = write_lmdb(tmp_path / "data", WORDS), tmp_path / "out"
    with output.locked(out):
        assert "being written by another process" in bulk(data, "--out", out).stderr


def test_output_within_the_input_is_wrong_usage(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", WORDS)
    assert bulk(data, "--out", data / "out").exit_code == 2


def test_a_word_of_the_lexicon_that_the_model_cannot_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", WORDS[:1])
    (tmp_path / "words.txt").write_text("beta\n\nnew york\n")
    result = bulk(tmp_path / "in", "--out", tmp_path / "out", "--lexicon", tmp_path / "words.txt")
    assert result.exit_code == 1
    assert "words.txt line 3: lexicon word 'new york'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_full_disk(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "in", WORDS)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    manifest_only = 2_000  # bytes; SIGXFSZ is ignored by Python, so that writing more raises OSError
    resource.setrlimit(resource.RLIMIT_FSIZE, (manifest_only, limit[1]))
    try:
        result = bulk(data, "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert result.exit_code == 1
    assert f"{tmp_path}/out/part-000000.parquet: cannot be written: File too large" in result.stderr.replace("\n", "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [output.LOCK, output.MANIFEST]


def test_an_empty_shard_and_a_tar_cut_in_half(tmp_path: Path) -> None:
    empty = write_tar(tmp_path / "a.tar", {})
    members = {f"{k}.png": encoded(word) for k, (_, word) in enumerate(WORDS)}
    half = write_tar(tmp_path / "b.tar", members)
    os.truncate(half, 4 * (512 + 512) + 100)
    assert all(len(content) <= 512 for content in members.values())
    summary = json.loads(bulk(empty, half, "--out", tmp_path / "out", "--json").stdout)
    assert (summary["shards"], summary["rows"], summary["errors"]) == (2, 5, {"truncated": 1})
    assert pq.read_metadata(tmp_path / "out/part-000000.parquet").num_rows == 0
    assert [row["text"] for row in rows_of(tmp_path / "out")] == ["zero", "one", "two", "three", None]


def test_large_images_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "MAX_PIXELS", 2 * 32 * 48)
    sizes = []
    read_crops = Reader.read_crops

    def counted(reader: Reader, crops: Any, **options: Any) -> Any:
        sizes.append(len(crops))
        return read_crops(reader, crops, **options)

    monkeypatch.setattr(Reader, "read_crops", counted)
    data = write_lmdb(tmp_path / "data", [("house", "house")] * 7)
    assert bulk(data, "--out", tmp_path / "out").exit_code == 0
    assert sizes == [3, 3, 1]
    assert len(rows_of(tmp_path / "out")) == 7


def test_a_shard_of_more_rows_than_are_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_GROUP", 2)
    data = write_lmdb(tmp_path / "data", WORDS)
    assert bulk(data, "--out", tmp_path / "out").exit_code == 0
    assert [row["text"] for row in rows_of(tmp_path / "out")] == [word for word, _ in WORDS]


def test_a_shard_that_kills_its_processes_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "part-000003.parquet"
    for k in range(output.MAX_KILLED):
        with output.ShardWriter(file, "run"):
            pass
        file.rename(tmp_path / f".str-app-bulk-part-000003-{k}")
    with pytest.raises(output.StrAppError, match="5 processes were killed"), output.ShardWriter(file, "run"):
        pass


def test_a_failed_shard_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with output.ShardWriter(tmp_path / "part-000000.parquet", "run") as writer:
            writer.add({"id": "a", "text": "b"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_rows_tell_the_turn_and_the_manifest_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "load", lambda *, batch_size, **options: Reader(CountedEngine(), batch_size))
    for name in ("data", "other"):
        (tmp_path / name).mkdir()
    turned = np.ascontiguousarray(np.rot90(paint("EXIT", [0.99, 0.99, 0.6, 0.99], scale=2), 2))
    (tmp_path / "data/a.png").write_bytes(png(turned))
    (tmp_path / "other/b.png").write_bytes(png(paint("one")))
    (tmp_path / "data/link").symlink_to(tmp_path / "other")  # is not entered
    result = bulk(tmp_path / "data", "--out", tmp_path / "out", "--rotate")
    assert result.exit_code == 0, result.stderr
    assert [(row["text"], row["rotation"]) for row in rows_of(tmp_path / "out")] == [("EXIT", 180)]
    manifest = json.loads((tmp_path / "out/_manifest.json").read_text())
    assert manifest["model"]["weights_sha256"] == hashlib.sha256(weights_path("small").read_bytes()).hexdigest()


def test_a_process_with_another_model_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(StrAppError, match="this process has another model"):
        _ = ShardReader(tmp_path, "run", {"name": "other"}, {"model": "small", "batch_size": 1}).reader


@pytest.mark.parametrize("name", ["a" * 300, "locked/1.png"])
def test_a_path_that_cannot_be_looked_at_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if path.parent.name == "locked":  # root may look everywhere
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    (tmp_path / "good.png").write_bytes(png(paint("good")))
    (tmp_path / "list.jsonl").write_text(f'{{"image": "{name}"}}\n{{"image": "good.png"}}\n')
    result = bulk(tmp_path / "list.jsonl", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    first, second = rows_of(tmp_path / "out")
    assert first["error"]["code"] == "not_readable"
    assert second["text"] == "good"


def test_the_manifest_does_not_ask_how_a_library_was_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(distribution: str) -> str:
        raise metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(metadata, "version", missing)
    result = bulk(write_folder(tmp_path / "data") / "images", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
