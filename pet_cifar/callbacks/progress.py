"""One calm progress bar."""

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class ProgressBar(TQDMProgressBar):
    """One bar for training, which stays as one line an epoch, and one for a test; none for validation.

    Where standard error is no terminal, a bar is drawn once, when it is full, so that a log stays readable.

    Args:
        refresh_rate: steps between two drawings.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate if sys.stderr.isatty() else sys.maxsize, leave=True)

    def init_sanity_tqdm(self) -> Tqdm:
        """Makes a bar that is not shown."""
        return Tqdm(disable=True)

    def init_validation_tqdm(self) -> Tqdm:
        """Makes a bar that is not shown."""
        return Tqdm(disable=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What is shown: the logged metrics without the run's version, which is in the directory's name."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
