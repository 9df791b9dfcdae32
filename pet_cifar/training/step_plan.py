"""How many steps fit into a time, and how far a run has come that makes them."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """What a run's time goes to.

    Attributes:
        step: The seconds of a step.
        pause: The seconds of a validation and of what else an epoch ends with.
        until_pause: How many steps are left before the next pause; 0 within it.
        between: How many steps there are between two pauses.
    """

    step: float
    pause: float
    until_pause: int
    between: int

    def steps_within(self, seconds: float) -> tuple[int, bool]:
        """How many steps fit into ``seconds``.

        Returns:
            The steps, and whether they fit only if the next pause is left out.
        """
        before = self.until_pause * self.step
        if seconds < before + self.pause + self.step:
            # Where the next pause would take all that is left, the run makes its steps instead.
            steps = max(0, math.floor(seconds / self.step))
            return steps, steps > self.until_pause
        rounds, rest = divmod(seconds - before - self.pause, self.between * self.step + self.pause)
        last = min(math.floor(rest / self.step), self.between)
        return self.until_pause + int(rounds) * self.between + last, False


class StepPlan:
    """The share of a run that is over after each step, where the number of steps is known only roughly.

    Between two plans the share grows by the same amount with every step. A new plan begins at the share that is
    reached and divides the rest among the steps that are left, so that the share never falls and always ends at 1.
    """

    def __init__(self) -> None:
        self._step = 0
        self._progress = 0.0
        self._left: int | None = None

    def progress(self, step: int) -> float:
        """The share of the run that is over after ``step`` steps, from 0 to 1."""
        if self._left is None:
            return self._progress
        if step >= self._step + self._left:
            return 1.0
        return self._progress + (1 - self._progress) * (step - self._step) / self._left

    def start(self, step: int, progress: float) -> None:
        """Goes on from a share that a checkpoint holds; without a plan it stays there."""
        self._step, self._progress, self._left = step, progress, None

    def replan(self, step: int, left: int) -> None:
        """Lets the run end after ``left`` more steps, 1 or more."""
        self._step, self._progress, self._left = step, self.progress(step), left
