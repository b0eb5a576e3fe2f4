"""Every kind of image people send, and every kind that must be refused."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from str_app.errors import ImageError
from str_app.inputs import images
from str_app.inputs.images import ImageLimits, load_image

BAR = (slice(4, 20), slice(30, 50))  # where `drawing` has its stroke


def drawing(ink: int = 0, paper: int = 255) -> np.ndarray:
    """A stroke on paper, grey (32, 100), not symmetric in any direction."""
    picture = np.full((32, 100), paper, dtype=np.uint8)
    picture[BAR] = ink
    return picture


def encoded(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def code_of(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    assert caught.value.message == str(caught.value)
    return caught.value.code


def assert_dark_stroke_on_light(image: np.ndarray) -> None:
    assert image.shape == (32, 100, 3)
    assert image.dtype == np.uint8
    assert image[BAR].max() < 70
    assert image[0].min() > 180


@pytest.mark.parametrize(
    ("image_format", "options"), [("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True}), ("BMP", {})]
)
def test_the_four_formats_are_read(image_format: str, options: dict[str, Any]) -> None:
    rgb = np.zeros((32, 100, 3), dtype=np.uint8)
    rgb[..., 0], rgb[..., 2] = 200, 40
    image = load_image(encoded(Image.fromarray(rgb), image_format, **options))
    assert np.abs(image.astype(int) - rgb).max() <= 4


def test_a_path_is_read_whatever_its_ending(tmp_path: Path) -> None:
    path = tmp_path / "word.txt"
    path.write_bytes(encoded(Image.fromarray(drawing())))
    assert_dark_stroke_on_light(load_image(path))
    assert_dark_stroke_on_light(load_image(str(path)))


def test_a_path_that_no_file_can_have() -> None:
    assert code_of("a\0b.png") == "not_found"


def test_files_of_a_million_pieces_are_refused_at_once() -> None:
    """Pillow would take microseconds for each piece."""
    jpeg, png = (encoded(Image.effect_noise((60, 40), 50), image_format) for image_format in ("JPEG", "PNG"))
    chunk = struct.pack(">I", 0) + b"abAb" + struct.pack(">I", zlib.crc32(b"abAb"))
    for many in (
        jpeg[:2] + b"\xff\xfe\x00\x02" * 20_000 + jpeg[2:],
        jpeg[:2] + b"\xff" * 50_000 + jpeg[2:],
        jpeg[:2] + (b"\xff\xc8\xff\xff" + b"\xff\xfe\x00\x02" * 16_000) * 3 + jpeg[2:],
        jpeg[:2] + b"\xff\xfe\x00\x02\x00\xda\xff\xd9" + b"\xff\xfe\x00\x02" * 20_000 + jpeg[2:],
        png[:33] + chunk * 20_000 + png[33:],
    ):
        assert code_of(many) == "truncated"
    few = jpeg[:2] + (b"\xff\xfe\x4e\x20" + bytes(0x4E1E)) * 40 + jpeg[2:] + bytes(100_000)
    assert np.array_equal(load_image(few), load_image(jpeg)), "large comments, and data after the picture"


def test_a_jpeg_may_lack_its_end_marker() -> None:
    jpeg = encoded(Image.effect_noise((60, 40), 50), "JPEG")
    assert np.array_equal(load_image(jpeg[:-2]), load_image(jpeg))
    assert code_of(jpeg[:-12]) == "truncated"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(image_format: str, orientation: int) -> None:
    upright = Image.fromarray(np.stack([drawing()] * 3, axis=2))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    # What a camera held that way stores: the inverse of the turn that shows it upright.
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(turn[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_dark_stroke_on_light(load_image(encoded(stored, image_format, exif=exif)))


def test_sixteen_bit_grey_is_scaled() -> None:
    deep = drawing(ink=20, paper=230).astype(np.uint16) * 257
    image = load_image(encoded(Image.fromarray(deep)))
    assert_dark_stroke_on_light(image)
    assert image[0, 0, 0] == 230
    assert image[10, 40, 0] == 20
    exif = Image.Exif()
    exif[0x0112] = 3
    assert np.array_equal(load_image(encoded(Image.fromarray(deep[::-1, ::-1].copy()), exif=exif)), image)
    assert_dark_stroke_on_light(load_image(Image.fromarray(drawing(ink=20, paper=230).astype(np.int32))))


def test_a_sixteen_bit_colour_png_is_read() -> None:
    rows = np.repeat(drawing()[:, :, None], 3, axis=2).astype(">u2") * 257
    raw = b"".join(b"\x00" + row.tobytes() for row in rows)
    data = png(100, 32, depth=16, colour=2, body=zlib.compress(raw))
    assert_dark_stroke_on_light(load_image(data))


@pytest.mark.parametrize("mode", ["CMYK", "L", "YCbCr"])
def test_other_colour_spaces_of_jpeg(mode: str) -> None:
    assert_dark_stroke_on_light(
        load_image(encoded(Image.fromarray(drawing()).convert("RGB").convert(mode), "JPEG", quality=95))
    )


def test_black_and_white_and_palette_png() -> None:
    picture = Image.fromarray(drawing())
    assert_dark_stroke_on_light(load_image(encoded(picture.convert("1"))))
    assert_dark_stroke_on_light(load_image(encoded(picture.convert("RGB").quantize(4))))


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_text_on_transparency_stays_readable(ink: int, image_format: str) -> None:
    rgba = np.zeros((32, 100, 4), dtype=np.uint8)
    rgba[BAR] = (ink, ink, ink, 255)
    data = encoded(Image.fromarray(rgba), image_format, **({"lossless": True} if image_format == "WEBP" else {}))
    for image in (load_image(data), load_image(rgba)):
        assert abs(int(image[16, 40, 0]) - int(image[0, 0, 0])) == 255
        assert image[16, 40, 0] == ink


def test_transparent_palette_and_grey_png() -> None:
    stroke = np.zeros((32, 100), dtype=np.uint8)
    palette = Image.fromarray(stroke).convert("P")
    palette.putpalette([0, 0, 0] * 256)
    pixels = np.full((32, 100), 1, dtype=np.uint8)
    pixels[BAR] = 0
    palette.putdata(pixels.ravel().tolist())
    assert_dark_stroke_on_light(load_image(encoded(palette, transparency=1)))
    grey_alpha = np.dstack([stroke, np.where(drawing() == 0, 255, 0).astype(np.uint8)])
    assert_dark_stroke_on_light(load_image(encoded(Image.fromarray(grey_alpha, "LA"))))


def test_alpha_of_zero_everywhere_is_ignored() -> None:
    rgba = np.dstack([drawing(), drawing(), drawing(), np.zeros((32, 100), dtype=np.uint8)])
    assert_dark_stroke_on_light(load_image(rgba))


@pytest.mark.parametrize("image_format", ["WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_read(image_format: str) -> None:
    frames = [Image.fromarray(drawing()).convert("RGB"), Image.new("RGB", (100, 32), (9, 9, 9))]
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])
    assert_dark_stroke_on_light(load_image(data))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("part", [0.03, 0.5, 0.95])
def test_a_truncated_image_is_refused(image_format: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), image_format)
    assert code_of(data[: max(20, int(len(data) * part))]) == "truncated"


def test_files_that_are_no_images(tmp_path: Path) -> None:
    assert code_of(tmp_path / "missing.png") == "not_found"
    assert code_of(tmp_path) == "not_readable"
    (tmp_path / "empty.png").touch()
    assert code_of(tmp_path / "empty.png") == "empty"
    (tmp_path / "note.png").write_text("no picture at all")
    assert code_of(tmp_path / "note.png") == "not_an_image"
    with pytest.raises(ImageError, match=r"note\.png: not an image"):
        load_image(tmp_path / "note.png")


@pytest.mark.parametrize(
    "data", [b"GIF89a" + bytes(40), b"II*\x00" + bytes(40), b"%PDF-1.7", b"\x00\x00\x00\x1cftypheic" + bytes(20)]
)
def test_other_formats_are_named(data: bytes) -> None:
    assert code_of(data) == "unsupported_format"


def test_sizes_of_no_word() -> None:
    assert code_of(encoded(Image.new("RGB", (1, 1)))) == "too_small"
    assert code_of(encoded(Image.new("RGB", (1, 5000)))) == "extreme_aspect"
    assert code_of(encoded(Image.new("RGB", (5000, 1)))) == "extreme_aspect"
    assert code_of(np.zeros((2, 60, 3), dtype=np.uint8)) == "too_small"


@pytest.mark.parametrize(("width", "height"), [(4, 40), (8, 32), (800, 32), (250, 10), (6, 9), (2836, 1200)])
def test_sizes_of_real_words_pass(width: int, height: int) -> None:
    assert load_image(np.zeros((height, width, 3), dtype=np.uint8)).shape == (height, width, 3)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    # No pixel data at all: were pixels decoded before the limits, the code would be `truncated`.
    for side in (9000, 20000, 65000):
        with np.errstate(all="raise"):
            assert code_of(png(side, side)) == "too_many_pixels"
    assert code_of(png(60_000, 400)) == "too_large_side"


def test_limits_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "word.png"
    path.write_bytes(encoded(Image.fromarray(drawing())))
    assert code_of(path, limits=ImageLimits(max_bytes=50)) == "too_many_bytes"
    assert code_of(path, limits=ImageLimits(max_pixels=3199)) == "too_many_pixels"
    assert code_of(path, limits=ImageLimits(max_side=99)) == "too_large_side"
    assert code_of(path, limits=ImageLimits(max_aspect=3)) == "extreme_aspect"


def test_the_limits_given_count_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = encoded(Image.fromarray(drawing()))  # 3,200 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # above it Pillow warns, above twice as many it refuses
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_dark_stroke_on_light(load_image(picture, ImageLimits(max_pixels=3200)))
        for most in (1500, 2500):
            with pytest.raises(ImageError, match=rf"more than {most:,} pixels: shrink it"):
                load_image(picture, ImageLimits(max_pixels=most))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for most, problem in ((1500, "more than 1,500 pixels: shrink it"), (3200, "more than 2,000 pixels, Pillow's own")):
        with pytest.raises(ImageError, match=problem) as caught:
            load_image(picture, ImageLimits(max_pixels=most))
        assert caught.value.code == "too_many_pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert_dark_stroke_on_light(load_image(picture))


def test_arrays() -> None:
    assert_dark_stroke_on_light(load_image(drawing()))
    assert_dark_stroke_on_light(load_image(drawing()[:, :, None]))
    assert_dark_stroke_on_light(load_image(np.stack([drawing()] * 3, axis=2)[:, ::-1][:, ::-1]))
    for wrong in (
        drawing().astype(np.float32),
        drawing().astype(np.uint16),
        np.zeros((3, 32, 100), dtype=np.uint8),
        np.zeros((0, 10, 3), dtype=np.uint8),
        np.zeros(7, dtype=np.uint8),
        np.zeros((2, 32, 100, 3), dtype=np.uint8),
    ):
        assert code_of(wrong) == "unsupported_array"
    assert code_of(3.5) == "unsupported_type"
    assert code_of(None, name="word 7") == "unsupported_type"


def test_arrays_of_other_classes() -> None:
    """A strided matrix crashed the interpreter in `np.repeat`."""
    colour = np.stack([drawing()] * 3, axis=2)
    transparent = np.dstack([colour, np.full((32, 100), 255, np.uint8)])
    masked = np.ma.masked_less(drawing(), 10)
    rows = np.asmatrix(np.repeat(drawing(), 2, axis=0))[::2]
    for array in (rows, masked, np.ma.masked_array(colour), np.ma.masked_array(transparent), colour.view(np.recarray)):
        image = load_image(array)
        assert type(image) is np.ndarray
        assert_dark_stroke_on_light(image)


def test_pil_images() -> None:
    assert_dark_stroke_on_light(load_image(Image.fromarray(drawing())))
    assert code_of(Image.new("F", (40, 40))) == "unsupported_format"


@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "PA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16B"])
def test_pil_images_of_other_modes(mode: str) -> None:
    assert load_image(Image.new(mode, (100, 32))).shape == (32, 100, 3)


def test_a_pil_image_that_came_from_no_file_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: Image.Image) -> np.ndarray:
        raise ValueError("conversion from HSL to RGB not supported")

    monkeypatch.setattr(images, "upright_rgb", refuse)
    with pytest.raises(ImageError, match=r"^a PIL image of mode L cannot be converted to RGB \(conversion from HSL"):
        load_image(Image.fromarray(drawing()))


def test_premultiplied_grey_is_as_dark_as_before() -> None:
    transparent = Image.merge("LA", [Image.fromarray(drawing()), Image.fromarray(255 - drawing())])
    assert np.array_equal(load_image(transparent.convert("La")), load_image(transparent))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_a_closed_pil_image_is_called_closed(image_format: str, tmp_path: Path) -> None:
    path = tmp_path / "word"
    path.write_bytes(encoded(Image.fromarray(drawing()), image_format))
    with Image.open(path) as left:
        pass
    with path.open("rb") as file:
        without_file = Image.open(file)
    new = Image.new("RGB", (100, 32))
    new.close()
    for closed in (left, without_file, new):
        with pytest.raises(ImageError, match=r"^word 7: the PIL image is closed: give it before") as caught:
            load_image(closed, name="word 7")
        assert caught.value.code == "not_readable"
    with Image.open(path) as loaded:
        loaded.load()
    assert_dark_stroke_on_light(load_image(loaded))
    cut = Image.open(io.BytesIO(path.read_bytes()[:-30]))
    with pytest.raises(ImageError, match=f"the {image_format} file is damaged or cut short"):
        load_image(cut)


def test_an_error_crosses_process_boundaries() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("empty", "word.png: empty")))
    assert (error.code, error.message) == ("empty", "word.png: empty")


@settings(max_examples=150, deadline=None)
@given(
    image_format=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, 2000),
)
def test_damaged_bytes_give_an_image_or_an_image_error(
    image_format: str, edits: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(encoded(Image.fromarray(drawing()).convert("RGB"), image_format))
    for place, value in edits:
        data[place % len(data)] = value
    try:
        image = load_image(bytes(data[: len(data) - cut % 50]))
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


def png(width: int, height: int, depth: int = 8, colour: int = 0, body: bytes = b"") -> bytes:
    """A PNG whose header says what the arguments say, whatever follows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def progressive_jpeg() -> bytes:
    pixels = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", progressive=True)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    """Each takes as long as the whole picture, and a dozen bytes."""
    whole = progressive_jpeg()
    assert load_image(whole).shape == (64, 64, 3)
    last = whole.rindex(b"\xff\xda")
    assert load_image(whole[:-2] + whole[last:-2] * 20 + whole[-2:]).shape == (64, 64, 3)
    assert code_of(whole[:-2] + whole[last:-2] * 200 + whole[-2:]) == "truncated"
    assert load_image(whole + b"\xff\xda" * 1000).shape == (64, 64, 3)  # after its end, as of a second picture


def test_a_jpeg_without_end_is_completed_only_if_that_is_quick() -> None:
    """It is decoded ten times."""
    flat = encoded(Image.new("L", (1100, 1000), 200), "JPEG", progressive=True)
    assert load_image(flat[:-2]).shape == (1000, 1100, 3)
    last = flat.rindex(b"\xff\xda")
    many = flat[:-2] + flat[last:-2] * 92
    assert load_image(many + flat[-2:]).shape == (1000, 1100, 3)
    assert code_of(many) == "truncated"


def test_scans_cannot_be_hidden() -> None:
    """Behind markers that no segment follows; and looking for them takes no longer than reading the file."""
    whole = progressive_jpeg()
    last = whole.rindex(b"\xff\xda")
    many = whole[last:-2] * 200
    for alone in (b"\xff\x02\xfe\xfe", b"\xff\xd0\xfe\xfe", b"\xff\x01\xfe\xfe"):
        assert code_of(whole[:-2] + alone + many + whole[-2:]) == "truncated"
    first = whole.index(b"\xff\xda")
    assert code_of(whole[:first] + b"\xff\xd0" + whole[first:-2] + many + whole[-2:]) == "truncated"
    with suppress(ImageError):
        load_image(whole[:-2] + b"\xff" * 2_000_000 + b"\x00")


def test_a_large_run_length_encoded_bmp_is_refused() -> None:
    header = encoded(Image.fromarray(np.zeros((8, 8), np.uint8)), "BMP")
    bitmap = bytearray(header)
    bitmap[30] = 1
    assert code_of(bytes(bitmap) + bytes(2**20)) == "too_many_bytes"
    side = 700
    old = b"BM" + struct.pack("<IHHI", 26 + 3 * side * side, 0, 0, 26) + struct.pack("<IHHHH", 12, side, side, 1, 24)
    assert load_image(old + b"\1\0\0" * side * side).shape == (side, side, 3)  # of OS/2, whose pixels begin there
