"""Measures what the default pictures cost: the share that they add to an epoch of each config.

    python benchmarks/pictures.py --root data                                  # every config
    python benchmarks/pictures.py --root data configs/cifar10_residual.yaml

Each config is trained twice in one process, with and without pictures, over ``--epochs`` epochs of ``--steps`` steps.
What a picture costs does not depend on the number of steps. So its cost is measured on these short epochs, as the time
that is spent within the callbacks, and compared with a whole epoch: the median step without pictures times the number
of steps. The difference of the two trainings stands beside it; it suffers from the noise of the steps. Options for all
runs come after ``--``.
"""

import contextlib
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from report import CONFIGS, Report, parsed, parser, positive, run_or_explain

from pet_cifar.callbacks import Board, CustomScalars, HyperParameters
from pet_cifar.callbacks.images.base import ImageCallback
from pet_cifar.cli.main import main as pet_cifar

WITHOUT_PICTURES = ["--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "0"]


class Stopwatch(Callback):
    """Times the fit, each step, and what the callbacks that write into TensorBoard do; it comes after all others."""

    def __init__(self) -> None:
        self.fit = self.inside = 0.0
        self.steps: list[float] = []
        self._start = self._step_start = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wraps the hooks of the callbacks that are timed."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Board | CustomScalars | HyperParameters | ImageCallback):
                for name in dir(callback):
                    if name.startswith("on_"):
                        setattr(callback, name, self._timed(getattr(callback, name)))

    def _timed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return hook(*arguments, **keywords)
            finally:
                self.inside += time.perf_counter() - start

        return call

    def on_train_start(self, *_: Any) -> None:
        """Starts the clock of the fit."""
        self._start = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """Starts the clock of a step."""
        self._step_start = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Notes the seconds of the step."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.steps.append(time.perf_counter() - self._step_start)

    def on_train_end(self, *_: Any) -> None:
        """Notes the seconds of the fit."""
        self.fit = time.perf_counter() - self._start


def measure(config: Path, root: Path, epochs: int, steps: int, options: list[str]) -> tuple[Stopwatch, int]:
    """Trains once; returns the seconds, and the number of steps of a whole epoch."""
    stopwatch = Stopwatch()
    short = ["--trainer.max_epochs", str(epochs), "--trainer.limit_train_batches", str(steps)]
    short += ["--trainer.limit_val_batches", "4", "--trainer.enable_checkpointing", "false"]
    with contextlib.redirect_stdout(io.StringIO()):
        command = ["fit", "--config", str(config), "--data.root", str(root), *short, *options]
        cli = pet_cifar(command, callbacks=[stopwatch])
    assert cli is not None
    return stopwatch, len(cli.datamodule.train_dataloader())


def main() -> None:
    """Prints a row for each config as soon as it is done."""
    options = parser(__doc__)
    options.add_argument("configs", nargs="*", type=Path, default=CONFIGS)
    options.add_argument("--epochs", type=positive, default=5, help="a multiple of the default every_n_epochs")
    options.add_argument("--steps", type=positive, default=4, help="steps of each epoch")
    arguments, rest = parsed(options)
    note = f"{arguments.epochs} epochs of {arguments.steps} steps"
    columns = ["config", "a whole epoch, s", "pictures an epoch, s", "share", "by difference of the fits, s"]
    report = Report(columns, arguments, note)
    for config in arguments.configs:
        bare, steps_an_epoch = measure(
            config, arguments.root, arguments.epochs, arguments.steps, [*WITHOUT_PICTURES, *rest]
        )
        drawn, _ = measure(config, arguments.root, arguments.epochs, arguments.steps, rest)
        epoch = statistics.median(bare.steps) * steps_an_epoch
        added, difference = drawn.inside / arguments.epochs, (drawn.fit - bare.fit) / arguments.epochs
        cells = [f"{epoch:.0f}", f"{added:.2f}", f"{100 * added / epoch:.2f} %", f"{difference:.2f}"]
        figures = {"epoch_seconds": epoch, "picture_seconds": added, "difference_seconds": difference}
        report.row(f"`{config.stem}`", cells, figures)


if __name__ == "__main__":
    run_or_explain(main)
