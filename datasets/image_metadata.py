"""Takes profiles, texts and tags out of image files: they can be made to cost seconds, and reading needs none."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

ORIENTATION = 0x0112  # EXIF's tag
START_OF_SCAN = 0xDA  # marker of a JPEG
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_EXIF_HEAD, _XMP_HEAD = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_PNG_XMP, _PNG_EXIF = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"
_MOST_TEXT = 2**17  # of a packed text that may hold the orientation: EXIF data of 64 KiB in hexadecimal digits
_ALONE = (0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE))  # markers of a JPEG after which Pillow reads no segment


def exif_of(orientation: int) -> bytes:
    """The EXIF data, without the head of a JPEG segment, of an image that has this orientation and nothing else."""
    return struct.pack("<2sHLHHHLHHL", b"II", 42, 8, 1, ORIENTATION, 3, 1, orientation, 0, 0)


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation, 1 to 8, by EXIF data or else by XMP; 1 if neither has one, or they are damaged."""
    found = _first_tag(exif.removeprefix(_EXIF_HEAD))
    if found is None and (match := _XMP.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _first_tag(tiff: bytes) -> int | None:
    """The orientation among the first tags of TIFF data; None if it is not there."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}L", tiff, 4)
    (count,) = struct.unpack(f"{order}H", tiff[start : start + 2].ljust(2, b"\0"))
    entries = tiff[start + 2 : start + 2 + 12 * count]
    for tag, kind, value in struct.iter_unpack(f"{order}HH4x4s", entries[: len(entries) // 12 * 12]):
        if tag == ORIENTATION and kind in (3, 4):  # 16 or 32 bits
            return int.from_bytes(value[: 2 * kind - 4], "little" if order == "<" else "big")
    return None


def without_metadata(encoded: bytes, image_format: str) -> bytes:
    """A PNG or JPEG file without what does not change the pixels, but for the orientation; other files as they are.

    Colour profiles and texts of a PNG are packed and may be a thousand times as large unpacked, once for each of
    thousands of chunks; EXIF data may have thousands of tags; Pillow looks at them all before the first pixel.
    """
    if image_format == "PNG":
        return _png_without(encoded)
    return _jpeg_without(encoded) if image_format == "JPEG" else encoded


def _png_without(png: bytes) -> bytes:
    kept, exif, xmp = [png[:8]], b"", b""
    text, packed = b"", False
    for name, start, stop in png_chunks(png):
        data = memoryview(png)[start + 8 : stop - 4]
        if name[:1].isupper() or name == b"tRNS":  # the picture
            kept.append(png[start:stop])
        elif name == b"eXIf":
            exif = bytes(data)
        elif name == b"iTXt" and data[: len(_PNG_XMP)] == _PNG_XMP:
            xmp = bytes(data)
        elif name in (b"tEXt", b"zTXt") and data[: len(_PNG_EXIF)] == _PNG_EXIF:
            text, packed = bytes(data[len(_PNG_EXIF) :][:_MOST_TEXT]), name == b"zTXt"
    if not exif and text:  # as ImageMagick writes it: a name, a number, and hexadecimal digits in lines
        digits = b"".join(_unpacked(text, packed).split(b"\n")[3:])
        exif = bytes.fromhex(digits.decode("latin-1")) if re.fullmatch(rb"(?:[0-9a-fA-F]{2})+", digits) else b""
    orientation = orientation_of(exif, xmp)
    if orientation != 1:
        chunk = b"eXIf" + exif_of(orientation)
        kept.insert(2, struct.pack(">L", len(chunk) - 4) + chunk + struct.pack(">L", zlib.crc32(chunk)))
    return b"".join(kept)


def _unpacked(text: bytes, packed: bool) -> bytes:
    """The text behind a keyword; as much of a packed one as may matter."""
    if not packed:
        return text
    try:
        return zlib.decompressobj().decompress(text[1:], _MOST_TEXT)
    except zlib.error:
        return b""


def png_chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk; the last may be cut short."""
    place = 8
    while place + 4 <= len(png):
        stop = place + 12 + int.from_bytes(png[place : place + 4])
        yield png[place + 4 : place + 8], place, stop
        place = stop


def jpeg_pieces(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each piece as Pillow finds them; the last begins the picture (0xDA), if there is one.

    The marker of a byte of padding is 0.
    """
    place = 2
    while place + 4 <= len(jpeg):
        first, marker = jpeg[place : place + 2]
        if first != 0xFF or marker in (0x00, 0xFF):
            marker, stop = 0, place + 1
        elif marker in _ALONE:
            stop = place + 2
        else:
            stop = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4])
        yield marker, place, stop
        if marker == START_OF_SCAN:
            return
        place = stop


def _jpeg_without(jpeg: bytes) -> bytes:
    kept, exif, xmp, rest = [jpeg[:2]], b"", b"", 2
    for marker, start, stop in jpeg_pieces(jpeg):
        if marker == START_OF_SCAN:
            break
        rest = stop
        data = jpeg[start + 4 : min(stop, start + 4 + len(_XMP_HEAD))]
        if marker == 0xE1 and data.startswith(_EXIF_HEAD):
            exif = exif or jpeg[start + 4 : stop]
        elif marker == 0xE1 and data.startswith(_XMP_HEAD):
            xmp = jpeg[start + 4 : stop]
        # Of the other applications' segments and comments, JFIF's and Adobe's say how colours are coded.
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or data.startswith((b"JFIF", b"Adobe")):
            kept.append(jpeg[start:stop])
    orientation = orientation_of(exif, xmp)
    if orientation != 1:
        segment = _EXIF_HEAD + exif_of(orientation)
        kept.insert(1, b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment)
    return b"".join([*kept, jpeg[rest:]])
