"""What a run says at its end: what came out, where it is, and what to do with it."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Timer

from pet_cifar.cli import budget_option
from pet_cifar.data.datamodule import image_data_of
from pet_cifar.data.scored import name_of_results
from pet_cifar.training.budget import time_budget
from pet_cifar.training.ridge import wilson_interval


def of_fit(trainer: Trainer, *, has_trained: bool, tests: bool) -> Iterator[str]:
    """The last lines of `fit`.

    Args:
        trainer: Has trained.
        has_trained: Whether it has made a step; a run that goes on from its end makes none.
        tests: Whether its test comes next.
    """
    log_dir = trainer.log_dir  # The first process tells it the others, so that all ask as often.
    yield from of_scores(trainer)
    if not (trainer.loggers and log_dir):
        return
    yield f"run directory: {log_dir}"
    if (budget := time_budget(trainer)) is not None:
        yield budget_option.outcome(budget, trainer.global_step)
    if not tests and any(Path(log_dir).glob("checkpoints/*.ckpt")):
        yield f"test it with: pet-cifar test --run {shlex.quote(log_dir)}"
    if not has_trained:
        yield nothing_left(trainer)


def of_test(trainer: Trainer) -> Iterator[str]:
    """The last lines of `test`."""
    log_dir = trainer.log_dir
    if "test/acc" not in trainer.callback_metrics:
        return
    yield f"test accuracy: {accuracy_of_test(trainer)}"
    yield from of_scores(trainer)
    if log_dir and trainer.loggers:
        if (name := name_of_results(trainer, "test")) != "test":
            yield f"results: {log_dir}/{name}/, apart from those of the run's own test"
        yield f"run directory: {log_dir}"
        yield f"look at it with: pet-cifar board {shlex.quote(log_dir)}"


def of_predict(trainer: Trainer) -> Iterator[str]:
    """The last lines of `predict`."""
    log_dir = trainer.log_dir
    if log_dir and trainer.loggers:
        yield f"predictions: {log_dir}/{name_of_results(trainer, 'predict')}/predictions.csv"


def of_scores(trainer: Trainer) -> Iterator[str]:
    """A line where a limit left pictures out of the last scores."""
    if trainer.fast_dev_run or trainer.overfit_batches:  # type: ignore[attr-defined]
        return
    split = "test" if trainer.state.fn == "test" else "val"
    loader = trainer.test_dataloaders if split == "test" else trainer.val_dataloaders
    scored = sum(trainer.num_test_batches if split == "test" else trainer.num_val_batches)
    if loader is not None and f"{split}/acc" in trainer.callback_metrics and scored < len(loader):
        yield (
            f"{split}/acc is of the first {scored} of {len(loader)} batches, which may hold one class alone; without "
            f"--trainer.limit_{split}_batches it is of all"
        )


def nothing_left(trainer: Trainer) -> str:
    """The line about a run that goes on from its end."""
    if (budget := time_budget(trainer)) is not None and budget.is_over:
        return "nothing was left to train: give a longer --budget to go on"
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    timer = next((one for one in callbacks if isinstance(one, Timer)), None)
    seconds = timer.time_remaining() if timer else None
    if seconds is not None and seconds <= 0:
        option = "max_time"
    elif 0 <= trainer.max_steps <= trainer.global_step:
        option = "max_steps"
    else:
        option = "max_epochs"
    return f"nothing was left to train: raise --trainer.{option} to go on"


def accuracy_of_test(trainer: Trainer) -> str:
    """The accuracy of a test with its 95 % interval, since that of few pictures says little."""
    share = trainer.callback_metrics["test/acc"].item()
    data = image_data_of(trainer)
    if data is None or "_batches" in name_of_results(trainer, "test"):
        return f"{100 * share:.2f} %"
    count = len(data.splits["test"])
    low, high = wilson_interval(round(share * count), count)
    return f"{100 * share:.2f} % of {count:,} pictures, 95 % interval {100 * low:.2f} to {100 * high:.2f} %"
