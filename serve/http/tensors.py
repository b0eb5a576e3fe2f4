"""Binary tensors of the Open Inference Protocol: little-endian; BYTES elements are a uint32 length and the content.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence


def split_bytes(data: bytes) -> Iterator[bytes]:
    """Split a BYTES tensor into its elements.

    Raises:
        ValueError: the tensor is truncated.
    """
    start = 0
    while start < len(data):
        if start + 4 > len(data):
            raise ValueError("a BYTES tensor is truncated")
        (length,) = struct.unpack_from("<I", data, start)
        start += 4
        if start + length > len(data):
            raise ValueError("an element of a BYTES tensor is longer than the tensor")
        yield data[start : start + length]
        start += length


def binary_bytes(texts: Sequence[str]) -> bytes:
    """Encode texts as a BYTES tensor, UTF-8."""
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def binary_floats(numbers: Sequence[float]) -> bytes:
    """Encode numbers as an FP32 tensor."""
    return struct.pack(f"<{len(numbers)}f", *numbers)
