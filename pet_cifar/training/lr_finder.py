"""A learning rate from a search before the run."""

import logging
import math
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.utilities.parsing import lightning_setattr
from torch.optim import Optimizer

from pet_cifar.errors import InputError
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.lr_schedule import total_steps

log = logging.getLogger(__name__)


class LRFinder(LearningRateFinder):
    """Lightning's search (Smith, arXiv 1506.01186), for nets whose parts learn at rates of their own.

    The rate rises step by step from ``min_lr`` to ``max_lr``, and the one at which the loss fell fastest becomes the
    net's ``lr``; the run then starts from the weights that it had. Each group of parameters takes its ``lr_factor`` of
    the rate, in the search as in the run; a `Lookahead` does not take part in the search. A run that goes on from a
    checkpoint keeps the rate that was found for it, unless the net asks for another than it did.

    Args:
        min_lr: The first learning rate.
        max_lr: The last learning rate.
        num_training_steps: How many rates are tried, for one step each.
        early_stop_threshold: The search ends where the loss is this many times the lowest; null never ends it.
    """

    def __init__(
        self,
        min_lr: float = 1e-6,
        max_lr: float = 10.0,
        num_training_steps: int = 100,
        early_stop_threshold: float | None = 4.0,
    ) -> None:
        if not 0 < min_lr < max_lr < math.inf:
            raise InputError(f"min_lr is {min_lr} and max_lr {max_lr}; the search goes from a rate above 0 to a higher")
        if early_stop_threshold is not None and not early_stop_threshold > 1:
            raise InputError(
                f"early_stop_threshold is {early_stop_threshold}; it is how many times the lowest loss ends the "
                "search, above 1, or null"
            )
        # Lightning leaves out the first ten steps and the last one.
        if num_training_steps < 20:
            raise InputError(f"num_training_steps is {num_training_steps}; give at least 20")
        super().__init__(min_lr, max_lr, num_training_steps, early_stop_threshold=early_stop_threshold)
        self.asked: float | None = None
        self.found: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Keeps the rate that the net had, and the one that was found."""
        return {"asked": self.asked, "found": self.found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them from the run that goes on."""
        self.asked, self.found = state_dict["asked"], state_dict["found"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Searches, or takes what was found.

        Raises:
            InputError: The run has too few steps for the search, or the loss exploded at once.
        """
        if trainer.ckpt_path is not None or trainer.global_step:
            # Any other rate has been asked for since, and wins.
            if self.found is not None and getattr(pl_module, "lr", None) == self.asked:
                lightning_setattr(pl_module, "lr", self.found)
            elif self.found is None and trainer.is_global_zero:
                log.warning("the checkpoint holds no rate that LRFinder has found; the run goes on at its own lr")
            return
        asked = getattr(pl_module, "lr", None)
        handles = [optimizer.register_step_pre_hook(_apart) for optimizer in trainer.optimizers]
        try:
            super().on_fit_start(trainer, pl_module)
        finally:
            for handle in handles:
                handle.remove()
            # It names the search's own checkpoint, which is gone; the next fit would take itself for one that goes on.
            trainer.ckpt_path = None
        if self.optimal_lr is None:  # this is a fast_dev_run, and Lightning has said so
            return
        losses, threshold = self.optimal_lr.results["loss"], self._early_stop_threshold
        exploded = threshold is not None and losses and losses[-1] > threshold * min(losses)
        steps = total_steps(trainer, pl_module.schedule) if isinstance(pl_module, ImageClassifier) else math.inf
        if steps < self._num_training_steps and not exploded:
            raise InputError(
                f"LRFinder tries {self._num_training_steps} learning rates, a step each, and the whole run has "
                f"{steps} steps; give it fewer num_training_steps, at least 20, or give --model.lr"
            )
        self.asked, self.found = asked, self.optimal_lr.suggestion()
        if self.found is None:
            raise InputError(
                f"LRFinder found no learning rate from {self._min_lr} to {self._max_lr}: the loss exploded after "
                f"{len(losses)} of them; give it a lower min_lr, or give --model.lr"
            )


def _apart(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Gives each group its share of the rate that the search has set for all of them."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_factor", 1.0)
