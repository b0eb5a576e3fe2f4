"""Counts of the samples that a run has used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from str_app.training.distributed import World
from str_app.training.samples import Batch, SampleId


class SampleUsage:
    """Counts distinct samples since the start or resumption of a run: how many it has seen, and which are unusable.

    Args:
        sizes: number of samples in each source.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._requests: Counter[int] = Counter()  # source → samples requested, repetitions included
        self._recent: Counter[int] = Counter()  # those of this process since the last merge
        self.unusable: set[SampleId] = set()
        self.last_reason = ""
        self._named = 0

    @property
    def positions(self) -> int:
        """Samples requested in all processes, with repetitions."""
        return self._requests.total()

    @property
    def seen(self) -> int:
        """Distinct samples requested: no sample of a source is repeated before all of it have been requested."""
        return sum(min(size, self._requests[source]) for source, size in enumerate(self._sizes))

    def count(self, batch: Batch) -> list[str]:
        """Count a batch of this process; returns why its samples are unusable, for the first five in the run."""
        self._recent.update(source for source, _ in batch.seen)
        reasons = [reason for key, reason in batch.unusable.items() if key not in self.unusable]
        self.unusable.update(batch.unusable)
        self.last_reason = reasons[-1] if reasons else self.last_reason
        first = reasons[: max(0, 5 - self._named)]
        self._named += len(first)
        return first

    def merge(self, world: World) -> None:
        """Combine the counts of all processes."""
        for recent, unusable in world.gather((self._recent, self.unusable)):
            self._requests.update(recent)
            self.unusable = self.unusable | unusable
        self._recent = Counter()

    def state_dict(self) -> dict[str, Any]:
        """In types that `save_state` accepts; a run that is resumed, perhaps with repaired data, counts anew."""
        return {"requests": dict(self._requests), "unusable": sorted(self.unusable)}
