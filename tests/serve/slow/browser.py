"""Chromium on the page at `/`, driven as a person would: real mouse, finger, keys, clipboard and files."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.serve.slow.wall import PHOTO_SIZE

T = TypeVar("T")
Pixels = npt.NDArray[np.float64]
Point = tuple[float, float]
KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
    "Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "Delete": 46, "v": 86,
}  # fmt: skip
TEXTS = {"Enter": "\r", "Space": " "}
STRIP = 36  # of picture.js
# Notes the forms that the page sends.
WATCH = """
window.sent = [];
const plain = window.fetch;
window.fetch = (url, options) => {
  if (options?.body) {
    const names = options.body.getAll("images").map((file) => file.name);
    window.sent.push({ url: String(url), names, regions: JSON.parse(options.body.get("regions")) });
  }
  return plain(url, options);
};
"""


@contextmanager
def chromium(*options: str) -> Iterator[Any]:
    """A driver of Debian's Chromium, or of another one on the path; the test is skipped where there is none."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if binary is None:
        pytest.skip("no Chromium on the path: apt-get install chromium chromium-driver")
    from selenium import webdriver

    driver_path = shutil.which("chromedriver")
    assert driver_path, "Chromium without its driver: apt-get install chromium-driver"
    asked = webdriver.ChromeOptions()
    asked.binary_location = binary
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    for option in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", *sandbox, *options):
        asked.add_argument(option)
    asked.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=asked, service=webdriver.ChromeService(driver_path))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The page, open in a tab of its own.

    Args:
        driver: of `chromium`.
        url: of the server.
        size: of the window, in CSS pixels.
        density: the screen's pixels per CSS pixel.
        phone: a touch screen.
        dark: the colour scheme asked for.
        key: one of the server's, if it wants one.
    """

    def __init__(
        self,
        driver: Any,
        url: str,
        size: tuple[int, int] = (1100, 900),
        density: float = 1,
        phone: bool = False,
        dark: bool = False,
        key: str = "",
    ) -> None:
        self._driver = driver
        self.url = url
        self._entered = f"{url.replace('//', f'//anybody:{key}@') if key else url}/"
        self.phone = phone
        driver.switch_to.new_window("tab")
        driver.get_log("browser")
        driver.get_log("performance")
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": density, "mobile": phone}
        self.cdp("Emulation.setDeviceMetricsOverride", **screen)
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])
        self.cdp("Emulation.setFocusEmulationEnabled", enabled=True)
        self.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        driver.get(self._entered)
        if not key:
            self.until(lambda: self.text("#model"))

    def close(self) -> None:
        self._driver.close()
        self._driver.switch_to.window(self._driver.window_handles[0])

    def cdp(self, command: str, **arguments: Any) -> Any:
        return self._driver.execute_cdp_cmd(command, arguments)

    def js(self, script: str, *arguments: Any) -> Any:
        return self._driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], T], seconds: float = 20) -> T:
        give_up = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < give_up, f"status: {self.text('#status')!r}"
            time.sleep(0.02)
        return value

    def text(self, selector: str) -> str:
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def texts(self, selector: str) -> list[str]:
        return self.js("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def count(self, selector: str) -> int:
        return len(self.texts(selector))

    def until_count(self, selector: str, count: int) -> None:
        self.until(lambda: self.count(selector) == count)

    def choose(self, *paths: Path) -> None:
        self._driver.find_element("id", "files").send_keys("\n".join(str(path.resolve()) for path in paths))

    def click(self, selector: str) -> None:
        next(e for e in self._driver.find_elements("css selector", selector) if e.is_displayed()).click()

    def drop(self, *paths: Path) -> None:
        """From outside the browser."""
        data = {"items": [], "files": [str(path.resolve()) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.cdp("Input.dispatchDragEvent", type=kind, x=300, y=200, data=data)

    def press(self, key: str, times: int = 1, shift: bool = False, held: bool = False) -> None:
        modifiers = {"modifiers": 8} if shift else {}
        code = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": KEYS[key], **modifiers}
        for i in range(times):
            text = {"text": TEXTS[key]} if key in TEXTS else {}
            self.cdp("Input.dispatchKeyEvent", type="keyDown", **code, **text, autoRepeat=held and i > 0)
            if not held:
                self.cdp("Input.dispatchKeyEvent", type="keyUp", **code)
        if held:
            self.cdp("Input.dispatchKeyEvent", type="keyUp", **code)

    def paste(self) -> None:
        code = {"key": "v", "code": "KeyV", "windowsVirtualKeyCode": KEYS["v"], "modifiers": 2}
        self.cdp("Input.dispatchKeyEvent", type="keyDown", **code, commands=["paste"])
        self.cdp("Input.dispatchKeyEvent", type="keyUp", **code)

    def clipboard(self) -> str:
        return self._driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")

    def drag(self, start: Point, end: Point) -> None:
        """With the mouse, or with a finger on a phone; in pixels of the window."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        if self.phone:
            steps: Sequence[tuple[str, Point | None]]
            steps = (("touchStart", start), ("touchMove", middle), ("touchMove", end), ("touchEnd", None))
            for kind, point in steps:
                touching = [{"x": point[0], "y": point[1]}] if point else []
                self.cdp("Input.dispatchTouchEvent", type=kind, touchPoints=touching)
        else:
            for kind, (x, y) in (
                ("Moved", start),
                ("Pressed", start),
                ("Moved", middle),
                ("Moved", end),
                ("Released", end),
            ):
                held = {"button": "left", "clickCount": 1}
                self.cdp("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **held)

    def in_window(self, *points: Point) -> list[Point]:
        """Where pixels of the marked photograph stand; scrolls it into view."""
        script = """const image = document.querySelector(".stage img"); image.scrollIntoView({ block: "center" });
            const frame = image.getBoundingClientRect(); return [frame.left, frame.top, frame.width, frame.height]"""
        left, top, width, height = self.js(script)
        return [(left + x * width / PHOTO_SIZE[0], top + y * height / PHOTO_SIZE[1]) for x, y in points]

    def screen_pixel(self) -> float:
        """How many of the photograph's pixels one of the window's covers."""
        return PHOTO_SIZE[0] / self.js("return document.querySelector('.stage img').getBoundingClientRect().width")

    def mark(self, box: tuple[float, float, float, float]) -> None:
        """Draws a box, in pixels of the photograph."""
        before = self.count(".box")
        start, end = self.in_window(box[:2], box[2:])
        self.drag(start, end)
        self.until_count(".box", before + 1)

    def read_marked(self, words: int) -> list[str]:
        """What that many marked words are read as."""
        self.click(".card [data-name=read]")
        self.until_count(".card:has(.box) .readings .text", words)
        return self.texts(".card:has(.box) .readings .text")

    def crop_shown(self) -> tuple[Pixels, Pixels]:
        """The first reading's crop, RGB, and the strip below it, its opacity."""
        encoded = self.js("return document.querySelector('.picture canvas').toDataURL()").split(",")[1]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA"), dtype=float)
        return pixels[:-STRIP, :, :3], pixels[-STRIP:, :, 3]

    def picture(self, path: Path) -> None:
        self._driver.save_screenshot(str(path))

    def foreign_requests(self) -> list[str]:
        """Addresses outside the server that were asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert any(url.startswith("http") for url in asked)
        own = (self.url, self._entered, "blob:" + self.url, "data:", "chrome:")
        return [url for url in asked if not url.startswith(own)]

    def complaints(self) -> list[str]:
        """What the console has at the level of a warning or above."""
        return [e["message"] for e in self._driver.get_log("browser") if e["level"] in ("WARNING", "SEVERE")]
