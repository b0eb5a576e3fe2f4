"""The model's processes: readings as in this process, and what happens when one ends."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from str_app.engines.graph_folder import STEP, graph_folder
from str_app.errors import StrAppError
from str_app.models.charset import Charset
from str_app.models.checkpoint import load_checkpoint, save_checkpoint
from str_app.models.preprocessing import Preprocessing
from str_app.models.recognizer import Recognizer
from str_app.pipeline import CanvasReader
from str_app.reader import Reader
from str_app.serve.http.app import create_app
from str_app.serve.inference import model_processes
from str_app.serve.inference.model_processes import MAX_STARTS, ModelProcesses, _ModelProcess
from str_app.serve.operations.usage import UsageRecord
from str_app.serve.settings import Settings
from str_app.views import Canvas, to_canvas
from tests.tiny_recognizer import tiny_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = Recognizer(tiny_config(embedding_size=64, max_length=5), Charset("abAB"), Preprocessing(widths=(64, 128)))
    save_checkpoint(path, model, {"name": "tiny", "temperature": 1.5})
    return path


@pytest.fixture(scope="module")
def settings(weights: Path) -> Settings:
    return Settings(model=str(weights), max_batch=4, log_format="text")


@pytest.fixture(scope="module")
def remote(settings: Settings) -> Iterator[ModelProcesses]:
    reader = ModelProcesses(settings, 2, 1)
    yield reader
    reader.close()


def pids(reader: ModelProcesses) -> list[int]:
    return [member.pid for member in reader._members]


def kill(reader: ModelProcesses) -> None:
    for pid in pids(reader):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def crops(reader: CanvasReader, count: int) -> list[Canvas]:
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (20, 30 + 10 * k, 3), dtype=np.uint8) for k in range(count)]
    return [to_canvas(crop, reader.preprocessing) for crop in noise]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_reads_as_a_reader_in_this_process(remote: ModelProcesses, settings: Settings) -> None:
    local = Reader.load(settings.model, batch_size=4)
    assert (remote.name, remote.charset.characters, remote.preprocessing.widths) == ("tiny", "abAB", (64, 128))
    assert remote.info == local.info
    remote.warm_up([1, 2, 4])
    canvases = crops(local, 6)
    results, references = (reader.read_canvases(canvases, attention=True) for reader in (remote, local))
    for result, reference in zip(results, references, strict=True):
        assert result.text == reference.text
        assert result.confidence == pytest.approx(reference.confidence, abs=1e-4)
        assert result.attention is not None
        np.testing.assert_allclose(result.attention, reference.attention, atol=1e-4)
        for character, expected in zip(result.characters, reference.characters, strict=True):
            assert character.box == pytest.approx(expected.box, abs=0.05)


def test_batches_of_two_threads_run_at_the_same_time(remote: ModelProcesses) -> None:
    assert len(set(pids(remote))) == 2
    busy = [remote._idle.get()]  # one process is at work for somebody
    try:
        assert len(remote.read_canvases(crops(remote, 2))) == 2
    finally:
        remote._idle.put(busy[0])


def test_a_process_that_ends_is_replaced_and_its_batch_read_again(
    remote: ModelProcesses, caplog: pytest.LogCaptureFixture
) -> None:
    before, restarts = pids(remote), remote.usage.restarts
    canvases = crops(remote, 3)
    expected = [reading.text for reading in remote.read_canvases(canvases)]
    kill(remote)
    for _ in range(3):  # whichever is asked
        assert [reading.text for reading in remote.read_canvases(canvases)] == expected
    assert not set(pids(remote)) & set(before)
    assert "ended (signal 9): starting another" in caplog.text
    assert remote.usage.resident_bytes > 50 << 20
    assert remote.usage.restarts == restarts + 2


def test_replacements_that_end_while_they_load_are_replaced_too(
    remote: ModelProcesses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    canvases = crops(remote, 3)
    expected = [reading.text for reading in remote.read_canvases(canvases)]
    start, doomed = _ModelProcess.start, MAX_STARTS - 1

    def doom_some(member: _ModelProcess) -> None:
        nonlocal doomed
        start(member)
        if doomed:
            doomed -= 1
            member._process.kill()

    monkeypatch.setattr(_ModelProcess, "start", doom_some)
    kill(remote)
    assert [reading.text for reading in remote.read_canvases(canvases)] == expected
    assert caplog.text.count("starting another") == MAX_STARTS
    doomed = MAX_STARTS
    kill(remote)
    with pytest.raises(StrAppError, match=r"ended while it loaded \(signal 9\)"):
        remote.read_canvases(canvases)
    for _ in remote._members:
        assert [reading.text for reading in remote.read_canvases(canvases)] == expected, "it goes on"


def test_an_exception_in_a_batch_is_raised_here_and_the_process_survives(remote: ModelProcesses) -> None:
    before = pids(remote)
    broken = crops(remote, 1)[0]
    with pytest.raises(AttributeError, match="shape"):
        remote.read_canvases([Canvas(None, 1, (1, 1), 0)])  # type: ignore[arg-type]
    assert len(remote.read_canvases([broken])) == 1
    assert pids(remote) == before


def test_cpu_time_never_falls(settings: Settings) -> None:
    record = UsageRecord()
    with closing(ModelProcesses(settings, 1, 1, record)) as first:
        loading = record.usage.cpu_seconds
        assert loading > 0
        kill(first)
        first.read_canvases(crops(first, 1))
        assert first.usage.cpu_seconds > 1.5 * loading
        with closing(ModelProcesses(settings, 1, 1, record)) as second:  # as after a reload
            (pid,) = pids(first)
            first.close()
            until(lambda: gone(pid))
            assert second.usage.cpu_seconds > 2.5 * loading
            assert second.usage.restarts == 1


@pytest.mark.parametrize("seen", [False, True])
def test_cpu_time_of_a_killed_process_is_kept(seen: bool) -> None:
    """Whether or not it was asked for before; if it was, also after somebody else has waited for the process."""
    record = UsageRecord()
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        record.add(process.pid)
        process.stdout.readline()
        if seen:
            assert record.usage.cpu_seconds > 0.2
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if seen else os.WNOWAIT))
        for _ in range(2):
            record.remove(process.pid)
            assert 0.2 < record.usage.cpu_seconds < 1
        assert record.usage.resident_bytes == 0


def test_reloads_do_not_forget_what_was_used(settings: Settings) -> None:
    async def scenario() -> None:
        app = create_app(settings.model_copy(update={"threads": 1}))
        service = app.state.service
        async with app.router.lifespan_context(app):
            await asyncio.to_thread(until, lambda: service.batcher.ready, 60)
            before, (pid,) = service.metrics.model_usage().cpu_seconds, pids(service.batcher.reader)
            await service.reload()
            gc.collect()
            await asyncio.to_thread(until, lambda: gone(pid))
            assert service.metrics.model_usage().cpu_seconds > 1.5 * before

    asyncio.run(scenario())


def test_signals_to_the_process_group_do_not_end_the_processes(remote: ModelProcesses) -> None:
    before = pids(remote)
    for pid in before:
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, stop)
    assert len(remote.read_canvases(crops(remote, 2))) == 2
    assert pids(remote) == before


def test_errors_from_loading_weights_are_raised_here(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(StrAppError, match=r"bad\.safetensors"):
        ModelProcesses(Settings(model=str(tmp_path / "bad.safetensors")), 2, 1)
    with pytest.raises(StrAppError, match="neither one of"):
        ModelProcesses(Settings(model="huge"), 1, 1)


def test_a_process_that_ends_while_it_loads_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.spawn._python_exe", b"/bin/false")
    with pytest.raises(StrAppError, match=r"ended while it loaded \(exit code 1\)"):
        ModelProcesses(settings, 1, 1)


def test_processes_end_with_the_reader(settings: Settings) -> None:
    reader = ModelProcesses(settings, 1, 1)
    (pid,) = pids(reader)
    threads = threading.active_count()
    del reader  # as after a reload
    gc.collect()
    until(lambda: gone(pid))
    until(lambda: threading.active_count() <= threads)


def test_a_replacement_that_loads_another_model_is_logged(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(shutil.copy(weights, tmp_path))
    reader = ModelProcesses(Settings(model=str(path), max_batch=4, log_format="text"), 1, 1)
    network, info = load_checkpoint(path)
    save_checkpoint(path, network, {**info, "temperature": 0.5})
    kill(reader)
    assert len(reader.read_canvases(crops(reader, 1))) == 1
    assert f"loaded another model than the other processes, since {path} was replaced: reload" in caplog.text
    reader.close()


def test_graphs_that_are_damaged_at_a_reload_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(graph_folder("small"), tmp_path / "small.onnx"))
    picture = (Path(__file__).parents[2] / "samples/images/01.jpg").read_bytes()

    async def scenario() -> None:
        app = create_app(Settings(model=str(folder), threads=1, log_format="text"))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:

                async def read() -> Any:
                    await asyncio.to_thread(until, lambda: app.state.service.batcher.ready, 60)
                    answer = await client.post("/v1/recognize", content=picture, headers={"Content-Type": "image/jpeg"})
                    return answer.json()["results"]

                before = await read()
                (folder / STEP).write_bytes((folder / STEP).read_bytes()[:1000])
                await app.state.service.reload()
                assert await read() == before
                assert 'str_app_reloads_total{outcome="failed"} 1.0' in (await client.get("/metrics")).text

    asyncio.run(scenario())
    message = rf"reload failed, the old weights stay in use: {folder}: {folder / STEP}: not a graph .*; export it again"
    assert re.search(message, caplog.text)


@pytest.mark.parametrize("ended", [0, 1])
def test_a_process_that_ends_while_it_warms_up_is_replaced(remote: ModelProcesses, ended: int) -> None:
    canvases = crops(remote, 2)
    expected = [reading.text for reading in remote.read_canvases(canvases)]
    killed = remote._members[ended]._process
    killed.kill()
    killed.join(20)  # its pipe is broken
    remote._warm = False
    remote.warm_up([1])
    assert len(set(pids(remote))) == 2
    for _ in range(2):
        assert [reading.text for reading in remote.read_canvases(canvases)] == expected


def test_settings_of_reading_reach_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load(model: str, **options: Any) -> None:
        asked.update(options)
        raise ValueError("enough")

    monkeypatch.setattr(Reader, "load", load)
    monkeypatch.setattr(model_processes.signal, "signal", lambda *_: None)
    monkeypatch.setattr(model_processes.os, "nice", lambda _: 0)
    monkeypatch.setattr(model_processes, "configure_logging", lambda *_: None)
    _, theirs = model_processes.CONTEXT.Pipe()
    model_processes._run(theirs, Settings(prior=False, blank=False, variants=False), 1)
    assert [asked[name] for name in ("prior", "blank", "variants")] == [False] * 3
