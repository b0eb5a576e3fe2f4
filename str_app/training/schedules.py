"""Learning rates by step, as shares of their peak: a linear warm-up, then down to a hundredth at the last step."""

from __future__ import annotations

import math

LOWEST = 0.01


def cosine(step: int, steps: int, warmup_steps: int) -> float:
    """Falls along half a cosine wave after the warm-up."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * progress))


def constant(step: int, steps: int, warmup_steps: int, cooling: float = 0.2) -> float:
    """Stays at the peak until the share `cooling` of the steps is left, then falls in a straight line.

    Until it falls, a run can be made longer or shorter (arXiv 2405.18392).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return LOWEST + (1 - LOWEST) * min(1.0, (steps - step) / max(1, cooling * steps))
