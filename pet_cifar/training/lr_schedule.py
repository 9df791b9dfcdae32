"""The learning rate's course over a run."""

import math
from typing import Literal

Schedule = Literal["one_cycle", "cosine", "triangle", "constant"]
FINAL: dict[Schedule, float] = {"one_cycle": 1e-4, "cosine": 0.0, "triangle": 0.07, "constant": 1.0}
"""Where each ends unless told otherwise."""


def schedule_factor(
    schedule: Schedule, progress: float, warmup_fraction: float, final_factor: float | None = None
) -> float:
    """What the learning rate is multiplied by after a share ``progress`` of the run, in [0, 1]."""
    if progress < warmup_fraction:
        rise = progress / warmup_fraction
        if schedule == "triangle":
            return 0.2 + 0.8 * rise
        return 1 - 0.96 * _half_cosine(rise) if schedule == "one_cycle" else rise
    fall = min(1.0, (progress - warmup_fraction) / (1 - warmup_fraction))
    lowest = FINAL[schedule] if final_factor is None else final_factor
    return lowest + (1 - lowest) * (1 - fall if schedule == "triangle" else _half_cosine(fall))


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2
