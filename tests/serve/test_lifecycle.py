from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from str_app.errors import StrAppError
from str_app.serve.http.app import create_app
from str_app.serve.http.server import Server, _listen, run
from str_app.serve.http.telemetry import Lifecycle
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, entered, parts, png, queued, serving, wait_until_ready
from tests.serve.server_process import ServerProcess


def test_ready_only_when_warm_and_alive_at_once(reader: HeldReader) -> None:
    reader.gate.clear()
    with TestClient(create_app(Settings(), lambda: reader)) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        cold = client.get("/readyz")
        assert (cold.status_code, cold.json()["code"]) == (503, "warming_up")
        refused = client.post("/v1/recognize", files=parts("early"))
        assert (refused.status_code, refused.json()["code"]) == (503, "warming_up")
        assert refused.headers["retry-after"] == "1"
        reader.gate.set()
        wait_until_ready(client.app)
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.head("/readyz").status_code == 200
        assert "str_app_ready 1.0" in client.get("/metrics").text


def test_draining_is_not_ready_but_serves(client: TestClient) -> None:
    client.app.state.service.lifecycle.draining = True  # type: ignore[attr-defined]
    draining = client.get("/readyz")
    assert (draining.status_code, draining.json()["code"]) == (503, "draining")
    assert client.get("/healthz").status_code == 200
    answer = client.post("/v1/recognize", files=parts("late"))
    assert answer.json()["results"][0]["text"] == "late"
    assert answer.headers["connection"] == "close"


def test_model_that_cannot_be_loaded_stops_the_start() -> None:
    app = create_app(Settings(model="/nowhere/else.safetensors"))
    with pytest.raises(Exception, match=r"else\.safetensors"), TestClient(app):
        pass


@pytest.fixture
def restored() -> Iterator[None]:
    """Handlers of signals, logs and exceptions are restored after the test."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    hooks, handlers = (sys.excepthook, threading.excepthook), logging.root.handlers[:]
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
    sys.excepthook, threading.excepthook = hooks
    logging.root.handlers[:] = handlers
    logging.captureWarnings(False)


@pytest.mark.usefixtures("restored")
def test_weights_that_cannot_be_loaded_are_an_error_before_anything_is_served(tmp_path: Path) -> None:
    # The command line makes one line and exit code 1 of these.
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}junk")
    with pytest.raises(StrAppError, match=r"damaged\.safetensors"):
        run(Settings(port=0, model=str(damaged)))
    with pytest.raises(StrAppError, match="neither one of"):
        run(Settings(port=0, model=str(tmp_path / "nowhere")))


def test_reload_swaps_models_and_finishes_with_the_old_one_what_it_began() -> None:
    readers = [HeldReader(), HeldReader()]
    for reader, name in zip(readers, ("old", "new"), strict=True):
        reader.name = name
    left = iter(readers)

    async def scenario() -> None:
        async with serving(Settings(), lambda: next(left)) as (app, client):
            old = readers[0]
            old.gate.clear()
            requests = [asyncio.create_task(client.post("/v1/recognize", files=parts("first")))]
            await entered(old)
            requests.append(asyncio.create_task(client.post("/v1/recognize", files=parts("second"))))
            await queued(app, 1)
            await app.state.service.reload()
            requests.append(asyncio.create_task(client.post("/v1/recognize", files=parts("third"))))
            await queued(app, 2)
            old.gate.set()
            answers = [answer.json() for answer in await asyncio.gather(*requests)]
            assert [answer["results"][0]["text"] for answer in answers] == ["first", "second", "third"]
            assert [answer["model"] for answer in answers] == ["old", "old", "new"]
            assert (await client.get("/v1/models")).json()["models"][0]["name"] == "new"
            metrics = (await client.get("/metrics")).text
            assert 'str_app_reloads_total{outcome="done"} 1.0' in metrics
            assert 'str_app_model_info{name="new"} 1.0' in metrics

    asyncio.run(scenario())
    assert readers[0].batches[-2:] == [["first"], ["second"]]
    assert readers[1].batches[-1] == ["third"]


def test_a_reload_frees_the_old_model_though_an_image_could_not_be_read() -> None:
    """The traceback of an error holds what read the image, and may be in a cycle."""
    loaded: list[weakref.ref[HeldReader]] = []

    def load() -> HeldReader:
        reader = HeldReader()
        loaded.append(weakref.ref(reader))
        return reader

    async def scenario() -> None:
        app = create_app(Settings(), load)
        async with app.router.lifespan_context(app):
            await asyncio.to_thread(wait_until_ready, app)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
                for path, field in (("/v1/recognize", "images"), ("/v1/regions", "image")):
                    files = {field: ("a.png", b"no image", "image/png")}
                    await client.post(path, files=files, data={"regions": "[[0, 0, 9, 9]]"})
            await app.state.service.reload()
            assert [reference() is None for reference in loaded] == [True, False]

    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_refused_bodies_do_not_stay_in_memory() -> None:
    """Errors hold their tracebacks' frames, and these the body, in cycles that Python seldom collects on a server."""
    body = b'{"images": "' + b"a" * (20 << 20)  # cut off
    with ServerProcess() as server:
        sizes = []
        for _ in range(15):
            answer = httpx.post(
                server.url + "/v1/recognize", content=body, headers={"content-type": "application/json"}
            )
            assert answer.json()["code"] == "bad_json"
            pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
            sizes.append(pages * resource.getpagesize() / 2**20)
    assert max(sizes) < sizes[0] + 150, "one of them may be there, and 64 MiB wait to be collected"


