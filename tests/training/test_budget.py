"""A run ends with its time, at the end of its schedule; the clock is one that the test turns."""

from collections.abc import Callable
from statistics import mean
from typing import Any

import pytest
from lightning import Callback, LightningModule, Trainer

from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError, RunRefusedError
from pet_cifar.models import ResidualCNN
from pet_cifar.training.budget import TimeBudget
from pet_cifar.training.lookahead import Lookahead
from tests.conftest import quiet_trainer

LR = 0.01


class Clock:
    """A clock that stands still unless it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Work(Callback):
    """Takes time for every step and every validation, and remembers the learning rates.

    Args:
        clock: The clock that it turns.
        step: The seconds of a step, by its number.
        validation: How many steps take as long as a validation.
    """

    def __init__(self, clock: Clock, step: Callable[[int], float], validation: float = 0.0) -> None:
        self.clock, self.step, self.validation = clock, step, validation
        self.rates: list[float] = []
        self.lasted: list[float] = []
        self.validations = 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.lasted.append(self.step(len(self.rates)))
        self.clock.now += self.lasted[-1]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_validation_start(self, *_: Any) -> None:
        self.validations += 1
        # What slows the steps down slows validation down as well.
        self.clock.now += self.validation * mean(self.lasted[-5:])


def fit(
    seconds: float,
    step: Callable[[int], float] = lambda number: 1.0,
    validation: float = 0.0,
    path: str | None = None,
    callbacks: tuple[Callback, ...] = (),
    **options: Any,
) -> tuple[Trainer, Work, TimeBudget]:
    """A run of 14 batches an epoch, with the seconds that it took in ``budget.spent``."""
    clock = Clock()
    budget, work = TimeBudget(seconds, began=clock.now, clock=clock), Work(clock, step, validation)
    options = {"max_epochs": -1, "limit_val_batches": 1, **options}
    trainer = quiet_trainer(callbacks=[budget, work, *callbacks], **options)
    model = ResidualCNN(image_size=8, widths=[4], lr=LR, schedule="cosine", warmup_fraction=0.25)
    trainer.fit(model, DigitsDataModule(image_size=8, batch_size=100), ckpt_path=path, weights_only=True)
    return trainer, work, budget


def slower(number: int) -> float:
    return 1.0 if number < 60 else 3.0


def faster(number: int) -> float:
    return 2.0 if number < 30 else 0.5


def uneven(number: int) -> float:
    return 0.5 + 1.5 * (number * 7919 % 13) / 12


@pytest.mark.parametrize(
    "step", [lambda number: 1.0, slower, faster, uneven], ids=["even", "slower", "faster", "uneven"]
)
@pytest.mark.parametrize("validation", [0.0, 8.0])
def test_a_run_ends_in_time_and_at_the_end_of_its_schedule(step: Callable[[int], float], validation: float) -> None:
    _, work, budget = fit(250, step, validation)
    assert 0.97 <= budget.spent / 250 <= 1
    assert budget.is_over
    assert max(work.rates) > 0.95 * LR
    assert work.rates[-1] < 0.05 * LR
    # After the first steps, which are measured, the rate rises and then falls, without a jump.
    top = work.rates.index(max(work.rates))
    assert work.rates[:top] == sorted(work.rates[:top])
    assert work.rates[top:] == sorted(work.rates[top:], reverse=True)


def test_a_time_that_is_suddenly_over_still_anneals() -> None:
    _, work, budget = fit(200, lambda number: 30.0 if number == 160 else 1.0)
    assert budget.spent <= 200
    assert work.rates[-1] < 0.05 * LR


def test_a_validation_that_would_take_all_the_rest_is_left_out() -> None:
    # Epochs take 54 s with their validation, so that too little is left for one after the fourth epoch's batches.
    trainer, work, budget = fit(230, validation=40.0)
    assert 0.97 <= budget.spent / 230 <= 1
    assert trainer.limit_val_batches == 1
    assert (trainer.current_epoch, work.validations) == (5, 4)


def test_a_step_of_several_batches_ends_on_a_whole_one() -> None:
    trainer, work, budget = fit(150, accumulate_grad_batches=3)
    assert budget.is_over
    assert len(work.rates) == trainer.global_step
    assert 0.96 <= budget.spent / 150 <= 1


def test_epochs_that_are_nearer_than_the_time_end_the_run_and_the_schedule() -> None:
    trainer, work, budget = fit(10_000, max_epochs=3)
    assert trainer.global_step == 42
    assert not budget.is_over
    assert work.rates[-1] < 0.02 * LR


def test_an_average_of_weights_ends_with_the_time() -> None:
    import torch

    trainer, _, _ = fit(100, callbacks=(lookahead := Lookahead(every=3),))
    assert lookahead._average is not None
    own = trainer.lightning_module.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in lookahead._average.slow.items())


def test_a_budget_shorter_than_an_epoch_is_refused() -> None:
    with pytest.raises(RunRefusedError) as caught:
        fit(60, step=lambda number: 6.0)
    for word in ("1 min 00 s", "one epoch", "--budget", "--trainer.limit_train_batches"):
        assert word in str(caught.value)


def test_a_budget_that_the_start_has_spent_is_refused() -> None:
    clock = Clock()
    budget = TimeBudget(5, began=clock.now - 6, clock=clock)
    trainer = quiet_trainer(callbacks=[budget], max_epochs=-1, limit_val_batches=0)
    with pytest.raises(InputError, match="--budget"):
        trainer.fit(ResidualCNN(image_size=8, widths=[4]), DigitsDataModule(image_size=8))


class StopsAt(Callback):
    """Interrupts a run, as a power cut does, after saving a checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step >= self.step:
            trainer.save_checkpoint("stopped.ckpt")
            raise RuntimeError("the power is cut")


def test_a_run_that_goes_on_has_the_time_that_it_had_left() -> None:
    with pytest.raises(RuntimeError, match="power"):
        fit(200, callbacks=(StopsAt(100),))
    trainer, work, budget = fit(200, path="stopped.ckpt")
    assert 0.97 <= budget.spent / 200 <= 1
    assert 185 <= trainer.global_step <= 200
    assert work.rates[0] == pytest.approx(LR * 0.7, rel=0.15)  # A third of the way down.
    assert work.rates[-1] < 0.01 * LR


def test_a_finished_run_has_nothing_left_unless_it_gets_more_time() -> None:
    trainer, _, _ = fit(100)
    trainer.save_checkpoint("finished.ckpt")
    _, work, same = fit(100, path="finished.ckpt")
    assert work.rates == []
    assert same.is_over
    _, work, more = fit(200, path="finished.ckpt")
    assert 0.97 <= more.spent / 200 <= 1
    assert work.rates[1] == pytest.approx(LR * 0.75, rel=0.1)
