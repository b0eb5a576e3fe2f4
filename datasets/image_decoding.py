"""From encoded bytes, or an opened picture, to one uint8 RGB array: the same pixels wherever the picture comes from."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from datasets.sample import DataError


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
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise ValueError("floating-point pixels are not read: convert to 8 bits")
    if upright.mode == "I" or upright.mode.startswith("I;16"):
        return grey_to_rgb(_eight_bits(upright))
    if upright.has_transparency_data:
        return composite(np.asarray(upright.convert("RGBA")))
    return np.array(upright.convert("RGB"), dtype=np.uint8)


def grey_to_rgb(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W) → (H, W, 3)."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def composite(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Lay uint8 (H, W, 4) on white or black, whichever lies farther from the visible pixels' luminance.

    Black letters on transparency stay readable, and so do white ones. Where nothing at all is visible, alpha is
    taken for a mistake of the writer (as in many 32-bit BMP files) and the colours are shown.
    """
    colour = rgba[:, :, :3].astype(np.float32)
    alpha = rgba[:, :, 3:].astype(np.float32) / 255.0
    visible = float(alpha.sum())
    if visible == 0.0:
        return np.ascontiguousarray(rgba[:, :, :3])
    luminance = colour @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    ground = 0.0 if float((luminance * alpha[:, :, 0]).sum()) / visible > 127.5 else 255.0
    return np.rint(colour * alpha + ground * (1.0 - alpha)).astype(np.uint8)


def _eight_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey values of a deep image scaled, where Pillow's own conversion would clip them to white."""
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    # Eight bits kept in a deep image, as some scanners write them, would all be black after scaling.
    return (values if values.max() <= 255 else values // 257).astype(np.uint8)