def test_weights_that_cannot_be_reloaded_change_nothing(reader: HeldReader, caplog: pytest.LogCaptureFixture) -> None:
    outcomes = iter([reader])

    def load() -> HeldReader:
        for outcome in outcomes:
            return outcome
        raise StrAppError("model.safetensors: cut short")

    async def scenario() -> None:
        async with serving(Settings(), load) as (app, client):
            with caplog.at_level(logging.ERROR, "str_app.serve"):
                await app.state.service.reload()
            assert (await client.get("/readyz")).status_code == 200
            answer = await client.post("/v1/recognize", files=parts("still"))
            assert answer.json()["results"][0]["text"] == "still"
            assert 'str_app_reloads_total{outcome="failed"} 1.0' in (await client.get("/metrics")).text

    asyncio.run(scenario())
    assert "reload failed, the old weights stay in use: small: model.safetensors: cut short" in caplog.text


def test_the_last_sighup_is_never_lost() -> None:
    """However many come while a reload runs: one more follows, which reads the newest file."""
    begun, gate = [], asyncio.Event()

    class SlowService:
        lifecycle = Lifecycle()
        settings = Settings()

        class batcher:  # noqa: N801
            alive = True

        async def reload(self) -> None:
            begun.append(None)
            await gate.wait()

    async def scenario() -> None:
        server = Server(uvicorn.Config(lambda scope: None), SlowService())  # type: ignore[arg-type]
        for expected in (1, 1, 1):
            server.handle_hangup(signal.SIGHUP, None)
            await server.on_tick(1)
            await asyncio.sleep(0)
            assert len(begun) == expected
        gate.set()
        for _ in range(3):
            await asyncio.sleep(0)
            await server.on_tick(1)
        assert len(begun) == 2
        server.handle_exit(signal.SIGTERM, None)
        server.handle_hangup(signal.SIGHUP, None)
        for _ in range(3):
            await asyncio.sleep(0)
            await server.on_tick(1)
        assert len(begun) == 2, "the exit would wait for it"

    asyncio.run(scenario())


def test_two_sighups_end_with_the_newest_file(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_text("old")
    with ServerProcess(STR_APP_MODEL=str(model)) as server:
        for name in ("newer", "newest"):
            model.write_text(name)
            server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: httpx.get(server.url + "/v1/models").json()["models"][0]["name"] == "newest")
        model.unlink()
        server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: server.shows('str_app_reloads_total{outcome="failed"} 1.0'))
        assert any(f"stay in use: {model}: " in line["message"] for line in server.logs)


def test_sighup_reloads_while_requests_are_held(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_text("old")
    with ServerProcess(STR_APP_MODEL=str(model)) as server, ThreadPoolExecutor() as pool:
        accepted = pool.submit(httpx.post, server.url + "/v1/recognize", files=parts("accepted"), timeout=30)
        server.wait_until_one_is_being_read()
        model.write_text("new")
        server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: httpx.get(server.url + "/v1/models").json()["models"][0]["name"] == "new")
        model.unlink()
        server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: server.shows('str_app_reloads_total{outcome="failed"} 1.0'))
        server.let_through()
        assert accepted.result().json()["model"] == "old"
        assert server.status("/readyz") == 200


