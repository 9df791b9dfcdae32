"""Ends a run when its time is over; the learning rate falls with the time that is left."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.durations import described
from pet_cifar.errors import InputError, RunRefusedError, check_positive
from pet_cifar.training.step_plan import Pace, StepPlan

log = logging.getLogger(__name__)

SPARE = 0.007
"""The share of the budget that no step is planned for, since no forecast is exact."""
END_SECONDS, SHARE_OF_END = 1.5, 0.006
"""What Python itself takes to end on an idle machine, and the largest share of the budget that is kept for it."""
SHARE_OF_PLAN = 0.005
"""After how much of the budget the run plans anew; near its end it does so more often."""
SHARE_OF_FIRST = 0.01
"""How much of the budget is measured before the run says what it will do."""
LAST_MEASURES = 5
"""How many of the last measurements of steps tell how long the next ones are."""
LAST_PAUSES = 3
"""How many of the last pauses tell how long the next ones are."""
SHARE_TO_END = 0.004
"""The share of the budget that such steps may take although the time is over."""
STEPS_TO_END = 50
"""How many steps the schedule takes at least for its whole course where the time is suddenly over."""


@dataclass(frozen=True)
class _Forecast:
    """What rank zero has planned, for all processes.

    Attributes:
        left: How many steps are left.
        next_plan: After which step the next plan is made.
        skips_pause: Whether the next validation is left out.
        refusal: Why the run cannot be made in this time; None where it can.
    """

    left: int
    next_plan: int
    skips_pause: bool
    refusal: str | None = None


class TimeBudget(Callback):
    """Ends a run when its time is over, and fits the learning rate's schedule to the time.

    How long a step, a validation and the end of an epoch take is measured in the run. From that it plans how many steps
    are left, and plans anew in small intervals, so that a run on a machine whose load changes still ends in time and at
    the schedule's end. The time includes validations, drawings and checkpoints. Where the last
    validation but one would take all the time that is left, it is left out.

    The schedule depends on the clock, so that two such runs do not give the same weights to the last bit. A run that
    goes on from a checkpoint has spent the time that its checkpoint holds.

    Args:
        seconds: The time of the whole run.
        began: The reading of the clock when the run began; null takes the moment in which training is set up.
        clock: Gives the time in seconds, from any beginning.

    Raises:
        InputError: The time is not a number above 0.
    """

    def __init__(self, seconds: float, began: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        check_positive("seconds", seconds)
        self.seconds = seconds
        self.plan = StepPlan()
        self._clock = clock
        self._began = began
        self._spent_before = 0.0
        self._is_loaded = self._runs = False
        self._step = 0
        self._forget_measures()

    def _forget_measures(self) -> None:
        self._mark: tuple[float, int] | None = None
        self._measured: list[float] = []
        self._step_seconds = self._first_step_seconds = 0.0
        self._first_mark = math.inf
        self._paused = 0.0
        self._pause_began: float | None = None
        self._pauses: list[float] = []
        self._train_began = math.inf
        self._drawing_seconds: float | None = None
        self._next_plan = 0
        self._skips_pause = False
        self._limit: int | float | None = None
        self._has_told = False

    @property
    def spent(self) -> float:
        """The seconds since the run began, those before a checkpoint among them."""
        return self._spent_before + (0.0 if self._began is None else self._clock() - self._began)

    @property
    def is_over(self) -> bool:
        """Whether the last step is made."""
        return self.plan.progress(self._step) >= 1

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts the clock, unless it was started before."""
        if stage == "fit":
            self._forget_measures()
            self.plan, self._spent_before = StepPlan(), 0.0
            self._is_loaded = self._runs = False
            self._began = self._clock() if self._began is None else self._began

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that a checkpoint has been loaded by now; a search for a learning rate loads one of its own."""
        self._runs = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops the clock."""
        if stage == "fit":
            self._spent_before, self._began = self.spent, None

    def state_dict(self) -> dict[str, Any]:
        """Keeps the time that is spent, and how far the schedule is."""
        return {"seconds": self.seconds, "spent": self.spent, "progress": self.plan.progress(self._step)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Counts the time that was spent before; with another budget the schedule is as far as the time is."""
        if self._runs:
            return
        self._spent_before = state_dict["spent"]
        share = min(1.0, self._spent_before / self.seconds)
        self._is_loaded = True
        self.plan.start(0, state_dict["progress"] if state_dict["seconds"] == self.seconds else share)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a run at once that has no time left.

        Raises:
            InputError: The time was over before the first step.
        """
        self._step, self._train_began = trainer.global_step, self._clock()
        self.plan.start(self._step, self.plan.progress(self._step))
        self._next_plan = self._step + 4
        if self.is_over:
            trainer.should_stop = True
        elif trainer.strategy.broadcast(self.spent) >= self.seconds:
            raise InputError(
                f"the budget of {described(self.seconds)} is over before the first step: what comes before it took "
                f"{described(self.spent)}; give a longer --budget"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures what was drawn at the start, which is drawn at the end as well, and brings validation back."""
        if self._drawing_seconds is None:
            self._drawing_seconds = self._clock() - self._train_began
        self._validate_again(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Ends the pause of a validation and an epoch's end."""
        if self._pause_began is not None:
            pause = self._clock() - self._pause_began
            self._paused += pause
            self._pause_began = None
            if self._step_seconds:
                self._pauses.append(pause / self._step_seconds)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Plans what is left where it is time to, and ends the run after its last step.

        Raises:
            InputError: The time does not suffice for an epoch.
        """
        loop = trainer.fit_loop.epoch_loop
        batches = int(trainer.num_training_batches)
        every = _batches_between(trainer, batches)
        seen = loop.batch_idx + 1
        is_pause = seen == batches or seen % every == 0
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            if self._mark is None:  # The first step also compiles, and fills caches.
                _wait_for_device(trainer)
                self._mark, self._first_mark = (self._clock(), self._step), self._clock()
            elif self._step >= self._next_plan:
                self._replan(trainer, batches, every, seen)
        if self.is_over:
            trainer.should_stop = True
        elif is_pause and self._skips_pause:
            self._limit = trainer.limit_val_batches
            trainer.limit_val_batches = 0
        if is_pause:
            self._pause_began = self._clock()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the trainer as it was."""
        self._validate_again(trainer)

    def _validate_again(self, trainer: Trainer) -> None:
        if self._limit is not None:
            trainer.limit_val_batches = self._limit
            self._limit = None

    # Planning

    def _replan(self, trainer: Trainer, batches: int, every: int, seen: int) -> None:
        _wait_for_device(trainer)
        # Every process has a clock of its own, and all must end after the same step.
        forecast = trainer.strategy.broadcast(self._forecast(trainer, batches, every, seen))
        if forecast.refusal is not None:
            raise RunRefusedError(forecast.refusal)
        self.plan.replan(self._step, forecast.left)
        self._next_plan, self._skips_pause = forecast.next_plan, forecast.skips_pause

    def _forecast(self, trainer: Trainer, batches: int, every: int, seen: int) -> _Forecast:
        now = self._clock()
        step = self._measured_step(now)
        validates = trainer.enable_validation
        # A step is forward and backward, of which forward is a third.
        unknown = sum(trainer.num_val_batches) / 3 if validates and trainer.num_val_batches else 0.0
        pauses = self._pauses[-LAST_PAUSES:] or [unknown]
        accumulated = trainer.accumulate_grad_batches
        pace = Pace(
            step,
            step * sum(pauses) / len(pauses),
            math.ceil(((every - seen) % every) / accumulated),
            math.ceil(every / accumulated),
        )
        # What was measured at the start has become slower or faster with the steps.
        load = min(2.0, max(0.5, step / self._first_step_seconds))
        end_seconds = step * max(pauses) + load * (self._drawing_seconds or 0.0)
        end_seconds += min(END_SECONDS, SHARE_OF_END * self.seconds)
        left_seconds = self.seconds - self.spent - end_seconds
        steps, skips_pause = pace.steps_within(left_seconds - SPARE * self.seconds)
        at_most = math.floor(max(SHARE_TO_END * self.seconds, left_seconds - 0.3 * SPARE * self.seconds) / step)
        to_end = math.ceil((1 - self.plan.progress(self._step)) * STEPS_TO_END)
        left = max(1, steps, min(to_end, at_most))
        is_measured = now - self._first_mark >= SHARE_OF_FIRST * self.seconds or seen == batches
        refusal = None
        if is_measured and not self._has_told:
            self._has_told = True
            an_epoch = math.ceil(batches / accumulated)
            if not self._is_loaded and trainer.current_epoch == 0 and left_seconds < pace.until_pause * step:
                refusal = self._too_short(an_epoch * step + pace.pause)
            else:
                _tell(self._described(self._step + left, an_epoch))
        interval = min(left // 10, math.floor(SHARE_OF_PLAN * self.seconds / step))
        if not self._has_told:  # The first figures are rough, so that better ones follow soon.
            interval = min(interval, self._step)
        return _Forecast(left, self._step + max(1, interval), skips_pause, refusal)

    def _measured_step(self, now: float) -> float:
        """The seconds of a step: the median of the last measurements, since one step may wait for a disk."""
        assert self._mark is not None, "on_train_batch_end sets it at the first step"
        began, first = self._mark
        newest = max(1e-6, (now - began - self._paused) / (self._step - first))
        self._mark, self._paused = (now, self._step), 0.0
        self._measured = [*self._measured, newest][-LAST_MEASURES:]
        self._step_seconds = median(self._measured)
        self._first_step_seconds = self._first_step_seconds or newest
        return self._step_seconds

    def _too_short(self, epoch_seconds: float) -> str:
        return (
            f"the budget of {described(self.seconds)} is shorter than one epoch, which takes about "
            f"{described(epoch_seconds)} here, after {described(self.spent)} so far; give a longer --budget, or epochs "
            "of fewer batches with --trainer.limit_train_batches"
        )

    def _described(self, steps: int, steps_of_epoch: int) -> str:
        return (
            f"budget {described(self.seconds)}: about {steps:,} steps, {steps / steps_of_epoch:.1f} epochs; the "
            "schedule follows the time, and is planned anew where steps become slower or faster"
        )


def time_budget(trainer: Trainer | None) -> TimeBudget | None:
    """The trainer's `TimeBudget`; None where it has none."""
    callbacks: list[Callback] = trainer.callbacks if trainer is not None else []  # type: ignore[attr-defined]
    return next((one for one in callbacks if isinstance(one, TimeBudget)), None)


def _batches_between(trainer: Trainer, batches: int) -> int:
    """How many batches there are between two validations, at most an epoch."""
    every = trainer.val_check_batch
    return min(batches, int(every)) if every is not None and math.isfinite(every) and every >= 1 else batches


def _wait_for_device(trainer: Trainer) -> None:
    # What the steps have given the device belongs to them.
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)


@rank_zero_only
def _tell(line: str) -> None:
    log.info(line)
