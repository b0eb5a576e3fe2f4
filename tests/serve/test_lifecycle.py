from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi.testclient import TestClient

from serve.app import create_app
from serve.server import _listen, run
from serve.settings import Settings
from str_app.errors import StrAppError
from tests.serve.conftest import HeldReader, parts, png, wait_until_ready


def test_ready_only_when_warm_and_alive_at_once(reader: HeldReader) -> None:
    reader.gate.clear()
    with TestClient(create_app(Settings(), lambda: reader)) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        cold = client.get("/readyz")
        assert (cold.status_code, cold.json()["code"]) == (503, "warming_up")
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


def test_taken_port_is_said_in_one_line(reader: HeldReader) -> None:
    with server_process() as server:
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(StrAppError, match=f"port {port}.*--port"):
            run(Settings(port=port), lambda: reader)


class server_process:  # noqa: N801
    """A real server in a process of its own; each line of `let_through` lets its reader read one batch."""

    def __init__(self, **environment: str) -> None:
        self._environment = {"STR_APP_PORT": "0", "STR_APP_DRAIN_DELAY_S": "0", "PATH": "", **environment}

    def __enter__(self) -> server_process:
        command = [sys.executable, "-m", "tests.serve.held_server"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment
        )
        assert self.process.stderr
        self.logs: list[dict] = []
        for line in self.process.stderr:
            self.logs.append(json.loads(line))
            if self.logs[-1]["message"].startswith("listening on "):
                break
        self.url = self.logs[-1]["message"].removeprefix("listening on ")
        self._drain = threading.Thread(target=lambda: self.logs.extend(map(json.loads, self.process.stderr or ())))
        self._drain.start()
        self.wait(lambda: self.status("/readyz") == 200)
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait(30)
        self._drain.join(30)
        for pipe in (self.process.stdin, self.process.stderr):
            assert pipe
            pipe.close()

    def status(self, path: str) -> int:
        try:
            return httpx.get(self.url + path).status_code
        except httpx.TransportError:
            return 0

    def wait(self, condition) -> None:
        for _ in range(3000):
            if condition():
                return
        raise AssertionError("never came true")

    def let_through(self, batches: int = 1) -> None:
        assert self.process.stdin
        self.process.stdin.write("go\n" * batches)
        self.process.stdin.flush()

    def shows(self, *metrics: str) -> bool:
        text = httpx.get(self.url + "/metrics").text
        return all(f"\n{metric}" in text for metric in metrics)

    def wait_until_one_is_being_read(self) -> None:
        self.wait(lambda: self.shows("str_app_decode_seconds_count 1.0", "str_app_queue_depth 0.0"))


@pytest.fixture
def draining() -> Iterator[server_process]:
    with server_process(STR_APP_DRAIN_DELAY_S="2") as server:
        yield server


def test_sigterm_drains_finishes_what_was_accepted_and_exits_0(draining: server_process) -> None:
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
    with server_process(STR_APP_DRAIN_DELAY_S="3600") as server, ThreadPoolExecutor() as pool:
        stuck = pool.submit(httpx.post, server.url + "/v1/recognize", files=parts("stuck"), timeout=30)
        server.wait_until_one_is_being_read()
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.status("/readyz") == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 128 + signal.SIGTERM
        assert isinstance(stuck.exception(), httpx.TransportError)


def test_client_that_hangs_up_leaves_no_work_behind() -> None:
    with server_process() as server, ThreadPoolExecutor() as pool:
        first = pool.submit(httpx.post, server.url + "/v1/recognize", files=parts("first"), timeout=30)
        server.wait_until_one_is_being_read()
        host, port = server.url.removeprefix("http://").split(":")
        head = (
            f"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(png())}\r\n\r\n"
        )
        with socket.create_connection((host, int(port))) as leaving:
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
    with server_process() as server:
        for path in ("/", "/healthz", "/nowhere"):
            assert not {"server", "x-powered-by"} & set(httpx.get(server.url + path).headers)
