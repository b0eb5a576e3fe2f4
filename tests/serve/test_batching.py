from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from str_app.inputs.images import load_image
from str_app.policy import SearchPolicy
from str_app.reader import Reader
from str_app.serve.inference import batcher
from str_app.serve.inference.batcher import Batcher
from str_app.serve.inference.jobs import CropJob, Share
from str_app.serve.operations.metrics import Metrics
from str_app.serve.settings import Settings
from str_app.views import to_canvas
from tests.serve.conftest import HeldReader, TwoWidths, encoded, entered, parts, png, queued, serving
from tests.str_app.fake_engine import FakeEngine, paint


@pytest.mark.parametrize("threads", [1, 2])
def test_each_thread_computes_every_bucket_at_every_width_before_ready(threads: int) -> None:
    async def scenario() -> None:
        async with serving(Settings(max_batch=8, threads=threads), reader):
            assert sorted(reader.sizes) == sorted([1, 1, 2, 3, 4, 6, 8] * 2 * threads)
            assert reader.searched == [1] * 2 * threads, "noise is doubted, and its search takes a tenfold of the time"

    reader = HeldReader(TwoWidths())
    reader.forget = lambda: None  # type: ignore[method-assign]
    asyncio.run(scenario())
    assert reader.shapes == {(width, size) for width in (64, 128) for size in (1, 2, 3, 4, 6, 8)}


@pytest.mark.parametrize(
    ("patience", "batches"),
    [
        (30.0, [["first"], ["a", "b", "c", "d"], ["averylongword", "anotherlongone"]]),
        (0.0, [["first"], ["averylongword", "anotherlongone"], ["a", "b", "c", "d"]]),
    ],
    ids=["the fullest first", "the oldest first when it has waited"],
)
def test_batches_are_of_one_width_and_none_starves(
    patience: float, batches: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "MAX_OVERTAKEN_S", patience)
    reader = HeldReader(TwoWidths())
    texts = ["averylongword", "a", "anotherlongone", "b", "c", "d"]

    async def scenario() -> None:
        async with serving(Settings(max_batch=4), reader) as (app, client):
            reader.gate.clear()
            requests = [asyncio.create_task(client.post("/v1/recognize", files=parts("first")))]
            await entered(reader)
            for place, text in enumerate(texts, 1):
                requests.append(asyncio.create_task(client.post("/v1/recognize", files=parts(text))))
                await queued(app, place)
            reader.gate.set()
            for answer, text in zip(await asyncio.gather(*requests), ["first", *texts], strict=True):
                assert answer.json()["results"][0]["text"] == text

    asyncio.run(scenario())
    assert reader.batches == batches


def test_an_idle_model_waits_for_more_only_if_told_to(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(max_wait_ms=1000, max_batch=2), reader) as (app, client):
            app.state.service.batcher._max_wait_s = 30.0  # far longer than a slow machine takes
            start = time.perf_counter()
            await asyncio.gather(*(client.post("/v1/recognize", files=parts(text)) for text in ("a", "b")))
            assert time.perf_counter() - start < 15, "a full batch waits for nothing"
        async with serving(Settings(max_wait_ms=50), reader) as (_, client):
            start = time.perf_counter()
            assert (await client.post("/v1/recognize", files=parts("alone"))).status_code == 200
            assert time.perf_counter() - start >= 0.05

    asyncio.run(scenario())
    assert reader.batches == [["alone"]]


def test_idle_server_computes_at_once_and_a_busy_one_batches_across_clients(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(max_batch=4), reader) as (app, client):
            reader.gate.clear()
            requests = [asyncio.create_task(client.post("/v1/recognize", files=parts("first")))]
            await entered(reader)
            for i in range(7):
                requests.append(asyncio.create_task(client.post("/v1/recognize", files=parts(f"c{i}"))))
            await queued(app, 7)
            reader.gate.set()
            answers = await asyncio.gather(*requests)
            assert all(answer.status_code == 200 for answer in answers)

    asyncio.run(scenario())
    assert reader.sizes == [1, 4, 3]


