"""A progress bar that leaves one line for each epoch."""

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class ProgressBar(TQDMProgressBar):
    """Shows one bar for training, which stays as one line for each epoch, and one for a test; none for validation.

    Where standard error is no terminal, one line is printed for each epoch instead, so that a log stays readable.

    Args:
        refresh_rate: The number of steps after which the bar is drawn again.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)
        self._in_terminal = sys.stderr.isatty()
        self._epoch_to_print: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Disables the bar where standard error is no terminal."""
        super().setup(trainer, pl_module, stage)
        if not self._in_terminal:
            self.disable()

    def enable(self) -> None:
        """Shows the bar again after a search for a learning rate, but only where it was shown before."""
        if self._in_terminal and (self._trainer is None or self._trainer.is_global_zero):
            super().enable()

    def init_sanity_tqdm(self) -> Tqdm:
        """Makes a bar that is not shown."""
        return Tqdm(disable=True)

    def init_validation_tqdm(self) -> Tqdm:
        """Makes a bar that is not shown."""
        return Tqdm(disable=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Leaves out the run's version, which is in the directory's name."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    # The training metrics of an epoch are logged after this callback's on_train_epoch_end, so the line of an epoch is
    # printed when the next one starts.

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the epoch, because an epoch that goes on does not call on_train_epoch_start."""
        super().on_train_start(trainer, pl_module)
        self._epoch_to_print = trainer.current_epoch

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Prints the line of the previous epoch."""
        super().on_train_epoch_start(trainer, *args)
        if self._epoch_to_print != trainer.current_epoch:
            self._print_line(trainer)
        self._epoch_to_print = trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line of the last epoch."""
        super().on_train_end(trainer, pl_module)
        self._print_line(trainer)

    def _print_line(self, trainer: Trainer) -> None:
        if not self._in_terminal and trainer.is_global_zero and self._epoch_to_print is not None:
            shown = trainer.progress_bar_metrics
            values = ", ".join(f"{name} {value:.4f}" for name, value in shown.items() if name != "v_num")
            print(f"epoch {self._epoch_to_print}: {values}", flush=True)
        self._epoch_to_print = None
