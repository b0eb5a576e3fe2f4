"""The page at `/` in a real Chromium, against a real server with the released weights."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from str_app.inputs.regions import crops_of_regions
from tests.serve.slow.answers import marked, whole
from tests.serve.slow.browser import Page
from tests.serve.slow.real_server import RealServer
from tests.serve.slow.wall import SAMPLES, WORDS, photograph

pytestmark = pytest.mark.slow
Open = Callable[..., Page]


def test_pictures_of_words_are_read_at_once_as_the_api_reads_them(opened: Open, page_server: RealServer) -> None:
    page = opened()
    page.choose(*SAMPLES[:4])
    page.until_count(".reading .text", 4)
    answer = whole(page_server.url, *SAMPLES[:4], query="?attention=true")
    assert page.texts(".reading .text") == [result["text"] for result in answer]
    for place, result in enumerate(answer, 1):
        card = f".card:nth-child({place})"
        level = "high" if result["confidence"] >= 0.9 else "middle" if result["confidence"] >= 0.6 else "low"
        assert page.text(f"{card} .words strong").startswith(f"{level}, ")
        percents = [min(99, int(100 * c["confidence"] + 0.5)) for c in result["characters"]]
        shown = page.texts(f"{card} .character")[:-1]  # the last is the end
        assert [text[0] for text in shown] == list(result["text"])
        assert [int(text[1:].split("\xa0")[0].split(" %")[0]) for text in shown] == percents
    assert "100 %" not in page.text("#cards")
    page.choose(*SAMPLES[4:6])
    page.until_count(".reading .text", 6)
    assert page.text(".card .reading .text") == "Company"  # the latest first


def test_a_character_shows_where_the_network_looked(opened: Open, page_server: RealServer) -> None:
    page = opened()
    page.choose(SAMPLES[7])
    page.until_count(".reading .text", 1)
    (result,) = whole(page_server.url, SAMPLES[7], query="?attention=true")
    assert result["attention"]["covered"] < 0.8  # otherwise nothing tells whether the page heeds it
    maps = np.array(result["attention"]["maps"]).sum(axis=1)  # (characters + end, columns)
    columns = maps.shape[1] * result["attention"]["covered"]
    plain, no_bars = page.crop_shown()
    assert not no_bars.any()
    middles = []
    for place in range(len(result["text"])):
        page.js("document.querySelectorAll('.character')[arguments[0]].focus()", place)
        dimmed, bars = page.crop_shown()
        kept = (dimmed + 1).sum(axis=(0, 2)) / (plain + 1).sum(axis=(0, 2))
        column = len(kept) / columns
        expected = (maps[place].argmax() + 0.5) * column
        assert abs(float(kept.argmax()) - expected) < 1.5 * column  # one column of the map, and blur
        assert abs(float(bars.sum(axis=0).argmax()) - expected) < column
        assert kept.min() < 0.5 < kept.max()
        middles.append(expected)
    assert middles == sorted(middles)
    page.press("Escape")
    assert (page.crop_shown()[0] == plain).all()
    page.click(".characters li:nth-child(2) .character")
    page.js("document.activeElement.blur()")
    assert (page.crop_shown()[0] != plain).any()  # it stays after a click
    assert page.count("[aria-pressed=true]") == 1


def test_drop_and_paste(opened: Open, tmp_path: Path) -> None:
    page = opened()
    page.drop(SAMPLES[5], photograph(tmp_path / "wall.jpg"))
    page.until_count(".reading .text", 1)
    assert page.texts(".card h2 span:first-child") == ["06.jpg", "wall.jpg"]
    page.drop(tmp_path, SAMPLES[6])  # a folder is no picture, and keeps nobody from being read
    page.until(lambda: "cannot open" in page.text("#status"))
    assert page.texts(".reading .text") == ["Win", "SEALED"]
    png = io.BytesIO()
    Image.open(SAMPLES[4]).save(png, "PNG")
    page.js(
        """const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        window.copied = false;
        navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })])
          .then(() => { window.copied = true; })""",
        base64.b64encode(png.getvalue()).decode(),
    )
    page.until(lambda: page.js("return window.copied"))
    page.paste()
    page.until_count(".reading .text", 3)
    assert page.text(".reading .text") == "Company"


SCREENS = {
    "desktop": {},
    "narrow": {"size": (320, 640)},
    "dense": {"density": 2.5, "size": (900, 700)},
    "phone": {"size": (360, 740), "density": 3, "phone": True},
}


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
@pytest.mark.parametrize("screen", SCREENS)
def test_boxes_are_sent_in_pixels_of_the_photograph(
    opened: Open, page_server: RealServer, tmp_path: Path, screen: str, turned: bool
) -> None:
    photo = photograph(tmp_path / "wall.jpg", turned=turned)
    page = opened(**SCREENS[screen])
    page.choose(photo)
    page.until_count(".stage img", 1)
    assert "1600 × 1200 pixels" in page.text("[data-name=size]")
    for box in WORDS.values():
        page.mark(box)
    texts = page.read_marked(len(WORDS))
    (sent,) = page.js("return window.sent")
    assert sent["regions"] == pytest.approx(np.array(list(WORDS.values())), abs=page.screen_pixel())
    assert texts[:3] == ["SEALED", "Company", "Win"]
    assert texts == [result["text"] for result in marked(page_server.url, photo, sent["regions"])]


def test_moved_resized_slanted_and_deleted_boxes(opened: Open, tmp_path: Path) -> None:
    photo = photograph(tmp_path / "wall.jpg")
    page = opened()
    page.choose(photo)
    page.until_count(".stage img", 1)

    def drag(start: tuple[float, float], end: tuple[float, float]) -> None:
        page.drag(*page.in_window(start, end))

    page.mark((100, 100, 400, 200))
    drag((250, 150), (350, 250))  # by its middle
    drag((200, 200), (160, 180))  # by its top left
    drag((500, 300), (628, 304))
    page.mark((820, 200, 1152, 312))
    drag((1000, 250), (2000, 250))  # no further than the edge
    page.read_marked(2)
    off = 2 * page.screen_pixel()
    assert page.js("return sent.at(-1).regions") == [
        pytest.approx([160, 180, 628, 304], abs=off),
        pytest.approx([1600 - 332, 200, 1600, 312], abs=off),
    ]
    page.js("document.querySelectorAll('.box')[1].focus()")
    page.click("[data-name=delete]")
    page.until_count(".box", 1)
    assert page.count(".readings .text") == 1
    page.click(".check:has([data-name=free])")
    page.js("document.querySelector('.box').focus()")
    drag((160, 180), (100, 150))
    drag((628, 304), (900, 700))
    assert page.texts(".readings p") == ["Not read yet"]
    drag((628, 180), (100, 500))  # would turn the box inside out: goes no further than it may
    page.click("[data-name=read]")
    page.until_count(".readings .text", 1)
    (corners,) = page.js("return sent.at(-1).regions")
    assert corners[0] == pytest.approx([100, 150], abs=off)
    assert corners[2:] == [pytest.approx([900, 700], abs=off), pytest.approx([160, 304], abs=off)]
    # What is shown is what the server flattens.
    shown, _ = page.crop_shown()
    ((_, flat),) = crops_of_regions(np.asarray(Image.open(photo)), [corners])
    difference = np.abs(np.asarray(Image.fromarray(flat).resize(shown.shape[1::-1]), dtype=float) - shown)
    assert difference.mean() < 4.0


def test_a_box_that_was_moved_while_it_was_read_is_not_read(opened: Open, tmp_path: Path) -> None:
    page = opened()
    page.choose(photograph(tmp_path / "wall.jpg"))
    page.until_count(".stage img", 1)
    page.mark(WORDS[6])
    page.mark(WORDS[5])
    page.js(
        """const plain = window.fetch, gate = new Promise((go) => { window.go = go; });
        window.fetch = async (...given) => { await gate; return plain(...given); }"""
    )
    page.click("[data-name=read]")
    page.drag(*page.in_window((1000, 250), (1100, 350)))
    page.js("window.go()")
    page.until(lambda: page.texts(".readings .text") == ["SEALED"])
    assert page.texts(".readings li > p") == ["Not read yet"]


def test_by_keyboard_alone(opened: Open, tmp_path: Path) -> None:
    page = opened()
    page.choose(photograph(tmp_path / "wall.jpg"))
    page.until_count(".stage img", 1)
    focused = "const e = document.activeElement; return e.getAttribute('aria-label') ?? e.textContent"

    def tab_to(name: str, back: bool = False) -> None:
        page.until(lambda: page.press("Tab", shift=back) or page.js(focused).startswith(name))

    tab_to("Add a box")
    page.press("Enter")
    assert page.js(focused).startswith("Word 1, ")
    page.press("ArrowUp", times=200, held=True)  # against the edge
    page.press("ArrowLeft", times=200, held=True)
    page.press("ArrowLeft", times=200, shift=True, held=True)  # as small as can be
    page.press("ArrowUp", times=200, shift=True, held=True)
    page.press("Tab")
    assert page.js(focused) == "Top left corner of word 1"
    page.press("Tab")
    page.press("Tab")
    assert page.js(focused) == "Bottom right corner of word 1"
    step = 2 * page.screen_pixel()
    x0, y0, x1, y1 = WORDS[6]
    for key, times in (("ArrowRight", (x1 - x0) / step), ("ArrowDown", (y1 - y0) / step)):
        page.press(key, times=round(times))
    tab_to("Word 1", back=True)
    for key, times in (("ArrowRight", x0 / step), ("ArrowDown", y0 / step)):
        page.press(key, times=round(times))
    page.press("Enter")
    page.until_count(".readings .text", 1)
    (sent,) = page.js("return window.sent")
    assert sent["regions"] == [pytest.approx(WORDS[6], abs=12 * page.screen_pixel())]
    assert page.text(".readings .text") == "SEALED"
    assert page.js(focused).startswith("Word 1, read as SEALED, ")
    tab_to("S")
    assert "% from the left" in page.js(focused)
    page.press("Enter")
    assert page.count("[aria-pressed=true]") == 1
    tab_to("Word 1", back=True)
    page.press("Delete")
    page.until_count(".box", 0)
    assert page.js(focused) == "Add a box"
    tab_to("Remove")
    page.press("Enter")
    page.until_count(".card", 0)
    assert page.js("return document.activeElement.id") == "files"


def test_docs_page(opened: Open) -> None:
    page = opened()
    page.js("location.href = '/docs'")
    page.until(lambda: "/v1/regions" in page.texts("h2 code"))
    assert page.count("#schemas h3") > 5
    cells = page.texts("#operations td:first-child")
    assert (cells.count("rotate"), cells.count("characters")) == (2, 3), "query parameters of the reading endpoints"
    assert "application/json" in cells


@pytest.mark.parametrize("size", [(390, 844), (320, 640)])
def test_on_a_phone_the_status_covers_no_reading(opened: Open, size: tuple[int, int]) -> None:
    page = opened(size=size, density=2, phone=True)
    page.choose(*SAMPLES[:4])
    page.until_count(".reading .text", 4)
    page.js("document.querySelectorAll('.card')[1].scrollIntoView()")
    page.click("[data-name=text]")
    page.until(lambda: page.text("#status") == "Copied as text.")
    below = """const status = document.getElementById("status").getBoundingClientRect();
        const [x, y] = [status.left + status.width / 2, status.top + status.height / 2];
        return document.elementsFromPoint(x, y).filter((e) => e.closest(".card")).length"""
    assert page.js(below) == 0
    assert page.js("return document.getElementById('status').getBoundingClientRect().bottom <= window.innerHeight")
    assert page.js("return document.documentElement.scrollHeight <= window.innerHeight"), "only the content scrolls"


LOOKS = {"desktop": {"size": (1000, 1280)}, "phone": SCREENS["phone"], "narrow": SCREENS["narrow"]}


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The accessibility checker's source."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("no npm on the path to fetch axe-core with: apt-get install npm")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run([npm, "install", "--silent", "--no-save", "--prefix", folder, "axe-core@4"], check=True, timeout=120)
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("screen", LOOKS)
def test_looks(opened: Open, axe: str, tmp_path: Path, screen: str, dark: bool) -> None:
    pictures = Path(os.environ.get("PAGE_PICTURES", tmp_path))
    page = opened(**LOOKS[screen], dark=dark)
    page.choose(photograph(tmp_path / "wall.jpg"), SAMPLES[7])
    page.until_count(".reading .text", 1)
    page.until_count(".stage img", 1)
    for box in WORDS.values():
        page.mark(box)
    page.read_marked(4)
    page.js("document.querySelectorAll('.character')[2].click(); document.querySelector('.card').scrollIntoView()")
    page.picture(pictures / f"page-{screen}-{'dark' if dark else 'light'}.png")
    assert page.js("return document.documentElement.scrollWidth <= window.innerWidth")
    assert page.js("return document.querySelector('.camera').checkVisibility()") == page.phone
    paper = page.js("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper))) < 60) == dark
    small = """const targets = [...document.querySelectorAll("button, .button, .check, .choice label, .target")];
        const frames = targets.filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect());
        return frames.filter((frame) => Math.min(frame.width, frame.height) < 43.9).length"""
    assert page.js(small) == 0
    page.js(axe)
    page.js("axe.run().then((outcome) => { window.outcome = outcome; })")
    (violations,) = page.until(lambda: page.js("return window.outcome && [window.outcome.violations]"), 60)
    grave = [v for v in violations if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in grave] == []


def test_words_are_found_for_a_person_to_correct(opened: Open, tmp_path: Path) -> None:
    pytest.importorskip("rapidocr", reason="pip install 'str-app[photo]'")
    page = opened()
    page.choose(photograph(tmp_path / "wall.jpg"))
    page.until(lambda: page.js("return document.querySelector('.card [data-name=find]')?.offsetParent"))
    page.click("[data-name=find]")
    page.until(lambda: page.count(".reading .text") >= len(WORDS))
    assert {"Company", "Win", "THEY'RE"} <= set(page.texts(".reading .text"))
    assert page.count(".box") == page.count(".reading .text")
