"""From encoded bytes, or an opened picture, to one uint8 RGB array: the same pixels wherever the picture comes from."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from str_app.datasets.sample import DataError

_ORIENTATION = 0x0112


def decode_image(encoded: bytes) -> npt.NDArray[np.uint8]:
    """Decode one image of any kind that Pillow knows; see `upright_rgb`.

    Args:
        encoded: the bytes of a JPEG, PNG, WebP, BMP, TIFF, …

    Returns:
        uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        DataError: the bytes are empty, no image, or cut short.
    """
    if not encoded:
        raise DataError("the image is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return upright_rgb(image)
    except Exception as error:  # a decoder may raise anything on damaged bytes
        # Pillow's message for unknown bytes prints the address of a BytesIO.
        reason = "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__
        raise DataError(f"the image cannot be decoded: {reason}") from error


def upright_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Pixels upright by the EXIF tag, 8 bits a channel, transparency laid on a contrasting ground, CMYK converted.

    Returns:
        uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        Whatever Pillow raises where the picture is damaged or cut short.
        ValueError: floating-point pixels.
    """
    image.load()
    # Both steps copy even where there is nothing to do, and a large picture takes 100 MB each time.
    upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise ValueError("floating-point pixels are not read: convert to 8 bits")
    if upright.mode == "I" or upright.mode.startswith("I;16"):
        return grey_to_rgb(_eight_bits(upright))
    if upright.has_transparency_data:
        return composite(np.asarray(upright.convert("RGBA")))
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"), dtype=np.uint8)


def grey_to_rgb(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W) → (H, W, 3)."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def composite(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Lay uint8 (H, W, 4) on white or black, whichever lies farther from the visible pixels' luminance.

    Black letters on transparency stay readable, and so do white ones. Where nothing at all is visible, alpha is
    taken for a mistake of the writer (as in many 32-bit BMP files) and the colours are shown.
    """
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    visible = luminance = 0.0
    for _, colour, alpha in _strips(rgba):
        visible += float(alpha.sum(dtype=np.float64))
        luminance += float(((colour @ weights) * alpha[:, :, 0]).sum(dtype=np.float64))
    if visible == 0.0:
        return np.ascontiguousarray(rgba[:, :, :3])
    ground = 0.0 if luminance / visible > 127.5 else 255.0
    flat = np.empty((*rgba.shape[:2], 3), dtype=np.uint8)
    for rows, colour, alpha in _strips(rgba):
        flat[rows] = np.rint(colour * alpha + ground * (1.0 - alpha))
    return flat


def _strips(
    rgba: npt.NDArray[np.uint8],
) -> Iterator[tuple[slice, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Some rows at a time with their colours and alpha (0 to 1): as float a large picture would take a gigabyte."""
    step = max(1, 2**18 // max(1, rgba.shape[1]))
    for start in range(0, rgba.shape[0], step):
        rows = slice(start, start + step)
        yield rows, rgba[rows, :, :3].astype(np.float32), rgba[rows, :, 3:].astype(np.float32) / 255.0


def _eight_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey values of a deep image scaled, where Pillow's own conversion would clip them to white."""
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    # Eight bits kept in a deep image, as some scanners write them, would all be black after scaling.
    return (values if values.max() <= 255 else values // 257).astype(np.uint8)
