"""What the page copies: text, JSON, and commands that work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.serve.slow.answers import shell
from tests.serve.slow.browser import Page
from tests.serve.slow.real_server import RealServer
from tests.serve.slow.wall import SAMPLES, WORDS, photograph

pytestmark = pytest.mark.slow
Open = Callable[..., Page]


def same(copied: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Two answers, apart from what the sums of float32 may differ by."""
    pairs = list(zip(copied["results"], answer["results"], strict=True))
    assert all(abs(one.pop("confidence") - other.pop("confidence")) < 2e-4 for one, other in pairs)
    for one, other in pairs:
        for a, b in zip(one["characters"], other["characters"], strict=True):
            assert abs(a.pop("confidence") - b.pop("confidence")) < 2e-4
    return copied == answer


@pytest.mark.parametrize("rotate", [False, True])
def test_copied_text_json_and_curl_of_a_word(opened: Open, tmp_path: Path, rotate: bool) -> None:
    name = 'it\'s; a, "b" $c\\ ü.jpg'
    picture = tmp_path / name
    turned = Image.open(SAMPLES[5])
    (turned.transpose(Image.Transpose.ROTATE_90) if rotate else turned).save(picture, quality=95)
    page = opened()
    if rotate:
        page.click(".check:has(#rotate)")
    page.choose(picture)
    page.until_count(".reading .text", 1)
    assert ("read turned by 270°" in page.text(".words")) == rotate
    copied = {}
    for what, called in (("text", "text"), ("json", "JSON"), ("curl", "a curl command")):
        page.click(f"[data-name={what}]")
        page.until(lambda called=called: page.text("#status") == f"Copied as {called}.")
        copied[what] = page.clipboard()
    assert copied["text"] == "SEALED"
    answer = shell(copied["curl"], tmp_path)
    assert answer["results"][0]["text"] == "SEALED"
    assert answer["results"][0].get("rotation", 0) == (270 if rotate else 0)
    assert same(json.loads(copied["json"]), answer)


def test_copied_text_json_and_curl_of_marked_words(opened: Open, tmp_path: Path) -> None:
    photo = photograph(tmp_path / "wall.jpg")
    page = opened()
    page.choose(photo)
    page.until_count(".stage img", 1)
    for box in (*WORDS.values(), (10, 10, 60, 60)):
        page.mark(box)
    page.click(".check:has([data-name=free])")
    page.drag(*page.in_window(WORDS[9][:2], (800, 630)))  # selects the box
    page.drag(*page.in_window((800, 630), (790, 620)))
    page.read_marked(5)
    page.drag(*page.in_window((30, 30), (60, 60)))  # the fifth is changed after reading, and left out
    page.until_count(".readings .text", 4)
    shown = page.texts(".readings .text")
    assert shown[:3] == ["SEALED", "Company", "Win"]
    page.click("[data-name=text]")
    page.until(lambda: page.clipboard() == "\n".join(shown))
    page.click("[data-name=json]")
    copied = json.loads(page.until(lambda: (text := page.clipboard()).startswith("{") and text))
    page.click("[data-name=curl]")
    command = page.until(lambda: (text := page.clipboard()).startswith("curl ") and text)
    assert "[160,180,628,304]" in command
    assert "],[[79" in command  # a quadrilateral is four points
    assert same(copied, shell(command, tmp_path))


def test_copies_where_browsers_give_no_clipboard(opened: Open, page_server: RealServer) -> None:
    page = opened(url=f"http://page.test:{page_server.address[1]}")
    assert not page.js("return window.isSecureContext")
    page.choose(SAMPLES[5])
    page.until_count(".reading .text", 1)
    page.js("document.addEventListener('copy', () => { window.copied = document.activeElement.value })")
    page.click("[data-name=text]")
    page.until(lambda: page.text("#status") == "Copied as text.")
    assert page.js("return window.copied") == "SEALED"
