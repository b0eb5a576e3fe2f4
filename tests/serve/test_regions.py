"""Words marked in a photograph, turned words, and where the network looked."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from str_app.reader import Reader
from str_app.serve.http.uploads import parse_json
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, encoded, wait_until_ready, warm_client
from tests.str_app.fake_engine import AS_PAINTED, FakeEngine, paint

LEFT, RIGHT = [10, 20, 50, 52], [[100, 60], [148, 60], [148, 92], [100, 92]]


def picture() -> np.ndarray:
    canvas = np.full((120, 200, 3), 128, np.uint8)
    canvas[20:52, 10:50] = paint("left")
    canvas[60:92, 100:148] = paint("right")
    return canvas


PHOTO = encoded(Image.fromarray(picture()), "PNG")


def by_form(client: TestClient, regions: object, query: str = "", photo: bytes = PHOTO):
    files = {"image": ("photo.png", photo, "image/png")}
    return client.post(f"/v1/regions{query}", files=files, data={"regions": json.dumps(regions)})


def by_json(client: TestClient, regions: object, query: str = "", photo: bytes = PHOTO):
    body = {"image": {"data": base64.b64encode(photo).decode()}, "regions": regions}
    return client.post(f"/v1/regions{query}", json=body)


@pytest.mark.parametrize("send", [by_form, by_json])
def test_regions_are_read_in_order_as_offline(client: TestClient, send) -> None:
    answer = send(client, [RIGHT, LEFT])
    assert answer.status_code == 200
    results = answer.json()["results"]
    readings = Reader(FakeEngine(), policy=AS_PAINTED).recognize_regions(PHOTO, [RIGHT, LEFT])
    assert [result["text"] for result in results] == ["right", "left"]
    assert [{k: v for k, v in result.items() if k != "region"} for result in results] == [
        reading.as_dict() for reading in readings
    ]
    assert results[0]["region"] == RIGHT
    assert results[1]["region"] == [[10, 20], [50, 20], [50, 52], [10, 52]]
    assert results[1]["characters"][0]["box"] == [10.0, 20.0, 18.0, 52.0]


def test_an_integer_of_thousands_of_digits_becomes_a_float(client: TestClient) -> None:
    """Python takes a tenth of a millisecond for one of 4,200, holding its lock, and refuses longer ones."""
    (huge,) = parse_json(b"[" + b"9" * 4200 + b"]")
    assert huge == np.inf
    assert parse_json(b"[12, -7, 9223372036854775807]") == [12, -7, 2**63 - 1]
    fields = {"regions": f"[[0, 0, 5, {'9' * 5000}], {LEFT}]"}
    answer = client.post("/v1/regions", files={"image": ("photo.png", PHOTO, "image/png")}, data=fields)
    bad, left = answer.json()["results"]
    assert (bad["error"]["code"], left["text"]) == ("bad_region", "left")


def test_a_bad_region_spoils_no_other(client: TestClient) -> None:
    left, bad, right = by_json(client, [LEFT, [5000, 0, 6000, 9], RIGHT]).json()["results"]
    assert (left["text"], right["text"]) == ("left", "right")
    assert bad["error"]["code"] == "bad_region"


@pytest.mark.parametrize("bad", [[True, 0, 9, 9], ["0", "0", "9", "9"], 7, "0,0,9,9", None])
def test_a_region_of_other_things_than_numbers(client: TestClient, bad: object) -> None:
    wrong, right = by_json(client, [bad, RIGHT]).json()["results"]
    assert wrong["error"] == {
        "code": "bad_region",
        "message": "region 1 of 2: give 4 numbers, 8 numbers or 4 pairs of numbers",
    }
    assert right["text"] == "right"


def test_a_field_that_is_no_json_is_named(client: TestClient) -> None:
    answer = client.post("/v1/regions", files={"image": ("p.png", b"x")}, data={"regions": "x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")
    assert answer.json()["detail"] == "The field 'regions' is not valid JSON."


def test_regions_are_sent_once(client: TestClient) -> None:
    files = {"image": ("photo.png", PHOTO, "image/png")}
    answer = client.post("/v1/regions", files=files, data={"regions": [json.dumps([LEFT]), json.dumps([RIGHT])]})
    assert (answer.status_code, answer.json()["code"]) == (422, "no_regions")
    assert answer.json()["detail"] == "Send 'regions' once, with all regions in one JSON array."


def test_a_form_may_be_as_large_as_json(client: TestClient) -> None:
    files = {"image": ("photo.png", PHOTO, "image/png")}
    blank = " " * 300_000
    others = {f"ignored{number}": "x" for number in range(20)}
    answer = client.post("/v1/regions", files=files, data=others | {"regions": json.dumps([LEFT]) + blank})
    assert answer.json()["results"][0]["text"] == "left"


def test_too_many_regions(client: TestClient) -> None:
    answer = by_json(client, [LEFT] * 129)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_regions")


def test_no_more_regions_than_fit_the_queue(reader: HeldReader) -> None:
    with warm_client(Settings(max_pending=2, max_images=2), reader) as client:
        answer = by_json(client, [LEFT] * 3)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_regions")
        assert answer.json()["detail"] == "A request may have 2 regions; send several requests."


def test_readings_count_against_the_queue(reader: HeldReader) -> None:
    with warm_client(Settings(max_pending=8, max_images=8), reader) as client:
        wait_until_ready(client.app)
        assert by_json(client, [LEFT] * 8).status_code == 200
        assert by_json(client, [LEFT] * 2, "?rotate=true").status_code == 200
        answer = by_json(client, [LEFT] * 3, "?rotate=true")
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_images")


def test_a_photograph_that_cannot_be_read_is_a_problem(client: TestClient) -> None:
    answer = by_form(client, [LEFT], photo=b"<html>")
    assert (answer.status_code, answer.json()["code"]) == (422, "not_an_image")


def test_two_photographs_are_too_many(client: TestClient) -> None:
    files = [("image", ("a.png", PHOTO, "image/png"))] * 2
    answer = client.post("/v1/regions", files=files, data={"regions": json.dumps([LEFT])})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_images")


def turned(text: str, turns: int) -> bytes:
    chances = [0.99] * len(text)
    chances[len(text) // 2] = 0.6
    return encoded(Image.fromarray(np.ascontiguousarray(np.rot90(paint(text, chances, scale=2), -turns))), "PNG")


def test_rotate_reads_turned_words(client: TestClient) -> None:
    files = [("images", (f"{turns}.png", turned("EXIT", turns), "image/png")) for turns in range(4)]
    results = client.post("/v1/recognize?rotate=true", files=files).json()["results"]
    assert [result["text"] for result in results] == ["EXIT"] * 4
    assert [result.get("rotation", 0) for result in results] == [0, 90, 180, 270]
    offline = Reader(FakeEngine(), policy=AS_PAINTED).recognize(
        [turned("EXIT", turns) for turns in range(4)], rotate=True
    )
    assert [{k: v for k, v in result.items() if k != "image"} for result in results] == [
        reading.as_dict() for reading in offline
    ]


def test_tall_crops_are_read_on_their_sides_without_being_asked_to(client: TestClient, reader: HeldReader) -> None:
    reader.policy = AS_PAINTED
    files = [("images", (f"{turns}.png", turned("ENTRANCE", turns), "image/png")) for turns in range(4)]
    results = client.post("/v1/recognize", files=files).json()["results"]
    assert [(result["text"], result.get("rotation", 0)) for result in results[::3]] == [
        ("ENTRANCE", 0),
        ("ENTRANCE", 270),
    ]
    assert [(result["text"], result.get("rotation", 0)) for result in results[1:2]] == [("ENTRANCE", 90)]
    assert results[2]["text"] != "ENTRANCE", "upside down is for rotate"


def test_attention_is_sent_when_asked_for(client: TestClient) -> None:
    image = {"data": base64.b64encode(encoded(Image.fromarray(paint("ab")), "PNG")).decode()}
    (plain,) = client.post("/v1/recognize", json={"images": [image]}).json()["results"]
    assert "attention" not in plain
    (seen,) = client.post("/v1/recognize?attention=true", json={"images": [image]}).json()["results"]
    assert seen["attention"]["covered"] == 24 / 128
    assert [np.argmax(rows[0]) for rows in seen["attention"]["maps"]] == [0, 1, 2]
