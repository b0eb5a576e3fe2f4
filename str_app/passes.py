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


def usual_sizes(largest: int) -> list[int]:
    """Sizes that a pass may have, ascending: 1, 2, 3, 4, 6, 8, 12, … and `largest`.

    Few, so that the engine meets few shapes and caches a few; close enough that little of what waits is left over.

    >>> usual_sizes(32)
    [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    """
    doubled = {step << bit for step in (1, 3) for bit in range(largest.bit_length())}
    return sorted({size for size in doubled if size < largest} | {largest})


def padded_size(count: int) -> int:
    """The least usual size that `count` fit in.

    >>> [padded_size(count) for count in (1, 5, 9, 33)]
    [1, 6, 12, 48]
    """
    return next(size for size in usual_sizes(2 * count) if size >= count)


def batch_sizes(count: int, largest: int) -> list[int]:
    """Sizes of the passes for `count` crops, each the greatest of the usual ones that is left.

    >>> batch_sizes(75, 32)
    [32, 32, 8, 3]
    """
    sizes = [largest] * (count // largest)
    rest = count % largest
    for size in reversed(usual_sizes(largest)):
        while rest >= size:
            sizes.append(size)
            rest -= size
    return sizes