def test_same_crop_same_reading_whatever_it_was_batched_with(reader: HeldReader) -> None:
    async def one_client(client, number: int) -> list[dict]:
        results = []
        for turn in range(6):
            others = [f"x{number}{turn}{i}" for i in range((number + turn) % 5)]
            answer = await client.post("/v1/recognize", files=parts(*others, f"own{number}"))
            assert [result["text"] for result in answer.json()["results"]] == [*others, f"own{number}"]
            results.append(answer.json()["results"][-1])
        return results

    async def scenario() -> None:
        async with serving(Settings(), reader) as (_, client):
            for results in await asyncio.gather(*(one_client(client, number) for number in range(12))):
                assert all(result == results[0] for result in results)

    asyncio.run(scenario())
    assert max(reader.sizes) > 1, "nothing was ever batched, so nothing was tested"


def test_image_that_breaks_the_model_does_not_break_the_batch_it_is_in(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(max_batch=4), reader) as (app, client):
            reader.poison = "bad"
            reader.gate.clear()
            requests = [asyncio.create_task(client.post("/v1/recognize", files=parts("first")))]
            await entered(reader)
            for text in ("a", "bad", "b", "c"):
                requests.append(asyncio.create_task(client.post("/v1/recognize", files=parts(text))))
            await queued(app, 4)
            reader.gate.set()
            answers = await asyncio.gather(*requests)
            assert [answer.status_code for answer in answers] == [200, 200, 500, 200, 200]

    asyncio.run(scenario())


def test_late_reading_is_a_504_and_what_was_not_started_is_not_computed(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(deadline_s=0.1), reader) as (app, client):
            reader.gate.clear()
            first = asyncio.create_task(client.post("/v1/recognize", files=parts("running")))
            await entered(reader)
            late = await client.post("/v1/recognize", files=parts("late"))
            assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
            assert (await first).status_code == 504
            reader.gate.set()
            app.state.service.settings = app.state.service.settings.model_copy(update={"deadline_s": 30})
            assert (await client.post("/v1/recognize", files=parts("next"))).status_code == 200
            assert app.state.service.batcher._pending == 0

    asyncio.run(scenario())
    assert ["late"] not in reader.batches
    assert reader.batches[-1] == ["next"]


def test_a_request_that_would_not_be_read_in_time_is_refused(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(deadline_s=60.0, max_batch=2, threads=1), reader) as (app, client):
            waiting = app.state.service.batcher
            assert waiting._max_queue_s == 30.0
            reader.gate.clear()
            running = asyncio.create_task(client.post("/v1/recognize", files=parts("running")))
            await entered(reader)
            many = asyncio.create_task(client.post("/v1/recognize", files=parts(*["many"] * 7)))
            await queued(app, 7)
            (shape,) = {view.canvas.pixels.shape for view in waiting._queue}
            waiting._seconds[shape] = 12.0  # before a new request come two of the seven, which take turns with it
            word = asyncio.create_task(client.post("/v1/recognize", files=parts("word")))
            await queued(app, 8)
            refused = await client.post("/v1/recognize", files=parts("late"))
            assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
            assert "9 images are being read and more would not be read in time" in refused.json()["detail"]
            assert refused.headers["retry-after"] == "36"
            reader.gate.set()
            assert {(await request).status_code for request in (running, many, word)} == {200}
            assert waiting._seconds[shape] < 12.0, "measured while others were waiting"
            assert (await client.post("/v1/recognize", files=parts("next"))).status_code == 200

    asyncio.run(scenario())


def test_requests_are_read_again_when_none_waits_though_all_were_late(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(deadline_s=0.5, threads=1), reader) as (app, client):
            waiting = app.state.service.batcher
            reader.gate.clear()
            late = [asyncio.create_task(client.post("/v1/recognize", files=parts("running")))]
            await entered(reader)
            late += [asyncio.create_task(client.post("/v1/recognize", files=parts("late"))) for _ in range(3)]
            await queued(app, 3)
            waiting._max_queue_s = 0.02
            refused = await client.post("/v1/recognize", files=parts("refused"))
            assert refused.status_code == 429
            assert {(await request).status_code for request in late} == {504}
            reader.gate.set()
            await queued(app, 0)
            assert (await client.post("/v1/recognize", files=parts("next"))).status_code == 200

    asyncio.run(scenario())


