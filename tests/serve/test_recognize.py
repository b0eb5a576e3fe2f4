from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from str_app.errors import ImageError
from str_app.inputs.images import load_image
from str_app.reader import Reader
from str_app.serve.http.uploads import from_base64
from str_app.serve.settings import Settings
from tests.serve.conftest import HeldReader, encoded, parts, png, warm_client
from tests.str_app.fake_engine import AS_PAINTED, FakeEngine, paint


def test_multipart_answers_in_the_order_sent(client: TestClient) -> None:
    answer = client.post("/v1/recognize", files=parts("one", "Two", "3%"))
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"] == "fake"
    assert [(r["image"], r["text"]) for r in body["results"]] == [("one", "one"), ("Two", "Two"), ("3%", "3%")]


def test_result_equals_the_offline_reader(client: TestClient) -> None:
    result = client.post("/v1/recognize", content=png("EXIT"), headers={"content-type": "image/png"}).json()["results"][
        0
    ]
    (reading,) = Reader(FakeEngine(), policy=AS_PAINTED).recognize([png("EXIT")])
    assert result == {"image": "body", **reading.as_dict()}


def test_json_answers_as_multipart_does(client: TestClient) -> None:
    data = [base64.b64encode(png(text)).decode() for text in ("one", "two", "three")]
    images = [{"name": "one", "data": data[0]}, {"data": data[1]}, {"data": "data:image/png;base64," + data[2]}]
    results = client.post("/v1/recognize", json={"images": images}).json()["results"]
    assert [(r["image"], r["text"]) for r in results] == [("one", "one"), ("images[1]", "two"), ("images[2]", "three")]
    assert results[0] == client.post("/v1/recognize", files=parts("one")).json()["results"][0]


BASE64 = {
    "standard": lambda data: base64.b64encode(data).decode(),
    "lines of Python's encodebytes": lambda data: base64.encodebytes(data).decode(),
    "lines of MIME": lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "URL-safe": lambda data: base64.urlsafe_b64encode(data).decode(),
    "no padding": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "data URL": lambda data: "data:image/png;base64," + base64.b64encode(data).decode(),
    "data URL in capitals": lambda data: "DATA:IMAGE/PNG;BASE64," + base64.b64encode(data).decode(),
    "data URL without padding": lambda data: "data:image/png;base64," + base64.b64encode(data).decode().rstrip("="),
}


@pytest.mark.parametrize("path", ["/v1/recognize", "/v2/models/fake/infer"])
@pytest.mark.parametrize("written", BASE64)
def test_base64_as_common_encoders_write_it(client: TestClient, path: str, written: str) -> None:
    data = BASE64[written](png("word"))
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [data]}
    response = client.post(path, json={"images": [{"data": data}], "inputs": [tensor]}).json()
    text = response["results"][0]["text"] if "results" in response else response["outputs"][0]["data"][0]
    assert text == "word"


@pytest.mark.parametrize(
    "data", ["a", "ab=c", "====", "abc*", "YWJj YWJ\x00", "aGk=aGk=", "\u00e9\u00e9\u00e9\u00e9", "data:,a"]
)
def test_other_text_is_not_base64(data: str) -> None:
    error = from_base64(data)
    assert isinstance(error, ImageError)
    assert error.code == "bad_base64"


def test_bad_base64_spoils_no_other(client: TestClient) -> None:
    images = [{"data": "no base64!"}, {"data": base64.b64encode(png("fine")).decode()}, {"data": "é"}]
    bad, fine, worse = client.post("/v1/recognize", json={"images": images}).json()["results"]
    assert bad["error"]["code"] == worse["error"]["code"] == "bad_base64"
    assert fine["text"] == "fine"


def test_a_name_that_cannot_be_written_is_replaced(client: TestClient) -> None:
    body = b'{"images": [{"name": "a\\ud800", "data": ""}]}'
    answer = client.post("/v1/recognize", content=body, headers={"content-type": "application/json"})
    assert answer.json()["results"][0]["image"] == "a?"


