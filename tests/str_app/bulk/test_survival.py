"""The whole command on real crops, at size: killed, given damaged images, timed, and its memory watched.

`make bulk-test` runs these; the environment variables set how many crops.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from str_app.bulk.inputs import open_inputs
from str_app.bulk.work import Shard, ShardReader, identity
from str_app.datasets.lmdb_source import LmdbSource
from str_app.datasets.lmdb_writer import LmdbWriter
from str_app.reader import Reader

ROOT = Path(__file__).parents[3]
CROPS = int(os.environ.get("BULK_CROPS", "20000"))
MEMORY_CROPS = int(os.environ.get("BULK_MEMORY_CROPS", "200000"))
GREEDY = ("--beam", "1", "--no-prior", "--threads", "1")  # a third of the time
POOLS = {"processes": ("--workers", "2"), "ray": ("--ray", "--workers", "2")}

pytestmark = pytest.mark.slow


def images() -> list[bytes]:
    """The crops of the repository that are read fast."""
    files = [*(ROOT / "samples/images").iterdir(), *(ROOT / "tests/end_to_end/golden/crops").glob("ordinary-*")]
    return [file.read_bytes() for file in sorted(files)]


def damaged(encoded: bytes, kind: int) -> bytes:
    return (encoded[: len(encoded) // 2], b"", b"<html>404</html>", b"%PDF-1.7", encoded[:30])[kind % 5]


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LMDB of `CROPS` crops; of each twenty, one is damaged."""
    path = tmp_path_factory.mktemp("data") / "crops.lmdb"
    with LmdbWriter(path) as writer:
        for index, image in enumerate(islice(cycle(images()), CROPS)):
            writer.add(damaged(image, index // 20) if index % 20 == 7 else image, "", path=f"{index:06d}")
    return path


def command(crops: Path, out: Path, *more: str) -> list[str]:
    size = max(1, CROPS // 100)
    return [sys.executable, "-m", "str_app", "bulk", str(crops), "--out", str(out), "--shard-size", str(size), *more]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def finish(arguments: list[str]) -> dict[str, Any]:
    process = start([*arguments, "--json"])
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    summary: dict[str, Any] = json.loads(stdout)
    return summary


@pytest.fixture(scope="module")
def uninterrupted(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], pa.Table]:
    """Summary and rows of one process that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "out"
    summary = finish(command(crops, out, *GREEDY))
    return summary, pq.read_table(out)


def test_damaged_images_are_rows_and_nothing_is_lost(
    crops: Path, uninterrupted: tuple[dict[str, Any], pa.Table]
) -> None:
    summary, table = uninterrupted
    assert (summary["rows"], sum(summary["errors"].values())) == (CROPS, CROPS // 20)
    rows = table.select(["id", "text", "error"]).to_pylist()
    assert [row["id"] for row in rows] == [f"{crops}/{index:06d}" for index in range(CROPS)]
    bad = [row for row in rows if row["error"] is not None]
    assert [int(row["id"][-6:]) % 20 for row in bad] == [7] * len(bad)
    codes = Counter(row["error"]["code"] for row in bad)
    assert codes.keys() == {"truncated", "empty", "not_an_image", "unsupported_format"}
    print(f"\n{summary['rows']} rows, errors {dict(codes)}, {summary['crops_per_second']} crops/s")


def descendants(pid: int) -> dict[int, str]:
    """Living processes that `pid` has started, directly or not, with their command lines."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: dict[int, str] = {}
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh}
        for child in fresh:
            try:
                found[child] = (Path("/proc") / str(child) / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def victims(driver: int, kind: str) -> list[int]:
    """Processes of a run: the driver, a worker with its model, or what starts Ray's workers."""
    if kind == "driver":
        return [driver]
    marks = {"worker": ("ray::MapWorker", "spawn_main"), "raylet": ("raylet/raylet ",)}[kind]
    return [pid for pid, line in descendants(driver).items() if any(mark in line for mark in marks)]


@pytest.mark.parametrize("pool", POOLS)
def test_killed_at_random_and_continued(
    pool: str, crops: Path, uninterrupted: tuple[dict[str, Any], pa.Table], tmp_path: Path
) -> None:
    if pool == "ray" and find_spec("ray") is None:
        pytest.skip("pip install -e '.[ray]' brings Ray")
    chance = random.Random(f"{pool} {os.environ.get('BULK_SEED', '0')}")
    out = tmp_path / "out"
    arguments = command(crops, out, *GREEDY, *POOLS[pool])
    kinds = ["worker", "driver", "raylet" if pool == "ray" else "worker"]
    chance.shuffle(kinds)
    process = start(arguments)
    killed = []
    for kind in kinds:
        if process.poll() is not None:
            process.communicate()
            process = start(arguments)
        done = wait_for_shards(process, out, chance.randint(5, 20))
        time.sleep(chance.random())
        pid = chance.choice(victims(process.pid, kind))
        os.kill(pid, signal.SIGKILL)
        killed.append(f"{kind} after {done} shards")
        if kind != "worker":
            process.communicate(timeout=300)
    process.communicate()
    summary = finish(arguments)
    print(f"\n{pool}: killed {', '.join(killed)}; the last command skipped {summary['skipped']} shards")
    whole, table = uninterrupted
    assert (summary["rows"], summary["errors"]) == (whole["rows"], whole["errors"])
    assert pq.read_table(out).equals(table)
    assert not list(out.glob(".str-app-bulk-*"))


def wait_for_shards(process: subprocess.Popen[str], out: Path, more: int) -> int:
    """Wait until so many more shards are done; their number."""
    before = len(list(out.glob("part-*")))
    while (done := len(list(out.glob("part-*")))) < before + more:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return done


def rate(out: Path, workers: int) -> float:
    """Rows per second from when each worker has finished a shard to the end: without start-up."""
    files = sorted(out.glob("part-*"), key=lambda file: file.stat().st_mtime_ns)
    rows = sum(pq.read_metadata(file).num_rows for file in files[workers:])
    return rows / (files[-1].stat().st_mtime - files[workers - 1].stat().st_mtime)


@pytest.mark.parametrize("pool", POOLS)
def test_two_workers_are_nearly_twice_as_fast(pool: str, crops: Path, tmp_path: Path) -> None:
    if pool == "ray" and find_spec("ray") is None:
        pytest.skip("pip install -e '.[ray]' brings Ray")
    rates = {}
    for workers in (1, 2):
        out = tmp_path / str(workers)
        finish([*command(crops, out, *GREEDY, *POOLS[pool][:-1], str(workers)), "--shard-size", str(CROPS // 10)])
        rates[workers] = rate(out, workers)
    print(f"\n{pool}: {rates[1]:.1f} and {rates[2]:.1f} crops/s, {rates[2] / rates[1]:.2f} times")
    assert rates[2] >= 1.8 * rates[1]


def test_one_process_is_as_fast_as_a_reader_in_batches(crops: Path, tmp_path: Path) -> None:
    load = {"model": "small", "threads": 1, "batch_size": 32}
    options = {"beam": 1}
    reader = Reader.load(**load)  # type: ignore[arg-type]
    bulk = ShardReader(tmp_path, "run", identity(reader, "small"), load, options)
    source = LmdbSource(crops)
    part = open_inputs([crops], min(CROPS, 1000))[0].parts[0]
    good = [source.image_bytes(index) for index in range(part.count) if index % 20 != 7]

    def seconds(work: Any) -> float:
        before = time.process_time()
        work()
        return time.process_time() - before

    def in_batches() -> None:
        for first in range(0, len(good), 256):
            reader.recognize(good[first : first + 256], **options)  # type: ignore[arg-type]

    pairs = [(seconds(in_batches), seconds(lambda: bulk(Shard(0, part)))) for _ in range(4)][1:]
    share = median(plain / whole for plain, whole in pairs)
    print(f"\nbulk has {100 * share:.1f} % of the speed of Reader in batches of 256 (CPU time, {len(good)} crops)")
    assert share >= 0.95


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """Anonymous memory after the first quarter, as a straight line over the rows."""
    path = tmp_path / "many.lmdb"
    with LmdbWriter(path) as writer:
        for image in islice(cycle(images()), MEMORY_CROPS):
            writer.add(image, "")
    out = tmp_path / "out"
    process = start(
        [sys.executable, "-m", "str_app", "bulk", str(path), "--out", str(out), "--shard-size", "2000", *GREEDY]
    )
    samples: list[tuple[float, float]] = []
    while process.poll() is None:
        rows = 2000 * len(list(out.glob("part-*")))
        status = Path(f"/proc/{process.pid}/status").read_text()
        if rows > MEMORY_CROPS / 4 and "RssAnon" in status:
            samples.append((rows, int(status.split("RssAnon:")[1].split()[0]) / 1024))
        time.sleep(2)
    assert process.returncode == 0, process.communicate()
    slope = linear_regression(*zip(*samples, strict=True)).slope * 100_000
    print(f"\n{samples[0][1]:.0f} to {samples[-1][1]:.0f} MiB, {slope:.1f} MiB per 100,000 of {MEMORY_CROPS} crops")
    assert slope < 10
    shutil.rmtree(out)