def test_the_speed_of_an_idle_model_is_not_that_of_a_busy_one(reader: HeldReader) -> None:
    """Alone in its batch a view takes longer: by that speed, requests would be refused that can be read in time."""

    async def scenario() -> None:
        async with serving(Settings(), reader) as (app, client):
            before = dict(app.state.service.batcher._seconds)
            assert (await client.post("/v1/recognize", files=parts("alone"))).status_code == 200
            assert app.state.service.batcher._seconds == before

    asyncio.run(scenario())


def test_a_request_with_many_views_delays_only_itself(reader: HeldReader) -> None:
    line = encoded(Image.fromarray(paint("a" * 160)), "PNG")  # ten views each

    async def scenario() -> None:
        async with serving(Settings(), reader) as (app, client):
            reader.gate.clear()
            files = [("images", (str(index), line, "image/png")) for index in range(8)]
            lines = asyncio.create_task(client.post("/v1/recognize", files=files))
            await entered(reader)
            while len(app.state.service.batcher._queue) < 64:
                await asyncio.sleep(0)
            word = asyncio.create_task(client.post("/v1/recognize", files=parts("word")))
            while all(view.long for view in list(app.state.service.batcher._queue)):  # more lines may have come, too
                await asyncio.sleep(0)
            reader.gate.set()
            assert {(await lines).status_code, (await word).status_code} == {200}

    asyncio.run(scenario())
    position = next(index for index, texts in enumerate(reader.batches) if "word" in texts)
    assert position <= 2, "after the batch in progress, and one at most of those that were there before"
    assert len(reader.batches) > 8
    assert max(reader.sizes) <= batcher.MAX_LONG + 1, "others wait for the batch"


def test_new_requests_do_not_keep_one_with_many_crops_waiting(reader: HeldReader) -> None:
    async def scenario() -> int:
        async with serving(Settings(), reader) as (_, client):
            many = asyncio.create_task(client.post("/v1/recognize", files=parts(*["many"] * 64)))
            answered = 0

            async def ask() -> None:
                nonlocal answered
                while not many.done():
                    assert (await client.post("/v1/recognize", files=parts("word"))).status_code == 200
                    answered += 1

            await asyncio.gather(*(ask() for _ in range(40)))
            assert (await many).status_code == 200
            return answered

    assert asyncio.run(scenario()) <= 40 * 8


def test_variants_are_queued_like_other_views_and_change_nothing(reader: HeldReader) -> None:
    """What can hardly be read does not keep the model for longer than any batch."""
    reader.policy = SearchPolicy(tall=math.inf)
    crops = [paint("hard", 0.3), paint("easy"), paint("hazy", 0.4)]
    expected = Reader(FakeEngine(), policy=reader.policy).read_crops(crops)
    files = [("images", (str(place), encoded(Image.fromarray(crop), "PNG"))) for place, crop in enumerate(crops)]

    async def scenario() -> list[dict]:
        async with serving(Settings(max_batch=4), reader) as (_, client):
            return (await client.post("/v1/recognize", files=files)).json()["results"]

    results = asyncio.run(scenario())
    assert [result["text"] for result in results] == [reading.text for reading in expected]
    for result, reading in zip(results, expected, strict=True):
        assert result["confidence"] == pytest.approx(reading.confidence, abs=1e-4)
    assert sum(reader.sizes) == 3 + 2 * 9
    assert max(reader.sizes) <= 4


