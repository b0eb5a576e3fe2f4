"""What the page says when something is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.serve.slow.answers import shell, whole
from tests.serve.slow.browser import Page
from tests.serve.slow.real_server import RealServer
from tests.serve.slow.wall import SAMPLES, TURNED, WORDS, photograph

pytestmark = pytest.mark.slow
Open = Callable[..., Page]


def test_keys_and_limits(driver: Any, tmp_path: Path) -> None:
    key = "0123456789abcdef"
    keys = tmp_path / "keys"
    keys.write_text(f"anybody {hashlib.sha256(key.encode()).hexdigest()}\n")
    photo = photograph(tmp_path / "wall.jpg")
    settings = {
        "STR_APP_API_KEYS_FILE": str(keys),
        "STR_APP_MAX_IMAGES": "2",
        "STR_APP_MAX_REGIONS": "2",
        "STR_APP_MAX_PIXELS": "1000000",
        "STR_APP_MAX_BODY_BYTES": str(photo.stat().st_size + 20_000),
    }
    with RealServer(**settings) as server:
        page = Page(driver, server.url, key=key)
        page.until(lambda: page.text("#model") == "Model: small.")
        page.choose(*SAMPLES[:5])  # more than a request may hold
        page.until_count(".reading .text", 5)
        answers = [whole(server.url, path, headers={"X-API-Key": key})[0]["text"] for path in SAMPLES[:5]]
        assert page.texts(".reading .text") == answers
        page.click("[data-name=curl]")
        command = page.until(lambda: (text := page.clipboard()).startswith("curl ") and text)
        assert key not in command
        assert shell(command, SAMPLES[0].parent, STR_APP_API_KEY=key)["results"][0]["text"] == answers[0]

        def failure(*boxes: tuple[float, float, float, float]) -> str:
            page.js("document.querySelector('#status').textContent = ''")
            for box in boxes:
                page.mark(box)
            page.click("[data-name=read]")
            page.until(lambda: page.text("#status") not in ("", "Reading …"))
            assert page.text(".card > .failure") == page.text("#status")
            return page.text("#status")

        page.choose(photo)
        page.until_count(".stage img", 1)
        assert failure(WORDS[6]) == "The photograph cannot be read: 1600×1200 is more than 1,000,000 pixels: shrink it."
        assert failure(WORDS[5], WORDS[7]) == "A request may have 2 regions; send several requests."
        page.click("[data-name=remove]")
        large = tmp_path / "large.bmp"
        Image.new("RGB", (900, 900)).save(large)
        page.choose(large)
        page.until_count(".stage img", 1)
        assert failure((100, 100, 400, 200)).startswith("The body is larger than ")
        assert page.foreign_requests() == []
        page.close()


def test_pictures_that_cannot_be_read(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "letter.jpg").write_text("not a picture")
    (tmp_path / "cut.jpg").write_bytes(SAMPLES[0].read_bytes()[:400])
    Image.new("RGB", (2, 2)).save(tmp_path / "dot.png")
    page = opened()
    page.choose(tmp_path / "letter.jpg", tmp_path / "cut.jpg", SAMPLES[5], tmp_path / "dot.png")
    page.until_count(".reading", 4)
    failures = page.texts(".reading .failure")
    assert len(failures) == 3
    for words, failure in zip(("not an image", "damaged", "too small"), failures, strict=True):
        assert words in failure
    assert page.texts(".reading .text") == ["SEALED"]
    assert page.text("#status") == "1 picture read: SEALED, 3 could not be read."
    assert page.js("return document.querySelector('[value=marks]').disabled")


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (401, '{"detail": "Send a key."}', "Send a key. Reload the page and give the key as the password."),
        (415, '{"detail": "Send multipart/form-data."}', "Send multipart/form-data."),
        (429, '{"detail": "Too much is being read."}', "Too much is being read."),
        (502, "<html>", "The server answered 502."),
    ],
)
def test_refusals_that_the_page_alone_cannot_provoke(opened: Open, status: int, body: str, shown: str) -> None:
    page = opened()
    page.js(
        """const [status, body] = arguments;
        const headers = { "Retry-After": "0.01" };
        window.asked = 0;
        window.fetch = async () => { asked += 1; return new Response(body, { status, headers }); }""",
        status,
        body,
    )
    page.choose(SAMPLES[0])
    assert page.until(lambda: page.text(".card > .failure")) == shown
    assert page.js("return window.asked") == (3 if status == 429 else 1)


def test_server_that_has_gone(driver: Any, tmp_path: Path) -> None:
    with RealServer() as server:
        page = Page(driver, server.url)
        page.choose(SAMPLES[0])
        page.until_count(".reading .text", 1)
    page.choose(SAMPLES[1])
    page.until(lambda: page.text(".card > .failure") == "The server cannot be reached.")
    assert page.texts(".reading .text") == ["BREAKFAST"]
    page.close()


def test_files_that_browsers_show_otherwise_are_not_marked(opened: Open, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = TURNED
    xmp = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="%d"/>' % TURNED
    picture = Image.new("RGB", (800, 600), (90, 120, 90))
    for name, options in (("turned.webp", {"exif": exif}), ("plain.webp", {}), ("exif.jpg", {"exif": exif})):
        picture.save(tmp_path / name, **options)
    picture.save(tmp_path / "xmp.jpg")
    for name in ("exif.jpg", "xmp.jpg"):  # phones write both
        jpeg = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(jpeg[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + jpeg[2:])
    page = opened()
    for readings, name in enumerate(("turned.webp", "xmp.jpg"), 1):
        page.choose(tmp_path / name)
        page.until_count(".reading", readings)
        sizes = page.texts("[data-name=size]")
        assert len(sizes) == readings
        assert all("turned by metadata that browsers ignore" in size for size in sizes)
        assert page.js("return [...document.querySelectorAll('.card [value=marks]')].every((each) => each.disabled)")
    for pictures, name in enumerate(("plain.webp", "exif.jpg"), 1):
        page.choose(tmp_path / name)
        page.until_count(".stage img", pictures)
