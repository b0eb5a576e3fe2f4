"""Batches of few fixed shapes: engines cache memory and kernels for every shape they meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches_by_width(canvas_widths: Sequence[int], max_batch: int) -> Iterator[list[int]]:
    """Indices of the crops of each batch: one canvas width, one of the `bucket_sizes`.

    Args:
        canvas_widths: of each crop.
        max_batch: most crops in one batch.
    """
    for width in sorted(set(canvas_widths)):
        indices = [index for index, other in enumerate(canvas_widths) if other == width]
        start = 0
        for size in split_into_buckets(len(indices), max_batch):
            yield indices[start : start + size]
            start += size


def bucket_sizes(max_batch: int) -> list[int]:
    """The batch sizes in use, ascending: 1, 2, 3, 4, 6, 8, 12, … and `max_batch`.

    Few, so that an engine meets few shapes; close enough that little is left over.

    >>> bucket_sizes(32)
    [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    """
    sizes = {step << bit for step in (1, 3) for bit in range(max_batch.bit_length())}
    return sorted({size for size in sizes if size < max_batch} | {max_batch})


def padded_size(count: int) -> int:
    """The smallest bucket that holds `count` rows.

    >>> [padded_size(count) for count in (1, 5, 9, 33)]
    [1, 6, 12, 48]
    """
    return next(size for size in bucket_sizes(2 * count) if size >= count)


def split_into_buckets(count: int, max_batch: int) -> list[int]:
    """Batch sizes for `count` crops, the largest possible first.

    >>> split_into_buckets(75, 32)
    [32, 32, 8, 3]
    """
    sizes = [max_batch] * (count // max_batch)
    rest = count % max_batch
    for size in reversed(bucket_sizes(max_batch)):
        while rest >= size:
            sizes.append(size)
            rest -= size
    return sizes
