"""From logits to the loss and to probabilities, for one logit of two classes and for one each of more."""

import torch
import torch.nn.functional as F
from torch import Tensor


def classification_loss(logits: Tensor, label: Tensor, label_smoothing: float, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over a batch; the binary one for one logit.

    Args:
        logits: The net's output, shape (B, 1) for two classes, (B, num_classes) for more.
        label: The class numbers, shape (B,), or the shares of the classes, shape (B, num_classes).
        label_smoothing: The share of the target that is spread evenly over all classes.
        weight: How much each class counts, shape (num_classes,); the mean is then a weighted one.
    """
    if logits.shape[1] == 1 and weight is None:
        target = label[:, 1] if label.ndim > 1 else label.to(logits.dtype)
        target = target * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), target)
    # The two logits 0 and z say what the one logit z says.
    logits = F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits
    if weight is None or label.ndim == 1:
        return F.cross_entropy(logits, label, weight, label_smoothing=label_smoothing)
    # With shares of classes torch would divide by the number of pictures, and not by the sum of their weights.
    total = F.cross_entropy(logits, label, weight, label_smoothing=label_smoothing, reduction="sum")
    return total / (label.to(logits.dtype) @ weight.to(logits.dtype)).sum()


def class_probabilities(logits: Tensor) -> Tensor:
    """Probabilities of all classes, float32, shape (B, num_classes)."""
    if logits.shape[1] > 1:
        return logits.float().softmax(1)
    second = logits.float().sigmoid()
    return torch.cat([1 - second, second], 1)
