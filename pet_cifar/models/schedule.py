"""The learning rate's course over a run."""

import math
from typing import Literal

Schedule = Literal["one_cycle", "cosine", "triangle", "constant"]


def schedule_factor(schedule: Schedule, progress: float, warmup_fraction: float) -> float:
    """What the learning rate is multiplied by after a share ``progress`` of the run, in [0, 1]."""
    if progress < warmup_fraction:
        rise = progress / warmup_fraction
        if schedule == "triangle":
            return 0.2 + 0.8 * rise
        return 1 - 0.96 * _half_cosine(rise) if schedule == "one_cycle" else rise
    fall = min(1.0, (progress - warmup_fraction) / (1 - warmup_fraction))
    if schedule == "constant":
        return 1.0
    if schedule == "triangle":
        return 1 - 0.93 * fall
    lowest = 1e-4 if schedule == "one_cycle" else 0.0
    return lowest + (1 - lowest) * _half_cosine(fall)


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2
