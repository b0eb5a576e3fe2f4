"""Whatever is sent, the server answers in time, with no 5xx, and gives its memory back. FUZZ_INPUTS: of images."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from str_app.reader import Reader
from tests.serve.slow.crops import crops
from tests.serve.slow.load import Connection, form, get, post
from tests.serve.slow.real_server import RealServer

pytestmark = pytest.mark.slow
INPUTS = int(os.environ.get("FUZZ_INPUTS", "500"))
LONGEST_S = 5.0
AT_ONCE = 16


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with RealServer(STR_APP_FIRST_FRAMES="true") as server:
        yield server


def png_header(width: int, height: int, depth: int, colour: int) -> bytes:
    """A PNG that claims a size and has next to nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 4096))
        + chunk(b"IEND", b"")
    )


def seeds() -> list[bytes]:
    """Good pictures of every format and mode, and bombs."""
    found = [crop.data for crop in crops(Reader.load("small"), 40)]
    base = Image.open(io.BytesIO(found[0])).convert("RGB")
    for mode, image_format, options in [
        ("1", "PNG", {}),
        ("L", "JPEG", {}),
        ("P", "PNG", {}),
        ("P", "GIF", {}),
        ("LA", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("RGBA", "WEBP", {}),
        ("CMYK", "JPEG", {}),
        ("CMYK", "TIFF", {}),
        ("I;16", "PNG", {}),
        ("I;16", "TIFF", {}),
        ("F", "TIFF", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "TIFF", {"compression": "jpeg"}),
        ("RGB", "BMP", {}),
        ("RGB", "WEBP", {"lossless": True}),
    ]:
        buffer = io.BytesIO()
        (base.convert("I").convert(mode) if mode == "I;16" else base.convert(mode)).save(
            buffer, image_format, **options
        )
        found.append(buffer.getvalue())
    for side in (4999, 9000, 32000):
        buffer = io.BytesIO()
        Image.new("1", (side, side)).save(buffer, "PNG")
        found.append(buffer.getvalue())
    found += [png_header(w, h, d, c) for w, h in ((2**31 - 1, 1), (0, 5), (5000, 5000)) for d, c in ((16, 6), (1, 0))]
    return [*found, b"", b"BM", b"GIF89a", b"II*\0", b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"<svg/>", b"\0" * 1000]


def mutated(seed: bytes, random: np.random.Generator, others: list[bytes]) -> bytes:
    data = bytearray(seed)
    for _ in range(int(random.integers(1, 4))):
        kind, size = int(random.integers(7)), len(data)
        if not size:
            return bytes(random.bytes(20))
        place = int(random.integers(size)) if random.random() < 0.5 else int(random.integers(min(size, 64)))
        if kind == 0:
            del data[place:]
        elif kind == 1:
            data[place] ^= 1 << int(random.integers(8))
        elif kind == 2:
            data[place : place + 4] = random.bytes(4)
        elif kind == 3:
            data[place : place + 4] = [0xFF, 0xFF, 0xFF, 0x7F][: size - place]
        elif kind == 4:
            data[place:place] = data[place : place + int(random.integers(1, 200))]
        elif kind == 5:
            del data[place : place + int(random.integers(1, 200))]
        else:
            data[place:] = others[int(random.integers(len(others)))][place:]
    return bytes(data)


def test_mutated_images(server: RealServer) -> None:
    pool = seeds()
    outcomes: Counter[str] = Counter()
    longest = 0.0

    async def client(number: int, inputs: int) -> None:
        nonlocal longest
        random, connection = np.random.default_rng(number), Connection(server.address)
        for _ in range(max(1, inputs // AT_ONCE)):
            images = [mutated(pool[int(random.integers(len(pool)))], random, pool) for _ in range(AT_ONCE)]
            answer = await connection.send(form(images))
            assert answer.status == 200, answer
            longest = max(longest, answer.seconds)
            for result in json.loads(answer.body)["results"]:
                outcomes[result["error"]["code"] if "error" in result else "read"] += 1

    async def clients(inputs: int) -> None:
        await asyncio.gather(*(client(number, inputs // 2) for number in range(2)))

    asyncio.run(clients(max(INPUTS // 10, 200)))
    warm = server.rss
    asyncio.run(clients(INPUTS))
    grown = server.rss / warm
    print(f"\nfuzz: {sum(outcomes.values())} images, longest {longest:.2f} s for {AT_ONCE}, RSS {grown:.1%} of warm")
    print("  " + ", ".join(f"{code} {count}" for code, count in outcomes.most_common()))
    assert len(outcomes) >= 5, "hardly anything was tried"
    assert longest <= LONGEST_S
    assert grown <= 1.1


def test_mutated_bodies(server: RealServer) -> None:
    png = Path("samples/images/01.jpg").read_bytes()
    document = json.dumps({"image": {"data": ""}, "regions": [[0, 0, 9, 9]], "images": [{"data": "", "name": "a"}]})
    infer = json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["eA=="]}]})
    whole = form([png, png])
    bodies = [
        ("/v1/recognize", "multipart/form-data; boundary=x", whole[whole.index(b"\r\n\r\n") + 4 :]),
        ("/v1/regions", "multipart/form-data; boundary=x", whole[whole.index(b"\r\n\r\n") + 4 :]),
        ("/v1/recognize", "application/json", document.encode()),
        ("/v1/regions", "application/json", document.encode()),
        ("/v2/models/small/infer", "application/json", infer.encode()),
    ]

    async def scenario() -> Counter[int]:
        random, connection, codes = np.random.default_rng(0), Connection(server.address), Counter[int]()
        for number in range(INPUTS // 10):
            path, kind, body = bodies[number % len(bodies)]
            answer = await connection.send(post(mutated(body, random, [png]), path, kind))
            assert answer.status < 500, (path, answer)
            assert answer.seconds <= LONGEST_S
            codes[answer.status] += 1
        assert (await connection.send(get("/readyz"))).status == 200
        return codes

    print(f"\nbodies: {dict(asyncio.run(scenario()))}")


def test_schemathesis(server: RealServer) -> None:
    pytest.importorskip("schemathesis")
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", server.url + "/openapi.json"]
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--checks", checks, "--max-examples", str(max(5, INPUTS // 100)), "--seed", "0", "--no-color"]
    outcome = subprocess.run([*command, *options], capture_output=True, text=True, timeout=1800)
    print("\n" + "\n".join(outcome.stdout.splitlines()[-25:]))
    assert outcome.returncode == 0, outcome.stdout[-6000:] + outcome.stderr[-2000:]
