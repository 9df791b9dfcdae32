"""Tells pictures of none of the classes by the features of a pretrained net."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

RANK = 64
"""The directions of the features whose variance is kept, at most; all others share one."""


class OutlierDetector(nn.Module):
    """Measures how far features are from those of every class, and calls what is far from all of them an outlier.

    Each class is a Gaussian around its mean, and all share one covariance (Lee et al., arXiv 1807.03888). Features are
    brought to unit length before (Mueller and Hein, arXiv 2505.18032), because their length tells more of contrast than
    of the subject. The covariance is that of probabilistic principal components (Tipping and Bishop, 1999): few
    pictures suffice for it, and it is small. The threshold is a conformal quantile of validation pictures, so that new
    pictures of the classes are refused about as often as is asked for.

    What it knows is not part of the net's state dict, so that nets with and without it exchange weights; a checkpoint
    carries its `content` beside them.

    Args:
        num_classes: The number of classes.
        num_features: The number of features of a picture.

    Attributes:
        means: The mean of each class, shape (num_classes, num_features); not a number for a class without pictures.
        directions: The principal directions within the classes, shape (R, num_features).
        variances: The variance along each of them, shape (R,).
        rest: The variance along every other direction.
        threshold: The distance from which on a picture is an outlier; infinite before `fit`.
    """

    means: Tensor
    directions: Tensor
    variances: Tensor
    rest: Tensor
    threshold: Tensor

    def __init__(self, num_classes: int, num_features: int) -> None:
        super().__init__()
        rank = min(RANK, num_features - 1) if num_features > 1 else 1
        self.register_buffer("means", torch.zeros(num_classes, num_features), persistent=False)
        self.register_buffer("directions", torch.zeros(rank, num_features), persistent=False)
        self.register_buffer("variances", torch.ones(rank), persistent=False)
        self.register_buffer("rest", torch.ones(()), persistent=False)
        self.register_buffer("threshold", torch.full((), math.inf), persistent=False)

    @property
    def is_fitted(self) -> bool:
        """Whether it knows the classes."""
        return bool(torch.isfinite(self.threshold))

    def content(self) -> dict[str, Tensor]:
        """All that it knows, on the CPU."""
        return {name: buffer.detach().cpu().clone() for name, buffer in self.named_buffers()}

    def restore(self, content: Mapping[str, Tensor]) -> None:
        """Takes what another one knew; one of other classes or features, or of an older version, is passed over."""
        own = dict(self.named_buffers())
        if all(name in content and content[name].shape == buffer.shape for name, buffer in own.items()):
            for name, buffer in own.items():
                buffer.copy_(content[name])

    def fit(
        self,
        features: NDArray[np.floating],
        labels: NDArray[np.int64],
        val_features: NDArray[np.floating],
        fraction: float,
    ) -> None:
        """Learns the classes from training pictures, and the threshold from validation pictures.

        Args:
            features: The features of the training pictures, shape (n, num_features).
            labels: Their class numbers, shape (n,).
            val_features: The features of the validation pictures, shape (m, num_features), at least one.
            fraction: The share of pictures of the classes that may be refused, in (0, 1). Below 1 / fraction - 1
                validation pictures, none of them is.
        """
        inputs = _unit(features)
        num_classes, rank = len(self.means), len(self.variances)
        means = np.stack([inputs[labels == label].mean(0) if label in labels else np.full(inputs.shape[1], np.nan)
                          for label in range(num_classes)])  # fmt: skip
        within = inputs - means[labels]
        values, vectors = np.linalg.eigh(within.T @ within / len(within))
        values, vectors = np.clip(values[::-1], 1e-12, None), vectors[:, ::-1]
        # The variances of the few directions that n pictures span are too large, and the others would be zero.
        rest = max(float(values[rank:].mean()) if len(values) > rank else 0.0, 1e-9)
        found = {
            "means": means,
            "directions": vectors[:, :rank].T.copy(),
            "variances": np.maximum(values[:rank], rest),
            "rest": rest,
        }
        for name, value in found.items():
            getattr(self, name).copy_(torch.tensor(value))
        distances = np.sort(self.distance(torch.from_numpy(np.ascontiguousarray(val_features))).cpu().numpy())
        place = min(len(distances), math.ceil((len(distances) + 1) * (1 - fraction)))
        self.threshold.fill_(float(distances[place - 1]))

    @torch.no_grad()
    def distance(self, features: Tensor) -> Tensor:
        """The squared Mahalanobis distance to the nearest class, float32, shape (B,), for features of shape (B, F)."""
        inputs = nn.functional.normalize(features.to(self.means.device, torch.float32), dim=1)
        # One class after the other, because all at once would take num_classes times the memory.
        found = torch.full((len(inputs),), math.inf, device=inputs.device)
        for mean in self.means.float():
            away = inputs - mean
            along = away @ self.directions.float().T
            across = (away.square().sum(1) - along.square().sum(1)).clamp(min=0)
            distance = (along.square() / self.variances.float()).sum(1) + across / self.rest.float()
            found = torch.fmin(found, distance)
        return found

    def forward(self, features: Tensor) -> Tensor:
        """Whether each picture is an outlier, bool, shape (B,), for features of shape (B, F)."""
        return self.distance(features) > self.threshold.float()


def pooled(features: Tensor) -> Tensor:
    """The mean of features over all places, shape (B, F), for those of shape (B, F) or (B, F, ...)."""
    return features if features.ndim == 2 else features.flatten(2).mean(2)


def _unit(features: NDArray[np.floating]) -> NDArray[np.float64]:
    values = features.astype(np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
