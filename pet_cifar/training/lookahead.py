"""A slowly moving average that the net jumps back to every few steps."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pet_cifar.errors import InputError
from pet_cifar.training.classifier import ImageClassifier


class Average:
    """Every few steps moves an average towards the net and the net onto the average.

    After Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back" (arXiv 1907.08610), with a share that
    grows over the run, as in Jordan (arXiv 2404.00498): at a share ``p`` of the run the average keeps
    ``0.95**every * p**3`` of itself. After the last step the net becomes the average.

    Args:
        net: The net; all of its floating numbers take part, running statistics too.
        every: The number of steps between two jumps.

    Attributes:
        slow: The average by name.
        step: The last step that it has followed.
    """

    def __init__(self, net: nn.Module, every: int, step: int = 0) -> None:
        self.every = every
        self.step = step
        self._fast = {name: value for name, value in net.state_dict().items() if value.is_floating_point()}
        self.slow = {name: value.clone() for name, value in self._fast.items()}

    def load(self, slow: Mapping[str, Tensor]) -> None:
        """Goes on from an average that was kept."""
        for name, value in self.slow.items():
            value.copy_(slow[name])

    @torch.no_grad()
    def after_step(self, step: int, progress: float) -> None:
        """Follows a step of the optimizer; a second call for the same step does nothing.

        Args:
            step: How many steps were made.
            progress: The share of the run that is over; with 1 the net becomes the average.
        """
        if step <= self.step:
            return
        self.step = step
        if step % self.every == 0:
            keep = 0.95**self.every * progress**3
            slow, fast = list(self.slow.values()), list(self._fast.values())
            torch._foreach_lerp_(slow, fast, 1 - keep)
            torch._foreach_copy_(fast, slow)
        if progress >= 1:
            torch._foreach_copy_(list(self._fast.values()), list(self.slow.values()))


class Lookahead(Callback):
    """Trains any net of this package with a lookahead average (see `Average`).

    Args:
        every: The number of steps between two jumps onto the average.
    """

    def __init__(self, every: int = 5) -> None:
        if every < 1:
            raise InputError(f"every is {every}; it is a number of steps, 1 or more")
        self.every = every
        self._average: Average | None = None
        self._kept: Mapping[str, Tensor] | None = None
        self._hook: RemovableHandle | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets the average of another run; after a test the net can still be saved with its own."""
        if stage == "fit":
            self._average = self._kept = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the average, now that the net is where it is trained."""
        if not isinstance(pl_module, ImageClassifier):
            raise InputError(f"Lookahead averages nets of this package, not a {type(pl_module).__name__}; leave it out")
        net = nn.ModuleDict({"backbone": pl_module.backbone, "head": pl_module.head})
        average = self._average = Average(net, self.every, trainer.global_step)
        if self._kept is not None:
            average.load(self._kept)
            self._kept = None

        def after(*_: Any) -> None:
            # The trainer counts this step when it is over.
            average.after_step(trainer.global_step + 1, pl_module.progress(trainer.global_step + 1) or 0.0)

        # The hook is part of the step, so that no interruption comes between a step and its jump.
        self._hook = trainer.optimizers[0].register_step_post_hook(after)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Follows a step that 16-mixed has counted and left out, because its gradients were infinite."""
        assert self._average is not None, "on_train_start has made it"
        assert isinstance(pl_module, ImageClassifier), "on_train_start refuses all others"
        self._average.after_step(trainer.global_step, pl_module.progress(trainer.global_step) or 0.0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the optimizer as it was."""
        if self._hook is not None:
            self._hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """The average, for a run that goes on."""
        slow = self._average.slow if self._average is not None else self._kept
        return {} if slow is None else {"average": dict(slow)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the average up again."""
        self._kept = state_dict.get("average")
