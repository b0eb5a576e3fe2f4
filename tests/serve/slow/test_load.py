"""Load on one server with the released weights. LOAD_SECONDS, LOAD_CLIENTS and LOAD_REQUESTS say how much.

Throughputs are compared with each other within a run: the offline reader is measured before and after the server.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from str_app.cpu import usable_cores
from str_app.reader import Reader
from tests.serve.slow.crops import Crop, crops, same
from tests.serve.slow.load import Connection, Tally, form, open_loop, percentile, post, probe
from tests.serve.slow.real_server import RealServer

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("LOAD_SECONDS", "10"))
CLIENTS = int(os.environ.get("LOAD_CLIENTS", "64"))
REQUESTS = int(os.environ.get("LOAD_REQUESTS", "0"))
FILLING = 2.0


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load("small", threads=usable_cores())


@pytest.fixture(scope="module")
def pool(reader: Reader) -> list[Crop]:
    return crops(reader, 300)


@pytest.fixture
def server() -> Iterator[RealServer]:
    with RealServer() as server:
        yield server


def offline_rate(reader: Reader, pool: list[Crop], seconds: float) -> float:
    """Crops a second of the offline reader, decoding included, in batches of 32."""
    done, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        reader.recognize([crop.data for crop in pool])
        done += len(pool)
    return done / took


async def closed_loop(
    server: RealServer, pool: list[Crop], clients: int, seconds: float, requests: int = 0, most: int = 8
) -> Tally:
    """Each client sends its next request when the last is answered: one crop, but each tenth time up to `most`."""
    tally, start, sent = Tally(), time.perf_counter(), 0

    async def client(number: int) -> None:
        nonlocal sent
        random = np.random.default_rng(number)
        connection = Connection(server.address)
        while time.perf_counter() - start < seconds or sent < requests:
            count = 1 if most == 1 or random.random() < 0.9 else int(random.integers(2, most + 1))
            chosen = [pool[k] for k in random.integers(0, len(pool), count)]

            def check(results: list[dict], chosen: list[Crop] = chosen) -> object:
                return [(r, c.reading) for r, c in zip(results, chosen, strict=True) if not same(r, c.reading)]

            sent += 1
            answer = await connection.send(post(chosen[0].data) if count == 1 else form([c.data for c in chosen]))
            tally.add(answer, count, check)
            if answer.status == 429:
                await asyncio.sleep(float(answer.headers["retry-after"]))
        connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    tally.elapsed = time.perf_counter() - start
    return tally


def test_load(server: RealServer, reader: Reader, pool: list[Crop]) -> None:
    """Offline reader and server take turns, since a shared machine's speed changes within minutes."""
    rounds = max(3, round(SECONDS / 30))
    turn = min(SECONDS / rounds, 5)
    asyncio.run(closed_loop(server, pool, CLIENTS, turn))  # warm
    memory: list[tuple[int, float]] = []

    async def scenario() -> tuple[Tally, list[float]]:
        async with probe(server.address) as health:
            return await closed_loop(server, pool, CLIENTS, SECONDS / rounds, REQUESTS // rounds), health

    offline, tallies, health = [offline_rate(reader, pool, turn)], [], []
    for _ in range(rounds):
        tally, times = asyncio.run(scenario())
        tallies.append(tally)
        health += times
        memory.append((sum(sum(one.codes.values()) for one in tallies), server.rss / 2**20))
        offline.append(offline_rate(reader, pool, turn))
    rates = [tally.images / tally.elapsed for tally in tallies]
    ratios = [2 * rate / (before + after) for rate, before, after in zip(rates, offline[:-1], offline[1:], strict=True)]
    ratio = float(np.median(ratios))
    requests, sizes = np.array(memory).T
    per_100k = float(np.polyfit(requests, sizes, 1)[0]) * 100_000
    print(
        f"\nload: {CLIENTS} clients, {rounds} rounds of {tallies[0].elapsed:.0f} s, {requests[-1]:.0f} requests\n"
        f"  the first: {tallies[0]}\n  crops/s {np.round(rates).tolist()}, offline {np.round(offline).tolist()}\n"
        f"  of offline {np.round(ratios, 2).tolist()}, median {ratio:.0%}\n"
        f"  /healthz p99 {percentile(health, 99):.1f} ms of {len(health)}\n"
        f"  RSS {sizes[0]:.0f} → {sizes[-1]:.0f} MiB, {per_100k:+.1f} MiB per 100,000 requests"
    )
    for tally in tallies:
        assert not tally.wrong, tally.wrong[:3]
        assert set(tally.codes) <= {200, 429}
    assert ratio >= 0.85
    assert percentile(health, 99) <= 50
    assert sizes[-1] <= 1.1 * sizes[0]


def test_idle_latency(server: RealServer, pool: list[Crop]) -> None:
    async def scenario() -> tuple[list[float], list[float]]:
        connection, totals, models = Connection(server.address), [], []
        for crop in pool:
            answer = await connection.send(post(crop.data))
            totals.append(answer.seconds)
            stages = dict(stage.split(";dur=") for stage in answer.headers["server-timing"].split(", "))
            models.append(float(stages["inference"]) / 1e3)
        return totals, models

    totals, models = asyncio.run(scenario())
    total, model = percentile(totals, 50), percentile(models, 50)
    print(f"\nidle: p50 {total:.2f} ms, of which the model {model:.2f} ms, n {len(pool)}")
    assert total <= model + 3


def test_overload(server: RealServer, pool: list[Crop]) -> None:
    """Full load and overload take turns, since a shared machine's speed changes within minutes."""
    rounds = 3
    seconds = min(SECONDS, 30) / rounds
    single = [crop for crop in pool if len(crop.data) < 20_000]
    requests = [post(crop.data) for crop in single]

    async def overload(rate: float) -> tuple[Tally, list[float], float]:
        busy = time.process_time()
        async with probe(server.address) as health:
            tally = await asyncio.to_thread(open_loop, server.address, requests, rate, FILLING, seconds)
        return tally, health, (time.process_time() - busy) / (FILLING + tally.elapsed)

    async def recover() -> float:
        start = time.perf_counter()
        while (await Connection(server.address).send(requests[0])).status != 200:
            await asyncio.sleep(0.05)
        return time.perf_counter() - start

    def full() -> float:
        tally = asyncio.run(closed_loop(server, single, CLIENTS, seconds, most=1))  # requests like those of overload
        return tally.images / tally.elapsed

    capacities, tallies, health, busy, recoveries = [full()], [], [], [], []
    for _ in range(rounds):
        over, times, share = asyncio.run(overload(4 * capacities[-1]))
        recoveries.append(asyncio.run(recover()))
        tallies.append(over)
        health += times
        busy.append(share)
        capacities.append(full())
    rates = [over.images / over.elapsed for over in tallies]
    ratios = [2 * rate / (b + a) for rate, b, a in zip(rates, capacities[:-1], capacities[1:], strict=True)]
    goodput = float(np.median(ratios))
    refused = [one for over in tallies for one in over.refused_seconds]
    print(
        f"\noverload: capacity {np.round(capacities).tolist()} crops/s; at 4 times as much {np.round(rates).tolist()}\n"
        f"  the first: {tallies[0]}\n  goodput {np.round(ratios, 2).tolist()}, median {goodput:.0%} of capacity, "
        f"refused in p50 {percentile(refused, 50):.1f} ms, p99 {percentile(refused, 99):.1f} ms, "
        f"/healthz p99 {percentile(health, 99):.1f} ms, recovered in {max(recoveries):.2f} s; "
        f"the clients took {np.median(busy):.2f} of {usable_cores()} cores"
    )
    for over in tallies:
        assert set(over.codes) <= {200, 429}
        assert not over.wrong, over.wrong[:3]
    assert goodput >= 0.85  # refusals cost the HTTP process CPU time that the models lack; docs/results/serving.md
    assert percentile(refused, 50) <= 20
    assert max(recoveries) <= 2


def test_a_client_with_huge_images_delays_only_itself(server: RealServer, pool: list[Crop]) -> None:
    """Every request of the attacker has 64 pictures of 25 megapixels, and the next follows at once."""
    buffer = io.BytesIO()
    Image.new("RGB", (5000, 5000), (200, 30, 30)).save(buffer, "PNG")  # 84 KB
    request = form([buffer.getvalue()] * 64)
    seconds, clients, pause = min(SECONDS, 30), 4, 0.02
    statuses: list[int] = []

    async def attack() -> None:
        connection = Connection(server.address)
        while True:
            statuses.append((await connection.send(request)).status)

    async def victim(number: int, tally: Tally, until: float) -> None:
        connection, turn = Connection(server.address), number
        while time.perf_counter() < until:
            crop = pool[turn % len(pool)]

            def check(results: list[dict], crop: Crop = crop) -> object:
                return not same(results[0], crop.reading) and results

            tally.add(await connection.send(post(crop.data)), 1, check)
            turn += clients
            await asyncio.sleep(pause)
        connection.close()

    async def victims() -> Tally:
        tally, start = Tally(), time.perf_counter()
        await asyncio.gather(*(victim(number, tally, start + seconds) for number in range(clients)))
        tally.elapsed = time.perf_counter() - start
        return tally

    async def scenario() -> tuple[Tally, Tally, list[float]]:
        alone = await victims()
        attacker = asyncio.create_task(attack())
        async with probe(server.address) as health:
            beside = await victims()
        attacker.cancel()
        return alone, beside, health

    alone, beside, health = asyncio.run(scenario())
    waited = server.metric("str_app_decode_queue_seconds_sum") / server.metric("str_app_decode_queue_seconds_count")
    print(
        f"\nhuge images: {clients} clients alone {alone}\n  beside the attacker {beside}\n"
        f"  /healthz p99 {percentile(health, 99):.1f} ms, an image waits {waited * 1e3:.0f} ms to be decoded\n"
        f"  the attacker got {statuses}"
    )
    assert set(beside.codes) == {200}
    assert not beside.wrong, beside.wrong[:3]
    assert percentile(beside.seconds, 99) <= 250
