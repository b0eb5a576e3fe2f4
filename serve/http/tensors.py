"""Binary tensors of the Open Inference Protocol: little-endian, BYTES as length and content.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence


def split_bytes(data: bytes) -> Iterator[bytes]:
    """The elements of a BYTES tensor.

    Raises:
        ValueError: a length points beyond the end.
    """
    start = 0
    while start < len(data):
        if start + 4 > len(data):
            raise ValueError("a BYTES tensor is cut off")
        (length,) = struct.unpack_from("<I", data, start)
        start += 4
        if start + length > len(data):
            raise ValueError("a BYTES tensor has an element longer than itself")
        yield data[start : start + length]
        start += length


def binary_bytes(texts: Sequence[str]) -> bytes:
    """Texts as a BYTES tensor, UTF-8."""
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def binary_floats(numbers: Sequence[float]) -> bytes:
    """Numbers as an FP32 tensor."""
    return struct.pack(f"<{len(numbers)}f", *numbers)