def test_variants_do_not_wait_behind_what_came_after_their_request() -> None:
    """Otherwise they miss the deadline when the queue is long."""
    reader = Reader(FakeEngine())
    view = to_canvas(paint("word"), reader.preprocessing)

    async def scenario() -> None:
        waiting = Batcher(lambda: reader, max_batch=4, max_pending=100, metrics=Metrics())
        shares = [Share() for _ in range(9)]
        for share in shares:
            job = CropJob(1, share)
            job.views = [view]
            waiting.submit(job, reader)
        waiting._turn = 7  # as after many batches
        late = CropJob(1, Share())
        late.views = [view]
        waiting.submit(late, reader)
        variants = CropJob(9, shares[0])
        variants.views = [replace(view, one_look=True)] * 9
        waiting.submit(variants, reader)
        order = [queued.result for queued in waiting._queue]
        assert max(map(order.index, variants.results)) < order.index(late.results[0])

    asyncio.run(scenario())


def test_variants_that_wait_have_no_variants() -> None:
    reader = Reader(FakeEngine())
    view = to_canvas(paint("word"), reader.preprocessing)

    async def scenario() -> float:
        waiting, share = Batcher(lambda: reader, max_batch=16, max_pending=100, metrics=Metrics()), Share()
        for views in ([view], [replace(view, one_look=True)] * 9):
            job = CropJob(len(views), share)
            job.views = views
            waiting.submit(job, reader)
        return waiting._ahead_s

    assert asyncio.run(scenario()) < 20 * batcher.FIRST_SECONDS, "the view, its nine variants, and perhaps nine more"


def test_work_of_a_client_that_left_is_not_computed(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(), reader) as (app, client):
            reader.gate.clear()
            first = asyncio.create_task(client.post("/v1/recognize", files=parts("running")))
            await entered(reader)
            left = asyncio.Event()
            gone = asyncio.create_task(app(*leaving_client(png("gone"), left)))
            await queued(app, 1)
            left.set()
            await gone
            reader.gate.set()
            assert (await first).status_code == 200
            assert (await client.post("/v1/recognize", files=parts("next"))).status_code == 200
            metrics = (await client.get("/metrics")).text
            assert 'str_app_requests_total{code="499",method="POST",route="/v1/recognize"} 1.0' in metrics
            assert 'str_app_images_total{outcome="abandoned"} 1.0' in metrics

    asyncio.run(scenario())
    assert reader.batches == [["running"], ["next"]]


@pytest.mark.slow
def test_released_weights_read_the_same_in_any_company() -> None:
    # Sums of float32 depend on how many are added at once: texts are the same, confidences to 1 in 100,000.
    reader = Reader.load("small")
    crops = [load_image(path) for path in sorted(Path("samples/images").iterdir())]
    alone = [reader.read_crops([crop])[0] for crop in crops]
    assert len(alone) >= 8
    for copies in (1, 3):
        for one, other in zip(alone * copies, reader.read_crops(crops * copies), strict=True):
            assert one.text == other.text
            assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


def leaving_client(body: bytes, left: asyncio.Event):
    """An ASGI request whose client closes the connection when `left` is set."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/recognize",
        "raw_path": b"/v1/recognize",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"image/png")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict:
        for message in messages:
            return message
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        pass

    return scope, receive, send


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/"])
def test_a_busy_model_holds_up_nothing_else(reader: HeldReader, path: str) -> None:
    async def scenario() -> None:
        async with serving(Settings(max_pending=1, max_images=1), reader) as (_, client):
            reader.gate.clear()
            busy = asyncio.create_task(client.post("/v1/recognize", files=parts("busy")))
            await entered(reader)
            assert (await client.get(path)).status_code == 200
            assert not busy.done()

    asyncio.run(scenario())


def test_two_batches_share_the_cores(reader: HeldReader) -> None:
    async def scenario() -> None:
        async with serving(Settings(threads=4), reader) as (_, client):
            reader.gate.clear()
            reader.shares.clear()
            first = asyncio.create_task(client.post("/v1/recognize", files=parts("a")))
            await entered(reader)
            second = asyncio.create_task(client.post("/v1/recognize", files=parts("b")))
            await entered(reader)  # while the first is still being read
            assert reader.shares == [2, 2]
            third = asyncio.create_task(client.post("/v1/recognize", files=parts("c")))
            reader.gate.set()
            answers = [(await task).json()["results"][0]["text"] for task in (first, second, third)]
            assert answers == ["a", "b", "c"]

    asyncio.run(scenario())
