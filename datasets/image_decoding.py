"""Decodes image bytes or a PIL image to a uint8 RGB array, the same way for training, evaluation and serving."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

from str_app.datasets.image_metadata import ORIENTATION, START_OF_SCAN
from str_app.datasets.sample import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # of the files that are looked for in folders
# Not all that Pillow knows: for EPS it starts Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "AVIF", "PPM", "ICO", "TGA")
_TURNS = {  # orientation → what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TRUNCATED = "image file is truncated"
_END_OF_IMAGE = b"\xff\xd9"
# A marker of a JPEG that a segment follows, or the end of the picture. Others are part of a scan's data, or alone.
_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
# Any of it goes unnoticed in up to 16 % of the cut files; the last has the markers between parts of a scan.
_PATTERNS = [Random(seed).randbytes(64).replace(b"\xff", b"\x7f") for seed in range(8)]
_USUAL_SCANS = 10  # of a progressive JPEG
_MOST_COMPLETED = 100_000_000  # pixels × scans of a JPEG that is decoded once for each of:
_ADDED = (b"", *_PATTERNS, b"".join(b"\xff%c%b" % (marker, _PATTERNS[0]) for marker in range(0xD0, 0xD8)))


def decode_image(encoded: bytes) -> npt.NDArray[np.uint8]:
    """Decode an image; see `upright_rgb`.

    Args:
        encoded: the bytes of a JPEG, PNG, WebP, BMP, GIF, TIFF, JPEG 2000, AVIF, PPM, ICO or TGA file.

    Returns:
        uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        DataError: the bytes are empty, not an image, or truncated.
    """
    if not encoded:
        raise DataError("the image is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            return upright_rgb(image)
    except Exception as error:  # a decoder may raise anything on damaged bytes
        # Pillow's message for unknown bytes prints the address of a BytesIO.
        reason = (
            "not an image, or of a format that is not read"
            if "cannot identify" in str(error)
            else str(error) or type(error).__name__
        )
        raise DataError(f"the image cannot be decoded: {reason}") from error


def upright_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Pixels rotated by the EXIF tag, 8 bits per channel, on a contrasting background where transparent, CMYK as RGB.

    Returns:
        uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        Exception: whatever Pillow raises if the image is damaged or truncated.
        ValueError: floating-point pixels.
    """
    try:
        image.load()
    except OSError:
        image = _complete_jpeg(image)
    # Both steps copy even if there is nothing to do, and a large image takes 100 MB each time.
    # Not `ImageOps.exif_transpose`, which writes the EXIF data anew and fails where they are damaged.
    turn = _turn(image)
    upright = image if turn is None else image.transpose(turn)
    if upright.mode == "F":
        raise ValueError("floating-point pixels are not read: convert to 8 bits")
    if upright.mode == "I" or upright.mode.startswith("I;16"):
        return grey_to_rgb(_eight_bits(upright))
    if upright.mode == "La":  # premultiplied, which Pillow converts to LA alone
        upright = upright.convert("LA")
    if upright.has_transparency_data:
        return composite(np.asarray(upright.convert("RGBA")))
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"), dtype=np.uint8)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What the EXIF orientation asks for; None where there is none, or the EXIF data are damaged."""
    try:
        return _TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # of various types
        return None


def _complete_jpeg(image: Image.Image) -> Image.Image:
    """A JPEG that could not be loaded because its end marker is missing, and nothing else.

    libjpeg makes up what is missing before an end marker, and Pillow cannot tell. So the file is completed with several
    data, and accepted if the pixels are the same: then they do not depend on what was added.

    Raises:
        OSError: the image is not a JPEG, or other data is missing too.
    """
    file = getattr(image, "fp", None)
    if image.format != "JPEG" or file is None:
        raise OSError(_TRUNCATED)
    file.seek(0)
    encoded = file.read().removesuffix(b"\xff")
    many = image.width * image.height * len(_scans_of(encoded)) > _MOST_COMPLETED
    if many or not _has_all_scans(encoded):
        raise OSError(_TRUNCATED)

    def completed(added: bytes) -> Image.Image:
        return Image.open(io.BytesIO(encoded + added + _END_OF_IMAGE), formats=["JPEG"])

    first, *others = _ADDED
    result = completed(first)
    pixels = np.asarray(result)
    if not all(np.array_equal(pixels, np.asarray(completed(added))) for added in others):
        raise OSError(_TRUNCATED)
    return result


