"""What a net predicted for every picture of a validation or a test, gathered from all processes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors


class Predictions(NamedTuple):
    """The predictions of one pass over a split, one entry for each picture, on the CPU and in the split's order.

    Attributes:
        row: The number of each picture in its split, int64, shape (n,).
        label: The true class numbers, int64, shape (n,).
        probabilities: The probabilities of all classes, float32, shape (n, num_classes).
        is_outlier: Whether the net calls each picture one of none of the classes, bool, shape (n,); None for a net that
            cannot tell.
    """

    row: Tensor
    label: Tensor
    probabilities: Tensor
    is_outlier: Tensor | None = None

    @property
    def predicted(self) -> Tensor:
        """The most probable class of each picture, int64, shape (n,)."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> Tensor:
        """The probability of the predicted class, float32, shape (n,)."""
        return self.probabilities.amax(1)


class PredictionCollector:
    """Collects the batches of one pass. They stay on their device, so that no step waits for it."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []
        self._outliers: list[Tensor] = []

    def add(self, outputs: Any, batch: Any, is_outlier: Tensor | None = None) -> None:
        """Adds one batch.

        Args:
            outputs: What the step returned: the probabilities, or a dictionary that holds them.
            batch: The batch that the step was given.
            is_outlier: Whether each picture is of none of the classes, bool, shape (B,); None where that is not known.
        """
        probabilities = outputs if isinstance(outputs, Tensor) else outputs["probabilities"]
        self._batches.append((batch.row, batch.label, probabilities.detach().float()))
        if is_outlier is not None:
            self._outliers.append(is_outlier)

    def collect(self) -> Predictions | None:
        """Gathers the predictions of all processes, which must call it together, and forgets the batches.

        Returns:
            The predictions in the order of the pictures, or None where there was no batch.
        """
        batches, self._batches = self._batches, []
        outliers, self._outliers = self._outliers, []
        if not batches:  # This happens with --trainer.limit_val_batches 0.
            return None
        row, label, probabilities = (_gather(torch.cat(columns)) for columns in zip(*batches, strict=True))
        order = row.argsort()
        is_outlier = _gather(torch.cat(outliers)) if outliers else None
        return Predictions(
            row[order], label[order], probabilities[order], None if is_outlier is None else is_outlier[order]
        )


def _gather(tensor: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        tensor = torch.cat(gather_all_tensors(tensor))
    return tensor.cpu()
