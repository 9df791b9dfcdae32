"""Keeps the drawing of a run to a small share of its time."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

LARGEST_SHARE = 0.05
"""The largest share of a run's time that pictures may take, unless its start and its end alone take more."""
PLANNED_SHARE = 0.8
"""How much of that is planned: the rest is for what no clock here counts, such as collecting the predictions."""


class DrawingTime:
    """Counts the seconds of a run and of its drawing, and tells whether another drawing is affordable.

    What is drawn at the end of a run is always drawn, so that its seconds are kept back from the beginning.

    Attributes:
        drawn: The seconds that were spent on drawing.
        num_drawn: The number of drawings.
        num_left_out: The number of drawings that were due and not affordable.
    """

    def __init__(self) -> None:
        self.drawn = 0.0
        self.num_drawn = self.num_left_out = 0
        self._seconds = 0.0
        self._since: float | None = None
        self._costs: dict[str, float] = {}

    def start(self) -> None:
        """Starts the clock of the run."""
        self._since = monotonic()

    def stop(self) -> None:
        """Stops the clock of the run."""
        self._seconds, self._since = self.seconds, None

    @property
    def seconds(self) -> float:
        """The seconds that the run has taken so far, with its drawing and without the time between kill and resume."""
        return self._seconds + (0.0 if self._since is None else monotonic() - self._since)

    @property
    def share(self) -> float:
        """The share of the run's seconds that were spent on drawing."""
        return self.drawn / self.seconds if self.seconds else 0.0

    def affords(self, name: str) -> bool:
        """Whether one more drawing of this name keeps to the share; it counts what is left out."""
        known = self._costs.values()
        # A drawing that was never made is taken for one like the others.
        cost = self._costs.get(name, sum(known) / len(known) if known else 0.0)
        is_affordable = self.drawn + cost + sum(known) <= PLANNED_SHARE * LARGEST_SHARE * self.seconds
        self.num_left_out += not is_affordable
        return is_affordable

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Counts the seconds of one drawing."""
        began = monotonic()
        yield
        self._costs[name] = monotonic() - began
        self.drawn += self._costs[name]
        self.num_drawn += 1

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on needs to know, in seconds."""
        numbers = {"num_drawn": self.num_drawn, "num_left_out": self.num_left_out}
        return {"drawn": self.drawn, "seconds": self.seconds, "costs": dict(self._costs), **numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on counting."""
        self.drawn, self._seconds, self._costs = state["drawn"], state["seconds"], dict(state["costs"])
        self.num_drawn, self.num_left_out = state["num_drawn"], state["num_left_out"]
