"""A slowly moving average that the net jumps back to every few steps."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Lookahead:
    """Every few steps moves an average towards the net and the net onto the average.

    After Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back" (arXiv 1907.08610), with a share that
    grows over the run, as in Jordan (arXiv 2404.00498): at a share ``p`` of the run the average keeps
    ``0.95**every * p**3`` of itself. After the last step the net becomes the average.

    Args:
        net: of which all floating numbers take part, running statistics too.
        every: steps between two jumps.

    Attributes:
        slow: the average by name.
    """

    def __init__(self, net: nn.Module, every: int) -> None:
        self.every = every
        self._fast = {name: value for name, value in net.state_dict().items() if value.is_floating_point()}
        self.slow = {name: value.clone() for name, value in self._fast.items()}

    def load(self, slow: Mapping[str, Tensor]) -> None:
        """Goes on from an average that was kept."""
        for name, value in self.slow.items():
            value.copy_(slow[name])

    @torch.no_grad()
    def after_step(self, step: int, total: float) -> None:
        """To be called after every step of the optimizer.

        Args:
            step: how many were made.
            total: how many the run will make.
        """
        if step % self.every == 0:
            keep = 0.95**self.every * (step / total) ** 3
            slow, fast = list(self.slow.values()), list(self._fast.values())
            torch._foreach_lerp_(slow, fast, 1 - keep)
            torch._foreach_copy_(fast, slow)
        if step >= total:
            torch._foreach_copy_(list(self._fast.values()), list(self.slow.values()))
