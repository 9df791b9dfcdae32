"""A learning rate from a search before the run."""

import logging
from typing import Any, cast

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from torch.optim import Optimizer

from pet_cifar.errors import InputError
from pet_cifar.models.optimizer import OptimizedModule

log = logging.getLogger(__name__)


class LRFinder(LearningRateFinder):
    """Lightning's search (Smith, arXiv 1506.01186), for nets whose parts learn at rates of their own.

    The rate rises step by step from ``min_lr`` to ``max_lr``, and the one at which the loss fell fastest becomes the
    net's ``lr``; the run then starts from the weights that it had. Each group of parameters takes its ``lr_factor`` of
    the rate, in the search as in the run. A run that goes on from a checkpoint keeps the rate that was found for it.

    Args:
        min_lr: the first rate.
        max_lr: the last.
        num_training_steps: how many rates are tried, a step each.
        early_stop_threshold: the search ends where the loss is so many times the lowest; null for never.
    """

    def __init__(
        self,
        min_lr: float = 1e-6,
        max_lr: float = 10.0,
        num_training_steps: int = 100,
        early_stop_threshold: float | None = 4.0,
    ) -> None:
        if not 0 < min_lr < max_lr:
            raise InputError(f"min_lr is {min_lr} and max_lr {max_lr}; the search goes from a rate above 0 to a higher")
        # of the steps Lightning leaves out the first ten and the last
        if num_training_steps < 20:
            raise InputError(f"num_training_steps is {num_training_steps}; give at least 20")
        super().__init__(min_lr, max_lr, num_training_steps, early_stop_threshold=early_stop_threshold)
        self.found: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """The rate that was found."""
        return {"found": self.found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it from the run that goes on."""
        self.found = state_dict["found"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Searches, or takes what was found.

        Raises:
            InputError: there were too few steps for it, or the loss exploded at once.
        """
        if trainer.ckpt_path is not None or trainer.global_step:
            if self.found is not None:
                cast(OptimizedModule, pl_module).lr = self.found
            elif trainer.is_global_zero:
                log.warning("LRFinder: the checkpoint is of a run without a search; it goes on at the lr it is given")
            return
        handles = [optimizer.register_step_pre_hook(_apart) for optimizer in trainer.optimizers]
        try:
            super().on_fit_start(trainer, pl_module)
        finally:
            for handle in handles:
                handle.remove()
        if self.optimal_lr is None:  # a fast_dev_run, of which Lightning says so
            return
        rates, losses = self.optimal_lr.results["lr"], self.optimal_lr.results["loss"]
        threshold = self._early_stop_threshold
        diverged = threshold is not None and losses and losses[-1] > threshold * min(losses)
        if len(rates) < self._num_training_steps and not diverged:
            raise InputError(
                f"LRFinder tries {self._num_training_steps} learning rates, a step each, and the whole run has "
                f"{len(rates)} steps; give it fewer num_training_steps, at least 20, or give --model.lr"
            )
        self.found = self.optimal_lr.suggestion()
        if self.found is None:
            raise InputError(
                f"LRFinder found no learning rate from {self._min_lr} to {self._max_lr}: the loss exploded at "
                f"step {len(rates)}; give it a lower min_lr, or give --model.lr"
            )
        # what the net is rebuilt with
        pl_module.hparams["lr"] = self.found


def _apart(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Gives each group its share of the rate that the search has set for all of them."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_factor", 1.0)
