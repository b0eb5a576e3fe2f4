"""What the project does, in one minute: read the samples, draw where the network looked, serve and POST them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from str_app.reading import Reading

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SAMPLES = ROOT / "samples"
OUTPUT = ROOT / "demo_output"
STARTUP_SECONDS = 90
CROP_HEIGHT = 64
CROP_WIDTH = 256
FONT = cv2.FONT_HERSHEY_SIMPLEX
Pixels = npt.NDArray[np.uint8]


def main() -> None:
    from str_app.inputs.images import load_image
    from str_app.reader import Reader

    rows = [line.split("\t", 1) for line in (SAMPLES / "labels.tsv").read_text(encoding="utf-8").splitlines()]
    paths, labels = [SAMPLES / path for path, _ in rows], [text for _, text in rows]

    print("== Reader: the samples with the shipped weights")
    reader = Reader.load("small")
    crops = [load_image(path) for path in paths]
    readings = reader.recognize(crops, attention=True)
    for path, label, reading in zip(paths, labels, readings, strict=True):
        mark = "" if reading.text == label else f"   (is {label})"
        print(f"{path.name:14} {reading.text:18} {reading.confidence:.3f}{mark}")

    OUTPUT.mkdir(exist_ok=True)
    picture = OUTPUT / "readings.png"
    sheet = draw_readings(crops, readings, labels)
    cv2.imwrite(str(picture), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    print(f"\n== Picture with readings and attention: {picture.relative_to(ROOT)}")

    command = [sys.executable, "-m", "str_app", "serve", "--host", "127.0.0.1", "--port", "0"]
    log = OUTPUT / "server.log"
    with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as server:
        try:
            url = wait_until_ready(server, log)
            print(f"\n== Server: str-app serve --port 0, then POST {url}/v1/recognize")
            answer = post_images(f"{url}/v1/recognize", paths)
            for result in answer["results"]:
                print(json.dumps(result, ensure_ascii=False))
            served = [result["text"] for result in answer["results"]]
            if served != [reading.text for reading in readings]:
                sys.exit(f"the server read {served}: not what Reader read")
        finally:
            server.terminate()
    print("\n== Server stopped. The same readings came over HTTP.")


def draw_readings(crops: Sequence[Pixels], readings: Sequence[Reading], labels: Sequence[str]) -> Pixels:
    """A sheet with one row a crop: crop, reading with confidence, and a strip of attention overlays.

    Args:
        crops: uint8 (H, W, 3), RGB.
        readings: with attention.
        labels: printed beside texts that differ from them; empty strings where unknown.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    from str_app.reading_picture import attention_overlay

    longest = max((len(reading.text) for reading in readings), default=0)
    tile = (96, 40)  # width, height of one overlay
    width = CROP_WIDTH + 260 + longest * (tile[0] + 6) + 20
    rows = []
    for crop, reading, label in zip(crops, readings, labels, strict=True):
        row = np.full((CROP_HEIGHT + 16, width, 3), 255, dtype=np.uint8)
        scale = min(CROP_HEIGHT / crop.shape[0], CROP_WIDTH / crop.shape[1])
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        row[8 : 8 + size[1], 8 : 8 + size[0]] = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        left = CROP_WIDTH + 20
        right = not label or label == reading.text
        colour = (0, 110, 40) if right else (190, 0, 0)
        _write(row, reading.text or "(nothing)", (left, 34), 0.7, colour)
        note = f"{reading.confidence:.1%}" if right else f"{reading.confidence:.1%}, is {label}"
        _write(row, note, (left, 62), 0.5, (90, 90, 90))
        if reading.attention is not None:
            for index, char in enumerate(reading.text):
                x = CROP_WIDTH + 260 + index * (tile[0] + 6)
                overlay = attention_overlay(crop, reading.attention[index], reading.covered, reading.rotation)
                row[8 : 8 + tile[1], x : x + tile[0]] = cv2.resize(overlay, tile, interpolation=cv2.INTER_AREA)
                _write(row, char, (x + tile[0] // 2 - 6, 70), 0.6, (60, 60, 60))
        rows.append(row)
    return np.concatenate(rows) if rows else np.full((1, width, 3), 255, dtype=np.uint8)


def _write(image: Pixels, text: str, origin: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    # OpenCV's built-in font has ASCII only.
    shown = "".join(char if char.isascii() else "?" for char in text)
    cv2.putText(image, shown, origin, FONT, size, colour, 1, cv2.LINE_AA)


def wait_until_ready(server: subprocess.Popen[bytes], log: Path) -> str:
    """The server's URL: it chooses a free port."""
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"the server stopped at once:\n{log.read_text()[-2000:]}")
        if address := re.search(r"listening on (http://[\d.:]+)", log.read_text()):
            try:
                with urllib.request.urlopen(f"{address[1]}/readyz", timeout=2):
                    return address[1]
            except (urllib.error.URLError, OSError):
                pass
        time.sleep(0.2)
    sys.exit(f"the server was not ready after {STARTUP_SECONDS} s:\n{log.read_text()[-2000:]}")


def post_images(url: str, paths: list[Path]) -> dict[str, list[dict[str, object]]]:
    boundary = uuid.uuid4().hex
    body = b""
    for path in paths:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{path.name}"\r\n'
        body += head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + path.read_bytes() + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as response:
        answer: dict[str, list[dict[str, object]]] = json.load(response)
    return answer


if __name__ == "__main__":
    main()
