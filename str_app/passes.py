"""Which crops go through the network together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def passes(canvas_widths: Sequence[int], largest: int) -> Iterator[list[int]]:
    """Places of the crops that make up one pass: one canvas width, one of the usual sizes.

    Args:
        canvas_widths: of each crop.
        largest: most crops in one pass; see `batch_sizes`.
    """
    for width in sorted(set(canvas_widths)):
        places = [place for place, other in enumerate(canvas_widths) if other == width]
        start = 0
        for size in batch_sizes(len(places), largest):
            yield places[start : start + size]
            start += size


def batch_sizes(count: int, largest: int) -> list[int]:
    """Sizes of the passes for `count` crops: full batches, then the powers of two that make up the rest.

    >>> batch_sizes(75, 32)
    [32, 32, 8, 2, 1]
    """
    rest = count % largest
    return [largest] * (count // largest) + [
        1 << bit for bit in range(rest.bit_length() - 1, -1, -1) if rest >> bit & 1
    ]
