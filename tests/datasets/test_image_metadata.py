"""Image files without their metadata: the same pixels, the same way up."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from str_app.datasets import image_metadata
from str_app.datasets.image_decoding import upright_rgb
from str_app.datasets.image_metadata import without_metadata
from str_app.inputs.images import load_image

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8))
ZEROS = zlib.compress(bytes(2**20), 9)  # a kilobyte


def encoded(image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, image_format, **options)
    return file.getvalue()


def turned_files(orientation: int) -> Iterator[tuple[str, bytes]]:
    """Files that say their orientation in every way that Pillow knows."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", orientation
    xmp = f'<rdf:Description tiff:Orientation="{orientation}"/>'
    for image_format in ("JPEG", "PNG", "WEBP"):
        yield f"{image_format}, EXIF", encoded(image_format, exif=exif, icc_profile=bytes(500))
        if image_format != "PNG":
            yield f"{image_format}, XMP", encoded(image_format, xmp=xmp.encode())
    big_endian = struct.pack(">2sHLHHHLHHL", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    yield "JPEG, EXIF of the other byte order", encoded("JPEG", exif=b"Exif\0\0" + big_endian)
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    yield "PNG, XMP", encoded("PNG", pnginfo=text)
    digits = exif.tobytes().hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    for packed in (False, True):
        text = PngImagePlugin.PngInfo()
        text.add_text("Raw profile type exif", f"\nexif\n{len(digits) // 2:8}\n{lines}\n", zip=packed)
        yield "PNG, EXIF as text", encoded("PNG", pnginfo=text)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_kept_wherever_it_stands(orientation: int) -> None:
    for name, file in turned_files(orientation):
        pixels = load_image(file)
        assert pixels.shape[:2] == ((20, 40) if orientation < 5 else (40, 20)), name
        assert np.array_equal(pixels, upright_rgb(Image.open(io.BytesIO(file)))), name


def test_pixels_keep_their_colours_and_transparency() -> None:
    files = [
        (mode, image_format, PICTURE.convert(mode))
        for image_format, modes in {"JPEG": ("L", "RGB", "CMYK"), "PNG": ("1", "L", "LA", "P", "RGB", "RGBA")}.items()
        for mode in modes
    ]
    for mode, image_format, image in files:
        options = {"transparency": 3} if mode in ("P", "L") and image_format == "PNG" else {}
        file = io.BytesIO()
        image.save(file, image_format, dpi=(72, 72), comment="comment", **options)
        expected = upright_rgb(Image.open(io.BytesIO(file.getvalue())))
        assert np.array_equal(load_image(file.getvalue()), expected), (mode, image_format)


def test_nothing_but_the_picture_and_the_orientation_is_left() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "secret", zip=False)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "secret", 6
    for image_format, options in (("PNG", {"pnginfo": text}), ("JPEG", {"comment": "secret"})):
        file = without_metadata(encoded(image_format, exif=exif, icc_profile=b"secret", **options), image_format)
        image = Image.open(io.BytesIO(file))
        assert dict(image.getexif()) == {0x0112: 6}
        assert b"secret" not in file


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_png_with_packed_bombs_costs_no_more_than_without(kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow unpacks a megabyte of each."""
    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", None)
    body = {b"iCCP": b"x\0\0", b"zTXt": b"x\0\0", b"iTXt": b"x\0\1\0\0\0"}[kind] + ZEROS
    chunk = struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
    png = encoded("PNG")
    assert np.array_equal(load_image(png[:33] + chunk * 50 + png[33:]), np.asarray(PICTURE))


def test_of_many_texts_with_exif_data_one_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[bytes] = []
    monkeypatch.setattr(image_metadata, "_unpacked", lambda text, packed: unpacked.append(text) or b"")
    body = b"Raw profile type exif\0\0" + ZEROS
    chunk = struct.pack(">L", len(body)) + b"zTXt" + body + struct.pack(">L", zlib.crc32(b"zTXt" + body))
    png = encoded("PNG")
    assert np.array_equal(load_image(png[:33] + chunk * 50 + png[33:]), np.asarray(PICTURE))
    assert len(unpacked) == 1


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_thousands_of_tags_are_not_read(image_format: str, recwarn: pytest.WarningsRecorder) -> None:
    tags = b"".join(struct.pack("<HHLL", tag, 2, 100, 2**31) for tag in range(0x8000, 0x8000 + 5000))
    exif = b"Exif\0\0" + struct.pack("<2sHLH", b"II", 42, 8, 5000) + tags
    assert np.array_equal(load_image(encoded(image_format, exif=exif)), load_image(encoded(image_format)))
    assert not recwarn.list
