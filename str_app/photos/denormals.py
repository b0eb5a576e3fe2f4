"""Weights of a graph that are too small to matter, and slow processors down."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Fields of ONNX's messages (onnx.proto). The package onnx is not needed to read: only `str-app[export]` has it.
_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_TENSOR_TYPE, _TENSOR_RAW_DATA, _FLOAT = 2, 9, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types


def without_denormals(graph: bytes) -> bytes:
    """The same ONNX graph with zeros for its denormal weights: float32 below 1.2e-38 in magnitude.

    Processors multiply them in microcode, tens of times slower. ONNX Runtime's `session.set_denormal_as_zero` is for
    the threads of its own pool; the thread that calls is another.

    Args:
        graph: the content of an ONNX file. Weights that a tensor does not keep in `raw_data` stay as they are.

    Raises:
        ValueError: it is no message of protobuf.
    """
    flushed = bytearray(graph)
    for tensor in _nested(graph, (0, len(graph)), (_MODEL_GRAPH, _GRAPH_INITIALIZER)):
        fields = dict(_fields(graph, *tensor))
        if fields.get(_TENSOR_TYPE) == _FLOAT and isinstance(place := fields.get(_TENSOR_RAW_DATA), tuple):
            weights = np.frombuffer(flushed, "<f4", (place[1] - place[0]) // 4, place[0])
            weights[np.abs(weights) < np.finfo(np.float32).tiny] = 0
    return bytes(flushed)


def _nested(data: bytes, place: tuple[int, int], path: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Where the messages lie that are reached through these fields."""
    if not path:
        yield place
        return
    for number, content in _fields(data, *place):
        if number == path[0] and isinstance(content, tuple):
            yield from _nested(data, content, path[1:])


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Number and content of a message's fields: an integer, or where bytes begin and end."""
    while start < end:
        key, start = _varint(data, start, end)
        kind = key & 7
        if kind == _VARINT:
            value, start = _varint(data, start, end)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, start = _varint(data, start, end)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {start}: not a message of protobuf")
        if start + size > end:
            raise ValueError(
                f"a field ends beyond its message, at byte {start}: not a message of protobuf, or cut short"
            )
        yield key >> 3, (start, start + size)
        start += size


def _varint(data: bytes, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while start < end:
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
    raise ValueError(f"an integer is cut short at byte {start}: not a message of protobuf")
