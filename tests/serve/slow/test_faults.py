"""Stops, reloads, kills and full disks while clients go on asking. No accepted request is lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from str_app.client import Client
from str_app.cpu import usable_cores
from str_app.models.presets import weights_path
from str_app.reader import Reader
from str_app.reading import Reading
from tests.serve.slow.crops import Crop, crops, same
from tests.serve.slow.load import Connection, form, get, post
from tests.serve.slow.real_server import RealServer

pytestmark = pytest.mark.slow
CLIENTS = 8


@pytest.fixture(scope="module")
def pool() -> list[Crop]:
    return crops(Reader.load("small"), 30)


async def asking(server: RealServer, pool: list[Crop], ended: Callable[[], bool]) -> int:
    """Clients that ask until `ended`, as behind a balancer; every answer must be right. The number of answers."""
    answers = 0

    async def client(number: int) -> None:
        nonlocal answers
        connection, turn = Connection(server.address), number
        while not ended():
            crop = pool[turn % len(pool)]
            answer = await connection.send(post(crop.data))
            assert answer.status == 200, answer
            (result,) = json.loads(answer.body)["results"]
            assert same(result, crop.reading), (result, crop.reading)
            answers += 1
            turn += CLIENTS
        connection.close()

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return answers


def test_sigterm_under_load_loses_nothing(pool: list[Crop]) -> None:
    with RealServer(STR_APP_DRAIN_DELAY_S="2") as server:
        ready = True

        async def balancer() -> None:
            nonlocal ready
            connection = Connection(server.address)
            while ready:
                ready = (await connection.send(get("/readyz"))).status == 200
                await asyncio.sleep(0.02)

        async def scenario() -> int:
            watching = asyncio.create_task(balancer())
            clients = asyncio.create_task(asking(server, pool, lambda: not ready))
            await asyncio.sleep(2)
            server.process.send_signal(signal.SIGTERM)
            await watching
            return await clients

        answers = asyncio.run(scenario())
        assert server.process.wait(60) == 0
        assert answers > CLIENTS
        print(f"\nSIGTERM: {answers} answers, none lost")


def test_reloads_under_load_lose_nothing(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    shutil.copy(weights_path("small"), weights)
    pool = crops(Reader.load(weights), 30)  # by torch: there are no exported graphs beside the copy
    with RealServer(STR_APP_MODEL=str(weights)) as server:

        async def until(metric: str, value: float) -> None:
            while await asyncio.to_thread(server.metric, metric) < value:
                await asyncio.sleep(0.1)

        async def scenario() -> int:
            over = False
            clients = asyncio.create_task(asking(server, pool, lambda: over))
            for count in (1, 2, 3):
                server.process.send_signal(signal.SIGHUP)
                await until('str_app_reloads_total{outcome="done"}', count)
            weights.write_bytes(weights.read_bytes()[:1000])
            server.process.send_signal(signal.SIGHUP)
            await until('str_app_reloads_total{outcome="failed"}', 1)
            over = True
            return await clients

        answers = asyncio.run(asyncio.wait_for(scenario(), 300))
        assert any("reload failed" in line and "model.safetensors" in line for line in server.logs)
        give_up = time.monotonic() + 20
        while len(server.models) != usable_models():
            assert time.monotonic() < give_up, "processes of weights before, or of the damaged ones, have not ended"
            time.sleep(0.1)
        print(f"\nSIGHUP: 3 reloads and a damaged file, {answers} answers, none lost")


def usable_models() -> int:
    return min(2, usable_cores())


def test_a_killed_model_process_loses_nothing(pool: list[Crop]) -> None:
    with RealServer() as server:

        async def scenario() -> int:
            over = False
            clients = asyncio.create_task(asking(server, pool, lambda: over))
            for _ in range(3):
                await asyncio.sleep(1)
                killed = server.models[0]
                os.kill(killed, signal.SIGKILL)
                while killed in server.models or len(server.models) < usable_models():
                    await asyncio.sleep(0.05)
            over = True
            return await clients

        answers = asyncio.run(asyncio.wait_for(scenario(), 120))
        assert sum("starting another" in line for line in server.logs) == 3
        print(f"\nkilled model: 3 times, {answers} answers, none lost")


@contextmanager
def proxy(servers: list[RealServer]) -> Iterator[str]:
    """Passes connections on to the servers in turn, and closes those that it cannot: what any balancer does."""
    listener = socket.create_server(("127.0.0.1", 0))
    turn = 0

    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            end.close()

    def accept() -> None:
        nonlocal turn
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            turn += 1
            try:
                upstream = socket.create_connection(servers[turn % len(servers)].address, timeout=5)
            except OSError:
                client.close()
                continue
            for ends in ((client, upstream), (upstream, client)):
                threading.Thread(target=copy, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def test_a_killed_replica_is_survived_by_clients(pool: list[Crop]) -> None:
    with RealServer() as first, RealServer() as second, proxy([first, second]) as url, ThreadPoolExecutor(4) as threads:
        client = Client(url, timeout_s=20)

        def ask(turn: int) -> bool:
            if turn == 20:
                first.process.kill()
            crop = pool[turn % len(pool)]
            (reading,) = client.recognize([crop.data])
            return isinstance(reading, Reading) and same(reading.as_dict(), crop.reading)

        assert all(threads.map(ask, range(60)))
        assert first.process.wait(10) == -signal.SIGKILL


def test_clients_that_leave_leave_nothing_behind(pool: list[Crop]) -> None:
    with RealServer() as server:
        body = form([crop.data for crop in pool[:8]])
        for _ in range(20):
            with socket.create_connection(server.address) as leaving:
                leaving.sendall(body)
        give_up = time.monotonic() + 30
        ended = 'str_app_requests_total{code="%d",method="POST",route="/v1/recognize"}'
        while server.metric(ended % 499) + server.metric(ended % 200) < 20:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        assert server.metric("str_app_pending_images") == 0
        read = server.metric('str_app_images_total{outcome="read"}')
        abandoned = server.metric('str_app_images_total{outcome="abandoned"}')
        print(f"\nleft: {read:.0f} images read, {abandoned:.0f} dropped before they were computed, of 160")
        assert server.metric(ended % 499) > 0
        assert read < 160


def test_a_full_disk_stops_nothing(pool: list[Crop]) -> None:
    prlimit = shutil.which("prlimit") or pytest.skip("needs prlimit of util-linux")
    with RealServer(prlimit, "--fsize=0", TMPDIR="/nowhere") as server:
        large = [crop.data for crop in pool] * 2  # over 1 MB, beyond which form parsers like to write files
        large = [data + b"\0" * 50_000 for data in large]
        answer = asyncio.run(Connection(server.address).send(form(large)))
        assert len(form(large)) > 2**21
        assert answer.status == 200
        assert all("text" in result or "error" in result for result in json.loads(answer.body)["results"])


def test_bytes_that_never_come_and_idle_connections_stop_nothing(pool: list[Crop]) -> None:
    with RealServer(STR_APP_HEADER_TIMEOUT_S="2", STR_APP_UPLOAD_TIMEOUT_S="2") as server:
        idle = [socket.create_connection(server.address) for _ in range(1000)]
        for number, connection in enumerate(idle):
            connection.sendall(b"GET / HT" if number % 2 else post(pool[0].data)[:200])
        answers = asyncio.run(_some(server, pool))
        assert answers >= 10
        for connection in idle:
            connection.settimeout(20)
            assert b" 408 " in connection.recv(100)
            connection.close()


async def _some(server: RealServer, pool: list[Crop]) -> int:
    left = 30

    def ended() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    return await asyncio.wait_for(asking(server, pool, ended), 60)
