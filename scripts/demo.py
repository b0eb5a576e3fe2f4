"""What the project does, in one minute: read the samples, draw where the network looked, serve and POST them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SAMPLES = ROOT / "samples"
OUTPUT = ROOT / "demo_output"
STARTUP_SECONDS = 90


def main() -> None:
    from str_app.inputs.images import load_image
    from str_app.reader import Reader
    from str_app.reading_picture import draw_readings

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
    sheet = draw_readings(crops, readings, labels, reader.preprocessing)
    cv2.imwrite(str(picture), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    print(f"\n== Picture with readings and attention: {picture.relative_to(ROOT)}")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    print(f"\n== Server: str-app serve --port {port}, then POST {url}/v1/recognize")
    command = [sys.executable, "-m", "str_app", "serve", "--host", "127.0.0.1", "--port", str(port)]
    log = OUTPUT / "server.log"
    with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as server:
        try:
            wait_until_ready(url, server, log)
            answer = post_images(f"{url}/v1/recognize", paths)
            for result in answer["results"]:
                print(json.dumps(result, ensure_ascii=False))
            served = [result["text"] for result in answer["results"]]
            if served != [reading.text for reading in readings]:
                sys.exit(f"the server read {served}: not what Reader read")
        finally:
            server.terminate()
    print("\n== Server stopped. The same readings came over HTTP.")


def wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"the server stopped at once:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
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
