"""Whole photographs: the same as offline, in batches shared with crops, within the service's limits."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from str_app.errors import StrAppError
from str_app.photos import load
from str_app.photos.detector import Detection
from str_app.photos.photo_reader import PhotoPipeline, PhotoPolicy, PhotoReader
from str_app.reader import Reader
from str_app.serve.http.app import create_app
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, encoded, png, warm_client
from tests.str_app.fake_engine import AS_PAINTED, FakeEngine
from tests.str_app.photos.painted_photo import KnownPlaces, photo_of

PICTURE, QUADS = photo_of({(20, 10): "Mind", (80, 10): "the", (130, 10): "gap"})
PHOTO = encoded(Image.fromarray(PICTURE), "PNG")
PIPELINE = PhotoPipeline(KnownPlaces(QUADS), policy=PhotoPolicy(room=0.0))


@pytest.fixture
def client(reader: HeldReader) -> Iterator[TestClient]:
    with warm_client(Settings(), reader, PIPELINE) as client:
        yield client


def as_form(client: TestClient, photo: bytes):
    return client.post("/v1/photos", files={"image": ("photo.png", photo, "image/png")})


def as_json(client: TestClient, photo: bytes):
    return client.post("/v1/photos", json={"image": {"data": base64.b64encode(photo).decode()}})


def as_body(client: TestClient, photo: bytes):
    return client.post("/v1/photos", content=photo, headers={"content-type": "image/png"})


@pytest.mark.parametrize("send", [as_form, as_json, as_body])
def test_a_photograph_is_read_as_offline(client: TestClient, send) -> None:
    answer = send(client, PHOTO)
    assert answer.status_code == 200
    offline = PhotoReader(Reader(FakeEngine(), policy=AS_PAINTED), PIPELINE).read(PHOTO)
    assert answer.json() == {"model": "fake", "detector": "known", **offline.as_dict()}
    assert answer.json()["lines"][0]["text"] == "Mind the gap"
    assert "inference" in answer.headers["server-timing"]


def test_words_are_read_in_one_batch(client: TestClient, reader: HeldReader) -> None:
    as_form(client, PHOTO)
    assert reader.batches == [["Mind", "the", "gap"]]


def test_many_words_take_turns_with_other_requests(reader: HeldReader) -> None:
    places = {(10 + 50 * column, 10 + 44 * row): f"w{row:02}{column:02}" for row in range(10) for column in range(20)}
    picture, quads = photo_of(places, (460, 1020))
    with warm_client(
        Settings(max_pending=64), reader, PhotoPipeline(KnownPlaces(quads), policy=PhotoPolicy(room=0.0))
    ) as client:
        answer = as_form(client, encoded(Image.fromarray(picture), "PNG"))
        assert [word["text"] for word in answer.json()["words"]] == list(places.values())
        assert client.app.state.service.batcher._pending == 0


def test_a_page_too_long_for_the_deadline_says_how_far_it_came(reader: HeldReader) -> None:
    places = {(10 + 50 * column, 10 + 44 * row): f"w{row}{column:02}" for row in range(5) for column in range(20)}
    picture, quads = photo_of(places, (240, 1020))
    pipeline = PhotoPipeline(KnownPlaces(quads), policy=PhotoPolicy(room=0.0))
    with warm_client(Settings(deadline_s=0.5), reader, pipeline) as client:
        reader.gate.clear()
        late = as_form(client, encoded(Image.fromarray(picture), "PNG"))
        reader.gate.set()
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert late.json()["detail"].startswith("0 of the photograph's 100 words were read within 0.5 s. Send parts of")
    assert "`str-app read`" in late.json()["detail"]


def test_no_words(reader: HeldReader) -> None:
    with warm_client(Settings(), reader, PhotoPipeline(KnownPlaces([]))) as client:
        answer = as_form(client, PHOTO).json()
    assert (answer["lines"], answer["words"]) == ([], [])
    assert (answer["width"], answer["height"]) == (640, 240)


def test_without_a_detector(reader: HeldReader) -> None:
    with warm_client(Settings(detector="none"), reader) as client:
        answer = as_form(client, PHOTO)
        assert answer.status_code == 501
        assert answer.json()["code"] == "no_detector"
        assert "start it with another detector than none" in answer.json()["detail"]
        assert client.get("/v1/models").json()["detector"] is None


def test_the_detector_is_loaded_at_the_start_and_not_before(
    reader: HeldReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise StrAppError("the detector is damaged")

    monkeypatch.setattr(load, "load_pipeline", broken)
    app = create_app(Settings(detector="pp-ocrv6-small"), lambda: reader)
    assert "/v1/photos" in app.openapi()["paths"]
    with pytest.raises(StrAppError, match="the detector is damaged"), TestClient(app):
        pass


def test_the_detector_is_named(client: TestClient) -> None:
    assert client.get("/v1/models").json()["detector"] == "known"


@pytest.mark.parametrize(
    ("photo", "code"), [(b"", "empty"), (PHOTO[: len(PHOTO) // 2], "truncated"), (b"text", "not_an_image")]
)
def test_a_photograph_that_cannot_be_decoded(client: TestClient, photo: bytes, code: str) -> None:
    answer = as_form(client, photo)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_words_and_photographs_that_cannot_be_decoded_are_counted(client: TestClient) -> None:
    as_form(client, PHOTO)
    as_form(client, b"text")
    metrics = client.get("/metrics").text
    assert 'str_app_images_total{outcome="read"} 3.0' in metrics
    assert 'str_app_images_total{outcome="not_an_image"} 1.0' in metrics


def test_limits_of_pixels(reader: HeldReader) -> None:
    with warm_client(Settings(max_pixels=10_000), reader, PIPELINE) as client:
        assert as_form(client, PHOTO).json()["code"] == "too_many_pixels"


def test_two_photographs_are_refused(client: TestClient) -> None:
    files = [("image", ("a.png", PHOTO, "image/png")), ("image", ("b.png", PHOTO, "image/png"))]
    assert client.post("/v1/photos", files=files).status_code == 413


def test_allowed_characters(client: TestClient) -> None:
    answer = client.post("/v1/photos?characters=a-z", files={"image": ("p.png", PHOTO, "image/png")}).json()
    first, *others = [word["text"] for word in answer["words"]]
    assert others == ["the", "gap"]
    assert first.islower()


def test_a_failing_model_is_an_error_and_the_next_photograph_is_read(client: TestClient, reader: HeldReader) -> None:
    reader.poison = "gap"
    assert as_form(client, PHOTO).status_code == 500
    reader.poison = ""
    assert as_form(client, PHOTO).status_code == 200
    assert client.app.state.service.batcher._pending == 0


def test_crops_beside_photographs(client: TestClient) -> None:
    for _ in range(3):
        as_form(client, PHOTO)
        answer = client.post("/v1/recognize", files={"images": ("w.png", png("word"), "image/png")})
        assert answer.json()["results"][0]["text"] == "word"
    assert np.isfinite(client.app.state.service.batcher._ahead_s)


class HeldDetector(KnownPlaces):
    """Finds words only while its gate is open."""

    def __init__(self) -> None:
        super().__init__(QUADS)
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def find(self, photo: np.ndarray) -> list[Detection]:
        self.entered.release()
        assert self.gate.wait(30), "the test never opened the gate"
        return super().find(photo)


def test_crops_do_not_wait_for_detectors(reader: HeldReader) -> None:
    detector = HeldDetector()
    with (
        warm_client(Settings(decode_threads=2), reader, PhotoPipeline(detector)) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        photos = [threads.submit(as_form, client, PHOTO) for _ in range(3)]
        try:
            assert detector.entered.acquire(timeout=30)
            crop = threads.submit(client.post, "/v1/recognize", files={"images": ("w.png", png("word"), "image/png")})
            assert crop.result(timeout=8).json()["results"][0]["text"] == "word"
        finally:
            detector.gate.set()
        assert {photo.result().status_code for photo in photos} == {200}


def test_photographs_leave_room_for_crops(reader: HeldReader) -> None:
    detector = HeldDetector()
    with (
        warm_client(Settings(max_pending=128, deadline_s=30), reader, PhotoPipeline(detector)) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        first = threads.submit(as_form, client, PHOTO)
        try:
            assert detector.entered.acquire(timeout=30)
            refused = as_form(client, PHOTO)
            assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
            assert refused.headers["retry-after"] == "1"
            crop = client.post("/v1/recognize", files={"images": ("w.png", png("word"), "image/png")})
            assert crop.status_code == 200
        finally:
            detector.gate.set()
        assert first.result().status_code == 200
        assert as_form(client, PHOTO).status_code == 200


def test_a_failing_detector_is_an_error_and_leaves_nothing_pending(reader: HeldReader) -> None:
    class Failing(KnownPlaces):
        def find(self, photo: np.ndarray) -> list[Detection]:
            raise RuntimeError("the detector broke")

    with warm_client(Settings(), reader, PhotoPipeline(Failing([]))) as client:
        assert as_form(client, PHOTO).status_code == 500
        service = client.app.state.service
        assert (service.batcher._pending, service.photos_pending, service.upload_memory.reserved) == (0, 0, 0)


def test_a_full_queue_refuses_photographs_before_routing(client: TestClient) -> None:
    batcher = client.app.state.service.batcher
    batcher._pending = batcher._max_pending
    answer = client.post("/v1/photos?nonsense=1", content=PHOTO)
    assert answer.status_code == 429
