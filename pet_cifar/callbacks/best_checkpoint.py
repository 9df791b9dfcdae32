"""Keeps the best net of a run."""

import math
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """Saves ``best.ckpt``, the net with the highest ``val/acc``, which ``test --run`` scores.

    Of several epochs with the same accuracy, which few validation pictures often give, it takes the one with the lowest
    ``val/loss``.

    It is a class of its own, because Lightning keeps the states of two `ModelCheckpoint` apart by what they monitor,
    and a user may add one that monitors ``val/acc`` as well.

    Args:
        monitor: The value that is highest for the best net; null saves the net of the last epoch, for runs without a
            validation.
    """

    def __init__(self, monitor: str | None = "val/acc") -> None:
        super().__init__(filename="best", monitor=monitor, mode="max", enable_version_counter=False)
        self._best_loss = math.inf

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether this net is better than the one that is kept."""
        if super().check_monitor_top_k(trainer, current):
            return True
        is_tied = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return is_tied and _loss(trainer) < self._best_loss

    def _update_best_and_save(self, current: Tensor, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        self._best_loss = _loss(trainer)  # The checkpoint that is saved next holds it.
        super()._update_best_and_save(current, trainer, monitor_candidates)

    def state_dict(self) -> dict[str, Any]:
        """Also keeps the loss of the best net."""
        return {**super().state_dict(), "best_loss": self._best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also takes the loss of the best net, which a checkpoint of an earlier version does not have."""
        state = dict(state_dict)
        self._best_loss = state.pop("best_loss", math.inf)
        super().load_state_dict(state)


def _loss(trainer: Trainer) -> float:
    loss = float(trainer.callback_metrics.get("val/loss", torch.tensor(math.inf)))
    return math.inf if math.isnan(loss) else loss
