"""This server, a plain FastAPI handler around the same model, and RapidOCR behind one, in one run and in turn.

python -m tests.serve.slow.side_by_side --seconds 20 [--rapidocr] prints a Markdown table. RapidOCR needs
`pip install rapidocr onnxruntime`. One crop a request; server and clients share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from str_app.cpu import usable_cores
from str_app.reader import Reader
from tests.serve.slow.crops import Crop, crops
from tests.serve.slow.load import Connection, Tally, percentile, post, probe
from tests.serve.slow.real_server import RealServer

CLIENTS = (1, 8, 64)


@contextmanager
def plain(kind: str) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "tests.serve.slow.plain_handlers", kind, str(port)])
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, f"{kind} did not start"
                time.sleep(0.1)
        yield "127.0.0.1", port
    finally:
        process.kill()
        process.wait()


@contextmanager
def ours() -> Iterator[tuple[str, int]]:
    with RealServer() as server:
        yield server.address


async def measure(
    address: tuple[str, int], pool: list[Crop], clients: int, seconds: float
) -> tuple[Tally, list[float]]:
    tally, start = Tally(), time.perf_counter()

    async def client(number: int) -> None:
        connection, turn = Connection(address), number
        while time.perf_counter() - start < seconds:
            tally.add(await connection.send(post(pool[turn % len(pool)].data)), 1, None)
            turn += clients
        connection.close()

    async with probe(address) as health:
        await asyncio.gather(*(client(number) for number in range(clients)))
        tally.elapsed = time.perf_counter() - start
    return tally, health


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0, help="for each row")
    parser.add_argument("--rapidocr", action="store_true")
    arguments = parser.parse_args()
    pool = crops(Reader.load("small"), 200)
    kinds = {
        "str-app serve": ours,
        "plain handler": lambda: plain("reader"),
        "plain handler, thread pool": lambda: plain("reader-threads"),
    }
    if arguments.rapidocr:
        kinds["RapidOCR, plain handler"] = lambda: plain("rapidocr")
    print(f"{usable_cores()} cores, {arguments.seconds:g} s a row, {len(pool)} crops\n")
    print("| server | clients | crops/s | p50 ms | p99 ms | /healthz p99 ms |\n|---|---:|---:|---:|---:|---:|")
    for name, start in kinds.items():
        with start() as address:
            asyncio.run(measure(address, pool, 8, arguments.seconds / 4))  # warm
            for clients in CLIENTS:
                tally, health = asyncio.run(measure(address, pool, clients, arguments.seconds))
                p50, p99 = (percentile(tally.seconds, q) for q in (50, 99))
                rate = tally.images / tally.elapsed
                print(
                    f"| {name} | {clients} | {rate:.1f} | {p50:.1f} | {p99:.1f} | {percentile(health, 99):.1f} |",
                    flush=True,
                )
                assert set(tally.codes) == {200}, tally.codes


if __name__ == "__main__":
    main()