@pytest.mark.usefixtures("restored")
def test_a_port_in_use_is_reported_in_one_line(reader: HeldReader) -> None:
    with _listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StrAppError, match=f"port {port}.*--port"):
            run(Settings(port=port), lambda: reader)


def test_of_two_servers_that_start_on_one_port_the_slower_gives_up_in_one_line(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    os.mkfifo(weights)
    with _listen("127.0.0.1", 0) as faster:
        port = faster.getsockname()[1]
        settings = {"STR_APP_PORT": str(port), "STR_APP_MODEL": str(weights), "STR_APP_THREADS": "1", "PATH": ""}
        command = [sys.executable, "-m", "tests.serve.held_server"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=settings) as slower:
            with weights.open("w") as model:  # by now the slower has bound, and loads
                faster.listen()
                model.write("fake")
            _, log = slower.communicate(timeout=60)
    assert slower.returncode == 1
    assert "listening on" not in log
    reason = os.strerror(errno.EADDRINUSE)
    assert f"StrAppError: cannot listen on 127.0.0.1 port {port}: {reason}; choose another --host or --port" in log


@pytest.fixture
def draining() -> Iterator[ServerProcess]:
    with ServerProcess(STR_APP_DRAIN_DELAY_S="2") as server:
        yield server


def test_sigterm_drains_finishes_what_was_accepted_and_exits_0(draining: ServerProcess) -> None:
    server = draining
    with ThreadPoolExecutor() as pool:
        accepted = pool.submit(httpx.post, server.url + "/v1/recognize", files=parts("accepted"), timeout=30)
        server.wait_until_one_is_being_read()
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.status("/readyz") == 503)
        assert server.status("/healthz") == 200
        late = pool.submit(httpx.post, server.url + "/v1/recognize", files=parts("late"), timeout=30)
        server.let_through(2)
        assert accepted.result().json()["results"][0]["text"] == "accepted"
        assert late.result().json()["results"][0]["text"] == "late"
    assert server.process.wait(30) == 0
    assert not [line for line in server.logs if line["level"] in ("warning", "error")]


def test_second_signal_exits_at_once() -> None:
    with ServerProcess(STR_APP_DRAIN_DELAY_S="3600") as server, ThreadPoolExecutor() as pool:
        stuck = pool.submit(httpx.post, server.url + "/v1/recognize", files=parts("stuck"), timeout=30)
        server.wait_until_one_is_being_read()
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.status("/readyz") == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 128 + signal.SIGTERM
        assert isinstance(stuck.exception(), httpx.TransportError)


def test_client_that_hangs_up_leaves_no_work_behind() -> None:
    with ServerProcess() as server, ThreadPoolExecutor() as pool:
        first = pool.submit(httpx.post, server.url + "/v1/recognize", files=parts("first"), timeout=30)
        server.wait_until_one_is_being_read()
        head = (
            f"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(png())}\r\n\r\n"
        )
        with socket.create_connection(server.address) as leaving:
            leaving.sendall(head.encode() + png())
            server.wait(lambda: server.shows("str_app_queue_depth 1.0"))
        server.wait(lambda: server.shows('str_app_requests_total{code="499"'))
        server.let_through()  # one batch only: had the second been computed, the server would hang on the way out
        assert first.result().status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_answers_are_not_held_back_by_nagle() -> None:
    with _listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_answers_leak_neither_server_nor_version() -> None:
    with ServerProcess() as server:
        for path in ("/", "/healthz", "/nowhere"):
            assert not {"server", "x-powered-by"} & set(httpx.get(server.url + path).headers)


def test_a_server_that_can_read_nothing_more_stops(caplog: pytest.LogCaptureFixture) -> None:
    """So that whatever watches it starts it again."""

    class Service:
        class batcher:  # noqa: N801
            alive = False

    server = Server(uvicorn.Config("none"), Service())  # type: ignore[arg-type]
    assert asyncio.run(server.on_tick(1))
    assert server.failed
    assert "an inference thread has ended" in caplog.text