def jpeg_segments(jpeg: bytes, start: int = 2) -> Iterator[tuple[int, int]]:
    """Marker, and place of the two bytes of its length, of each segment from `start` on, as libjpeg finds them."""
    place = start
    while (found := _SEGMENT.search(jpeg, place)) is not None and found[1] != b"\xd9":
        yield found[1][0], found.end()
        place = found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2])


def jpeg_effort(jpeg: bytes) -> int:
    """How many times as long a JPEG takes to decode as others of its size: it has many scans, or no end marker."""
    scans = _scans_of(jpeg)
    ended = jpeg.find(_END_OF_IMAGE, scans[-1] if scans else 0) >= 0
    return -(-max(1, len(scans)) // _USUAL_SCANS) * (1 if ended else len(_ADDED))


def _scans_of(jpeg: bytes) -> list[int]:
    """Where each scan begins."""
    return [place for marker, place in jpeg_segments(jpeg) if marker == START_OF_SCAN]


def _has_all_scans(jpeg: bytes) -> bool:
    """Whether scans of all components, with all frequencies and bits, have begun."""
    missing: set[tuple[int, int]] | None = None  # component, frequency
    for marker, place in jpeg_segments(jpeg):
        segment = jpeg[place + 2 : place + int.from_bytes(jpeg[place : place + 2])]
        if marker in (0xC0, 0xC1, 0xC2) and len(segment) >= 6:
            missing = {(component, k) for component in segment[6::3] for k in range(64)}
        elif marker == START_OF_SCAN and missing is not None and len(segment) >= 4:
            first, last, bits = segment[-3:]
            if bits & 15 == 0:
                missing -= {(component, k) for component in segment[1:-3:2] for k in range(first, last + 1)}
    return missing is not None and not missing


def grey_to_rgb(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W) → (H, W, 3)."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def composite(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Composite uint8 (H, W, 4) on white or black, whichever has more contrast to the visible pixels.

    Black letters on transparency stay legible, and so do white ones. If all pixels are transparent, as in many 32-bit
    BMP files, alpha is ignored.
    """
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    visible = luminance = 0.0
    for _, colour, alpha in _strips(rgba):
        visible += float(alpha.sum(dtype=np.float64))
        luminance += float(((colour @ weights) * alpha[:, :, 0]).sum(dtype=np.float64))
    if visible == 0.0:
        return np.ascontiguousarray(rgba[:, :, :3])
    background = 0.0 if luminance / visible > 127.5 else 255.0
    opaque = np.empty((*rgba.shape[:2], 3), dtype=np.uint8)
    for rows, colour, alpha in _strips(rgba):
        opaque[rows] = np.rint(colour * alpha + background * (1.0 - alpha))
    return opaque


def _strips(
    rgba: npt.NDArray[np.uint8],
) -> Iterator[tuple[slice, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Some rows at a time with their colours and alpha in [0, 1]: as floats, a large image would take a gigabyte."""
    step = max(1, 2**18 // max(1, rgba.shape[1]))
    for start in range(0, rgba.shape[0], step):
        rows = slice(start, start + step)
        yield rows, rgba[rows, :, :3].astype(np.float32), rgba[rows, :, 3:].astype(np.float32) / 255.0


def _eight_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey values of a 16-bit image, scaled; Pillow's own conversion would clip them to white."""
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    # Eight-bit values in a 16-bit image, as some scanners write them, would become black by scaling.
    return (values if values.max() <= 255 else values // 257).astype(np.uint8)
