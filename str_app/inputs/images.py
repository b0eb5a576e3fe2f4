"""Loading of images from paths, bytes, arrays or PIL images, with limits checked before any pixel is decoded."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from str_app.datasets.image_decoding import composite, grey_to_rgb, jpeg_effort, jpeg_segments, upright_rgb
from str_app.datasets.image_metadata import (
    START_OF_SCAN,
    exif_of,
    jpeg_pieces,
    orientation_of,
    png_chunks,
    without_metadata,
)
from str_app.errors import ImageError

ImageSource = str | Path | bytes | npt.NDArray[np.uint8] | Image.Image

_READ = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"BM", "BMP"))
_FRAMES = ((b"GIF8", "GIF"), (b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF"))
_RECOGNISED_ONLY = (
    (b"%PDF", "PDF"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xffO\xffQ", "JPEG 2000"),
    (b"<svg", "SVG"),
)


@dataclass(frozen=True)
class ImageLimits:
    """Limits of one image, a crop or a photograph; beyond them it is refused.

    The word crops of IIIT5K, SVT, IC13, IC15 and SVTP have sides of 6 to 2836 pixels and go up to 18:1 and 1:13.

    Attributes:
        max_bytes: size of the file; larger ones are not read to the end.
        max_pixels: width × height; memory grows with pixels, not with bytes.
        max_side: longest side in pixels.
        min_side: shortest side in pixels; letters smaller than this have no shape.
        max_aspect: longest side over shortest side.
        first_frames: whether GIF and TIFF files are read (their first frame). Off by default: their decoders are seldom
            needed and have had many vulnerabilities.
    """

    max_bytes: int = 16 * 2**20
    max_pixels: int = 25_000_000
    max_side: int = 10_000
    min_side: int = 3
    max_aspect: float = 50.0
    first_frames: bool = False


DEFAULT_LIMITS = ImageLimits()
MAX_PIECES = 10_000  # segments or chunks of a file; Pillow takes microseconds for each, and a file may have millions
MAX_SCANS = 100  # of a JPEG; encoders write about ten
MAX_RUN_LENGTH_BYTES = 2**20  # of a BMP, which Pillow decodes in Python: 0.4 s
# Of photographs that a person reads on their own machine: those of telephones with up to 64 megapixels.
PHOTO_LIMITS = ImageLimits(max_bytes=64 * 2**20, max_pixels=80_000_000)


def load_image(
    source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS, name: str | None = None
) -> npt.NDArray[np.uint8]:
    """Decode one image: first frame, upright, transparency composited, 8 bits.

    JPEG, PNG, WebP and BMP are read (GIF and TIFF if `limits.first_frames`), recognised by their first bytes, never by
    the file's name.

    Args:
        source: a path, an encoded image, a PIL image, or an array: uint8 (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey.
        limits: images beyond them are refused.
        name: what error messages call the image; a path's own name by default.

    Returns:
        uint8 (H, W, 3), RGB; C-contiguous. A uint8 RGB array that is contiguous already is returned itself.

    Raises:
        ImageError: with the codes `not_found`, `not_readable`, `empty`, `too_many_bytes`, `not_an_image`,
            `unsupported_format`, `truncated`, `too_many_pixels`, `too_large_side`, `too_small`, `extreme_aspect`,
            `unsupported_array` or `unsupported_type`.
    """
    if name is None and isinstance(source, str | Path):
        name = str(source)
    try:
        if isinstance(source, np.ndarray):
            return _from_array(source, limits)
        if isinstance(source, Image.Image):
            return _from_pil(source, limits)
        if isinstance(source, str | Path):
            source = read_file(Path(source), limits.max_bytes + 1)
        if isinstance(source, bytes):
            with open_image(source, limits) as image:
                return _from_pil(image, limits)
    except ImageError as error:
        if name is None:
            raise
        raise ImageError(error.code, f"{name}: {error.message}") from error.__cause__
    raise ImageError(
        "unsupported_type",
        f"{name + ': ' if name else ''}a {type(source).__name__} is not an image: "
        "give a path, bytes, a NumPy array or a PIL image",
    )


def read_file(path: Path, most: int = -1) -> bytes:
    """The file's bytes, at most so many. Raises ImageError, without the name, if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise ImageError("not_found", "no such file") from None
    except ValueError:
        raise ImageError("not_found", "no such file: its path has a NUL character or a lone surrogate") from None
    except OSError as error:
        raise ImageError("not_readable", f"cannot be read: {error.strerror}") from None


def read_named_file(path: str | Path) -> bytes:
    """The file's bytes. Raises ImageError, with the name as it was given, if it cannot be read."""
    try:
        return read_file(Path(path))
    except ImageError as error:
        raise ImageError(error.code, f"{path}: {error.message}") from None


def open_image(encoded: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Read the header of an encoded image and check its size; `load_image` takes the result and decodes the pixels.

    Of its metadata it has the orientation alone; see `str_app.datasets.image_metadata`.

    Raises:
        ImageError: see `load_image`.
    """
    if not encoded:
        raise ImageError("empty", "the file is empty (0 bytes)")
    if len(encoded) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"larger than {limits.max_bytes / 2**20:g} MiB")
    image_format = _format_of(encoded, limits.first_frames)
    if (image_format == "PNG" and _has_many_chunks(encoded)) or (
        image_format == "JPEG" and _has_many_segments(encoded)
    ):
        raise ImageError(
            "truncated",
            f"the {image_format} file is damaged: it has more than {MAX_PIECES:,} segments or chunks, or more than "
            f"{MAX_SCANS} scans",
        )
    run_lengths = encoded[14:18] != b"\x0c\0\0\0" and encoded[30:34] in (b"\1\0\0\0", b"\2\0\0\0")
    if image_format == "BMP" and run_lengths and len(encoded) > MAX_RUN_LENGTH_BYTES:
        raise ImageError("too_many_bytes", "a run-length encoded BMP file larger than 1 MiB: save it as PNG")
    try:
        image = _header_of(without_metadata(encoded, image_format), image_format, limits)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # from there on Pillow refuses
        if limits.max_pixels > most:
            problem = f"more than {most:,} pixels, Pillow's own limit: shrink it, or set PIL.Image.MAX_IMAGE_PIXELS"
        else:
            problem = f"more than {limits.max_pixels:,} pixels: shrink it"
        raise ImageError("too_many_pixels", problem) from None
    except Exception as error:  # a decoder may raise anything on bytes made to break it
        raise ImageError("truncated", f"the {image_format} file is damaged or cut short") from error
    check_size(image.width, image.height, limits)
    if image_format == "WEBP":  # Pillow has the bytes of its metadata, and has not looked at them
        orientation = orientation_of(image.info.pop("exif", b""), image.info.pop("xmp", b""))
        image.info["exif"] = exif_of(orientation)
    return image


def decoding_effort(encoded: bytes, image: Image.Image) -> int:
    """The pixels of an image that `open_image` opened, times how often its decoder goes over them.

    Reads all of a JPEG: 17 ms for 9 MB.
    """
    return image.width * image.height * (jpeg_effort(encoded) if image.format == "JPEG" else 1)


def _header_of(encoded: bytes, image_format: str, limits: ImageLimits) -> Image.Image:
    """Pillow's image, without its warning of many pixels where `limits` allow them."""
    if Image.MAX_IMAGE_PIXELS is None or limits.max_pixels <= Image.MAX_IMAGE_PIXELS:
        return Image.open(io.BytesIO(encoded), formats=[image_format])
    with warnings.catch_warnings():  # concerns all threads, hence not where limits are as usual
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(encoded), formats=[image_format])


def _has_many_chunks(png: bytes) -> bool:
    """Whether a PNG has more chunks than `MAX_PIECES`."""
    return next(islice(png_chunks(png), MAX_PIECES, None), None) is not None


def _has_many_segments(jpeg: bytes) -> bool:
    """Whether a JPEG has more segments than `MAX_PIECES` before its picture, or its picture too many scans."""
    for count, (marker, start, _) in enumerate(jpeg_pieces(jpeg)):
        if marker == START_OF_SCAN:  # the picture follows, which Pillow leaves to libjpeg
            return _has_many_scans(jpeg, start)
        if count == MAX_PIECES:
            return True
    return False


def _has_many_scans(jpeg: bytes, start: int) -> bool:
    """Whether a JPEG has more than `MAX_SCANS` from `start` on, or more than `MAX_PIECES` segments between them.

    Each scan may change every pixel, so the time for one is that for the whole picture, however few bytes it has.
    """
    scans = 0
    for count, (marker, _) in enumerate(jpeg_segments(jpeg, start)):
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS or count > MAX_PIECES:
            return True
    return False


def _format_of(encoded: bytes, first_frames: bool) -> str:
    for magic, image_format in (*_READ, *(_FRAMES if first_frames else ())):
        if encoded.startswith(magic):
            return image_format
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "WEBP"
    for magic, image_format in (*_FRAMES, *_RECOGNISED_ONLY):
        if encoded.startswith(magic):
            raise ImageError("unsupported_format", f"{image_format} is not read: give JPEG, PNG, WebP or BMP")
    if encoded[4:8] == b"ftyp":
        raise ImageError("unsupported_format", "HEIF, AVIF and video are not read: give JPEG, PNG, WebP or BMP")
    raise ImageError("not_an_image", "not an image: give JPEG, PNG, WebP or BMP")


def check_size(width: int, height: int, limits: ImageLimits = DEFAULT_LIMITS) -> None:
    """Raise ImageError unless a picture of `width` × `height` pixels is within `limits`."""
    if width * height > limits.max_pixels:
        raise ImageError("too_many_pixels", f"{width}×{height} is more than {limits.max_pixels:,} pixels: shrink it")
    if max(width, height) > limits.max_side:
        raise ImageError(
            "too_large_side", f"{width}×{height} has a side longer than {limits.max_side} pixels: shrink it"
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise ImageError(
            "extreme_aspect", f"{width}×{height} is longer than {limits.max_aspect:g}:1: cut it into pieces"
        )
    if min(width, height) < limits.min_side:
        raise ImageError(
            "too_small", f"{width}×{height} is too small to read: at least {limits.min_side} pixels a side"
        )


def _from_pil(image: Image.Image, limits: ImageLimits) -> npt.NDArray[np.uint8]:
    check_size(image.width, image.height, limits)
    if image.mode == "F":
        raise ImageError("unsupported_format", "floating-point images are not read: convert to 8 bits")
    try:
        return upright_rgb(image)
    except Exception as error:  # a decoder may raise anything on bytes made to break it
        if _is_closed(image, error):
            raise ImageError("not_readable", "the PIL image is closed: give it before, or give its file") from error
        if image.format is None:  # it comes from no file
            problem = f"a PIL image of mode {image.mode} cannot be converted to RGB ({error})"
            raise ImageError("unsupported_format", problem) from error
        raise ImageError("truncated", f"the {image.format} file is damaged or cut short") from error


def _is_closed(image: Image.Image, error: Exception) -> bool:
    """Whether `error` of loading an image is that it, or its file, was closed; Pillow says so in various ways."""
    without_file = getattr(image, "fp", image) is None  # of an image that came from one
    return "closed" in str(error) or (without_file and isinstance(error, AssertionError | AttributeError))


def _from_array(array: npt.NDArray[Any], limits: ImageLimits) -> npt.NDArray[np.uint8]:
    array = np.asarray(array)  # not a matrix, nor masked: their indices and functions mean something else
    if array.dtype != np.uint8:
        raise ImageError(
            "unsupported_array", f"a {array.dtype} array is not read: give uint8 values from 0 to 255, RGB or grey"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        raise ImageError(
            "unsupported_array",
            f"an array of shape {array.shape} is not read: give (height, width, 3) RGB or (height, width) grey",
        )
    check_size(array.shape[1], array.shape[0], limits)
    if array.ndim == 2:
        return grey_to_rgb(array)
    return composite(array) if array.shape[2] == 4 else np.ascontiguousarray(array)
