"""What a net made of every picture of a validation or a test, from all processes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors


class Scores(NamedTuple):
    """One line a picture, on the CPU, in the order of the pictures.

    Attributes:
        row: which picture of its part each is, int64, shape (n,).
        label: class numbers, int64, shape (n,).
        probabilities: of all classes, float32, shape (n, num_classes).
    """

    row: Tensor
    label: Tensor
    probabilities: Tensor

    @property
    def prediction(self) -> Tensor:
        """The likeliest class of each picture, int64, shape (n,)."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> Tensor:
        """The probability of the predicted class, float32, shape (n,)."""
        return self.probabilities.amax(1)


class Collector:
    """Keeps the batches of one pass where they are, so that no step waits for the device."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, outputs: Any, batch: Any) -> None:
        """Takes one batch and what the step returned: probabilities, or a dictionary that holds them."""
        probabilities = outputs if isinstance(outputs, Tensor) else outputs["probabilities"]
        self._batches.append((batch.row, batch.label, probabilities.detach().float()))

    def collect(self) -> Scores | None:
        """Empties itself; all processes call it together and get the pictures of all, or None where there are none."""
        batches, self._batches = self._batches, []
        if not batches:  # --trainer.limit_val_batches 0
            return None
        row, label, probabilities = (_gather(torch.cat(parts)) for parts in zip(*batches, strict=True))
        order = row.argsort()
        return Scores(row[order], label[order], probabilities[order])


def _gather(tensor: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        tensor = torch.cat(gather_all_tensors(tensor))
    return tensor.cpu()