def test_first_frames_are_read_only_if_switched_on(reader: HeldReader) -> None:
    frames = [Image.fromarray(paint(text)).quantize() for text in ("one", "two")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    tiff = encoded(Image.fromarray(paint("one")), "TIFF", save_all=True, append_images=[Image.fromarray(paint("two"))])
    with warm_client(Settings(first_frames=True), reader) as client:
        for data in (gif, tiff):
            answer = client.post("/v1/recognize", content=data, headers={"content-type": "image/gif"})
            assert answer.json()["results"][0]["text"] == "one"


def test_aspect_limit_is_a_setting(reader: HeldReader) -> None:
    with warm_client(Settings(max_aspect=1.2), reader) as client:
        answer = client.post("/v1/recognize", files=parts("long"))
        assert answer.json()["results"][0]["error"]["code"] == "extreme_aspect"


def test_one_bad_image_spoils_no_other(client: TestClient) -> None:
    files = [*parts("left"), ("images", ("bad.png", b"not an image", "image/png")), *parts("right")]
    answer = client.post("/v1/recognize", files=files)
    assert answer.status_code == 200
    left, bad, right = answer.json()["results"]
    assert (left["text"], right["text"]) == ("left", "right")
    assert set(bad) == {"image", "error"}
    assert bad["image"] == "bad.png"
    assert bad["error"]["code"] == "not_an_image"
    assert bad["error"]["message"]


def png_bomb(side: int) -> bytes:
    return encoded(Image.new("1", (side, side)), "PNG")


NOISE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 1000, 3), np.uint8)), "PNG")
BAD = {
    "empty": (b"", "empty"),
    "text": (b"<html>", "not_an_image"),
    "truncated": (NOISE[: len(NOISE) // 2], "truncated"),
    "header only": (png()[:20], "truncated"),
    "gif": (encoded(Image.new("RGB", (40, 20)), "GIF"), "unsupported_format"),
    "tiff": (encoded(Image.new("RGB", (40, 20)), "TIFF"), "unsupported_format"),
    "bomb of 9000²": (png_bomb(9000), "too_many_pixels"),
    "bomb of 32000²": (png_bomb(32000), "too_many_pixels"),
    "1×5000": (encoded(Image.new("RGB", (1, 5000)), "PNG"), "extreme_aspect"),
    "1×1": (encoded(Image.new("RGB", (1, 1)), "PNG"), "too_small"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_image_is_named_and_never_a_server_error(client: TestClient, kind: str) -> None:
    data, code = BAD[kind]
    answer = client.post("/v1/recognize", content=data, headers={"content-type": "image/png"})
    assert answer.status_code == 200
    assert answer.json()["results"][0]["error"]["code"] == code


def rotated_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(paint("turn")).transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def sixteen_bits() -> bytes:
    grey = np.asarray(Image.fromarray(paint("deep")).convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


UNUSUAL = {
    "EXIF orientation": rotated_jpeg(),
    "16 bits": sixteen_bits(),
    "CMYK": encoded(Image.fromarray(paint("ink")).convert("CMYK"), "JPEG"),
    "palette": encoded(Image.fromarray(paint("few")).convert("P"), "PNG"),
    "black on transparency": encoded(Image.fromarray(np.dstack([paint("ab") * 0, paint("ab")[:, :, 0]])), "PNG"),
    "WebP": encoded(Image.fromarray(paint("web")), "WEBP", lossless=True),
    "BMP": encoded(Image.fromarray(paint("bmp")), "BMP"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_image_is_read_as_the_offline_reader_reads_it(client: TestClient, kind: str) -> None:
    offline = Reader(FakeEngine(), policy=AS_PAINTED).read_crops([load_image(UNUSUAL[kind])])[0]
    answer = client.post("/v1/recognize", content=UNUSUAL[kind], headers={"content-type": "image/png"})
    assert answer.json()["results"][0]["text"] == offline.text


def test_exif_orientation_is_applied(client: TestClient) -> None:
    answer = client.post("/v1/recognize", content=rotated_jpeg(), headers={"content-type": "image/png"})
    assert answer.json()["results"][0]["text"] == "turn"


@given(st.binary(max_size=300), st.integers(0, 400), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mangled_bytes_never_break_the_server(client: TestClient, junk: bytes, cut: int, prefix: bool) -> None:
    whole = png("fuzz")
    data = whole[:cut] + junk + (whole[cut:] if prefix else b"")
    answer = client.post("/v1/recognize", content=data, headers={"content-type": "image/jpeg"})
    assert answer.status_code == 200
    (result,) = answer.json()["results"]
    assert ("text" in result) != ("error" in result)


@given(st.binary(max_size=400))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mangled_multipart_never_breaks_the_server(client: TestClient, junk: bytes) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + junk + b"\r\n--x--\r\n"
    for data in (body, junk, body[: len(junk)]):
        answer = client.post("/v1/recognize", content=data, headers={"content-type": "multipart/form-data; boundary=x"})
        assert answer.status_code in (200, 400, 422)


def test_large_file_is_not_written_to_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert len(NOISE) > 2**20
    answer = client.post("/v1/recognize", files=[("images", ("big.png", io.BytesIO(NOISE), "image/png"))])
    assert "text" in answer.json()["results"][0]


def test_each_request_has_its_own_characters(client: TestClient) -> None:
    assert client.post("/v1/recognize", files=parts("1a2")).json()["results"][0]["text"] == "1a2"
    answer = client.post("/v1/recognize", params={"characters": "0-9"}, files=parts("1a2", "77"))
    texts = [result["text"] for result in answer.json()["results"]]
    assert texts[0].isdigit()
    assert texts[1] == "77"
    photo = encoded(Image.fromarray(np.concatenate([paint("b2"), paint("33")], axis=1)), "PNG")
    files = {"image": ("photo.png", photo, "image/png")}
    regions = client.post(
        "/v1/regions", params={"characters": "0-9"}, files=files, data={"regions": "[[0, 0, 24, 32], [24, 0, 48, 32]]"}
    ).json()["results"]
    assert set(regions[0]["text"]) <= set("0123456789")
    assert regions[1]["text"] == "33"


@pytest.mark.parametrize(("characters", "detail"), [("9-0", "runs backwards"), ("ä", "none of them"), ("", "empty")])
def test_an_invalid_list_of_characters(client: TestClient, characters: str, detail: str) -> None:
    answer = client.post("/v1/recognize", params={"characters": characters}, files=parts("one"))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert detail in answer.json()["detail"]


def test_the_longest_side_is_a_setting(reader: HeldReader) -> None:
    with warm_client(Settings(max_side=30), reader) as client:
        (result,) = client.post("/v1/recognize", files=parts("long")).json()["results"]
        assert result["error"]["code"] == "too_large_side"
