"""Every kind of file comes out as the same upright 8-bit RGB picture, and damage is never painted over."""

from __future__ import annotations

import contextlib
import gc
import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from str_app.datasets.image_decoding import decode_image, jpeg_effort
from str_app.datasets.sample import DataError
from tests.datasets.pictures import encoded, picture


def flat(*colour: int) -> np.ndarray:
    return np.full((12, 20, len(colour)), colour, dtype=np.uint8)


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_pixels_back(image_format: str) -> None:
    assert np.array_equal(decode_image(encoded(picture(), image_format)), picture())


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_lossy_formats_keep_red_red(image_format: str) -> None:
    decoded = decode_image(encoded(flat(200, 30, 10), image_format, quality=95))
    assert np.abs(decoded.astype(int) - (200, 30, 10)).max() < 12


def test_exif_rotation_is_applied() -> None:
    array = flat(250, 250, 250)
    array[:, :10] = 0  # dark left half
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: left becomes top
    upright = decode_image(encoded(array, "JPEG", quality=95, exif=exif))
    assert upright.shape == (20, 12, 3)
    assert upright[:8].mean() < 30 < 220 < upright[12:].mean()


def test_cmyk_jpeg_keeps_its_colours() -> None:
    image = Image.new("CMYK", (20, 12), (0, 255, 255, 0))  # red ink
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    decoded = decode_image(stream.getvalue())
    assert decoded.shape == (12, 20, 3)
    assert decoded[..., 0].mean() > 200 > 60 > decoded[..., 1:].mean()


@pytest.mark.parametrize("ending", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled(ending: str, channels: int) -> None:
    deep = np.zeros((12, 20, channels), dtype=np.uint16)
    deep[:, 10:] = 40_000
    _, stored = cv2.imencode(ending, deep)
    decoded = decode_image(stored.tobytes())
    assert decoded.dtype == np.uint8
    assert decoded[:, :10].max() == 0
    assert np.all(np.abs(decoded[:, 10:].astype(int) - 40_000 // 257) <= 1)


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_letters_on_transparency_stay_visible(ink: int, image_format: str) -> None:
    array = np.full((12, 20, 4), ink, dtype=np.uint8)
    array[..., 3] = 0
    array[4:8, 5:15, 3] = 255
    decoded = decode_image(encoded(array, image_format, **({"lossless": True} if image_format == "WEBP" else {})))
    assert abs(int(decoded[6, 10].mean()) - int(decoded[0, 0].mean())) == 255


def test_palette_with_transparency() -> None:
    image = Image.fromarray(flat(0, 0, 0)).convert("P")
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=0)
    assert decode_image(stream.getvalue()).shape == (12, 20, 3)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0, 1, 10, 0.3, 0.6, 0.9])
def test_cut_short_is_an_error(image_format: str, kept: float) -> None:
    whole = encoded(picture(height=40, width=80), image_format)
    with pytest.raises(DataError, match="image"):
        decode_image(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])


def test_other_bytes_are_an_error() -> None:
    with pytest.raises(DataError, match="not an image"):
        decode_image(b"<html>no such page</html>")


JPEGS = {
    "baseline": {},
    "no subsampling": {"subsampling": 0, "quality": 100},
    "own Huffman tables": {"optimize": True},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_rows": 1},
}


@pytest.mark.parametrize("kind", JPEGS)
def test_of_a_jpeg_only_the_end_marker_may_be_missing(kind: str) -> None:
    """Wherever it is cut: what is read is what the whole file reads, or an error."""
    jpeg = encoded(picture(height=24, width=32), "JPEG", **JPEGS[kind])
    whole = decode_image(jpeg)
    read = []
    for missing in range(1, len(jpeg)):
        try:
            pixels = decode_image(jpeg[:-missing])
        except DataError:
            continue
        assert np.array_equal(pixels, whole), f"{missing} bytes were missing"
        read.append(missing)
    assert read[:2] == [1, 2]
    assert len(read) <= 3, "the last byte may have had padding only"


def test_a_jpeg_without_its_end_marker_keeps_its_rotation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = encoded(picture(height=24, width=32), "JPEG", exif=exif)
    assert np.array_equal(decode_image(jpeg[:-2]), decode_image(jpeg))


def test_a_refused_jpeg_leaves_no_picture_behind() -> None:
    """No reference cycle keeps its pixels: a server collects garbage seldom."""

    def pictures() -> int:
        return sum(isinstance(item, Image.Image) for item in gc.get_objects())

    jpeg = encoded(picture(height=24, width=32), "JPEG")
    gc.collect()
    gc.disable()
    try:
        before = pictures()
        for missing in (5, 30):
            with contextlib.suppress(DataError):
                decode_image(jpeg[:-missing])
        assert pictures() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_damaged_exif_data_turn_nothing(image_format: str) -> None:
    assert decode_image(encoded(flat(200, 30, 10), image_format, exif=b"nonsense")).shape == (12, 20, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_whatever_else_is_in_the_exif_data(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    good = encoded(picture(), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(good))))
    assert np.array_equal(decode_image(good), expected)
    block = bytearray(exif.tobytes())
    place = block.index(struct.pack(">HH", 0x010F, 2)) + 2
    block[place : place + 2] = struct.pack(">H", 12)  # "maker" as floating-point numbers
    assert np.array_equal(decode_image(encoded(picture(), "PNG", exif=bytes(block))), expected)


def test_no_program_is_started_for_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript, which has had many vulnerabilities."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript is started"))
    with pytest.raises(DataError, match="not an image"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n")


def test_how_much_longer_a_jpeg_takes_than_others_of_its_size() -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG", progressive=True)
    jpeg = file.getvalue()
    last = jpeg.rindex(b"\xff\xda")
    assert jpeg_effort(jpeg) == 1
    assert jpeg_effort(jpeg[:-2]) == 10
    assert jpeg_effort(jpeg[:-2] + jpeg[last:-2] * 30 + jpeg[-2:]) == 4
