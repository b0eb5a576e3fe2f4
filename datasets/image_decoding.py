"""From encoded bytes to one uint8 RGB array, the same way for every source."""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt

from datasets.sample import DataError


def decode_image(encoded: bytes) -> npt.NDArray[np.uint8]:
    """Decode one image: upright by its EXIF tag, 8 bits a channel, transparency laid on a contrasting ground.

    OpenCV reads what it reads rightly; Pillow takes CMYK, transparency and whatever looks cut short, since OpenCV
    would invert the first, drop the second and fill the third with grey.

    Args:
        encoded: the bytes of a JPEG, PNG, WebP, BMP, TIFF or whatever else the two libraries know.

    Returns:
        uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        DataError: the bytes are empty, no image, or cut short.
    """
    if not encoded:
        raise DataError("the image is empty (0 bytes)")
    if _needs_pillow(encoded):
        return _decode_with_pillow(encoded)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        image = None
    if image is None:
        return _decode_with_pillow(encoded)
    return np.ascontiguousarray(image, dtype=np.uint8)


def _needs_pillow(encoded: bytes) -> bool:
    if encoded.startswith(b"\xff\xd8"):
        components, scan = _jpeg_frame(encoded)
        return components == 4 or encoded.rfind(b"\xff\xd9") < scan
    if encoded.startswith(b"\x89PNG"):
        transparent = encoded[25:26] in (b"\x04", b"\x06") or b"tRNS" in encoded
        return transparent or b"IEND" not in encoded[-1024:]
    if encoded.startswith(b"RIFF"):
        extended_alpha = encoded[12:16] == b"VP8X" and bool(encoded[20] & 0x10) if len(encoded) > 24 else True
        lossless_alpha = encoded[12:16] == b"VP8L" and len(encoded) > 24 and bool(encoded[24] & 0x10)
        return extended_alpha or lossless_alpha or len(encoded) < 8 + int.from_bytes(encoded[4:8], "little")
    # BMP is decoded by OpenCV even when its rows are missing.
    return encoded.startswith(b"BM")


def _jpeg_frame(encoded: bytes) -> tuple[int, int]:
    """Number of colour components and offset of the first scan; the end of the bytes where there is none."""
    components, position = 0, 2
    while position + 4 <= len(encoded):
        if encoded[position] != 0xFF:
            break
        marker = encoded[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and position + 10 <= len(encoded):
            components = encoded[position + 9]
        if marker == 0xDA:
            return components, position
        position += 2 + int.from_bytes(encoded[position + 2 : position + 4], "big")
    return components, len(encoded)


def _decode_with_pillow(encoded: bytes) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # Pillow's own conversion would clip 16 bits to white
                grey = (np.clip(np.asarray(upright).astype(np.int64), 0, 65535) // 257).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            if upright.has_transparency_data:
                return _composite(np.asarray(upright.convert("RGBA")))
            return np.array(upright.convert("RGB"), dtype=np.uint8)
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise DataError(f"the image cannot be decoded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # Pillow's message for unknown bytes prints the address of a BytesIO.
    return "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__


def _composite(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Lay uint8 (H, W, 4) on white or black, whichever lies farther from the visible pixels' luminance."""
    colour = rgba[:, :, :3].astype(np.float32)
    alpha = rgba[:, :, 3:].astype(np.float32) / 255.0
    visible = float(alpha.sum())
    if visible == 0.0:  # alpha left at zero by mistake, as in many 32-bit files
        return np.ascontiguousarray(rgba[:, :, :3])
    luminance = colour @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    ground = 0.0 if float((luminance * alpha[:, :, 0]).sum()) / visible > 127.5 else 255.0
    return np.rint(colour * alpha + ground * (1.0 - alpha)).astype(np.uint8)
