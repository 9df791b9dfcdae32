"""Tells pictures of none of the classes by the features of a pretrained net."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

RANK = 64
"""The directions of the features whose variance is kept, at most; all others share one."""
SMALLEST_VARIANCE = 1e-9
"""The variance of a direction is at least this, for features of length 1."""


class OutlierScores(NamedTuple):
    """What a detector says of pictures.

    Attributes:
        distance: The squared Mahalanobis distance to the nearest class, float32, shape (B,).
        is_outlier: Whether a picture is so far from all classes that it is of none of them, bool, shape (B,).
    """

    distance: Tensor
    is_outlier: Tensor


class OutlierDetector(nn.Module):
    """Measures how far features are from those of every class, and calls what is far from all of them an outlier.

    Each class is a Gaussian around its mean, and all share one covariance (Lee et al., arXiv 1807.03888). Features are
    brought to unit length before (Mueller and Hein, arXiv 2505.18032), because their length tells more of contrast than
    of the subject. The covariance is that of probabilistic principal components (Tipping and Bishop, 1999): few
    pictures suffice for it, and it is small. The threshold is a conformal quantile of validation pictures, so that new
    pictures of the classes are refused about as often as is asked for.

    Features with places, such as those of a convolution, are averaged over their places. `fit` reads one chunk of
    pictures after the other, so that its memory does not grow with their number.

    What it knows is not part of the net's state dict, so that nets with and without it exchange weights; a checkpoint
    carries its `content` beside them.

    Args:
        num_classes: The number of classes.
        shape: The shape of one picture's features: (F,), (places, F) as of a transformer, (F, H, W), or (H, W, F).

    Attributes:
        is_fitted: Whether it knows the classes.
        means: The mean of each class, shape (num_classes, F); not a number for a class without pictures.
        directions: The principal directions within the classes, shape (R, F).
        variances: The variance along each of them, shape (R,).
        rest: The variance along every other direction.
        threshold: The distance from which on a picture is an outlier; infinite before `fit`.
    """

    means: Tensor
    directions: Tensor
    variances: Tensor
    rest: Tensor
    threshold: Tensor

    def __init__(self, num_classes: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.is_fitted = False
        num_features = self.pooled(torch.zeros(1, *shape)).shape[1]
        rank = max(1, min(RANK, num_features - 1))
        self.register_buffer("means", torch.zeros(num_classes, num_features), persistent=False)
        self.register_buffer("directions", torch.zeros(rank, num_features), persistent=False)
        self.register_buffer("variances", torch.ones(rank), persistent=False)
        self.register_buffer("rest", torch.ones(()), persistent=False)
        self.register_buffer("threshold", torch.full((), math.inf), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves to a device, but never to a type of less precision than float32."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self

    def content(self) -> dict[str, Tensor]:
        """All that it knows, on the CPU."""
        return {name: buffer.detach().cpu().clone() for name, buffer in self.named_buffers()}

    def restore(self, content: object) -> None:
        """Takes what another one knew, and forgets its own.

        Args:
            content: Its `content`. What is no such, or of other classes or features, leaves this one without knowledge.
        """
        own = dict(self.named_buffers())
        known = content if isinstance(content, Mapping) else {}
        self.is_fitted = all(
            isinstance(value := known.get(name), Tensor) and value.shape == buffer.shape for name, buffer in own.items()
        )
        if self.is_fitted:
            for name, buffer in own.items():
                buffer.copy_(known[name])
        else:
            self.threshold.fill_(math.inf)

    def pooled(self, features: Tensor) -> Tensor:
        """The mean of features over all places, shape (B, F), for features of ``shape``, flattened or not."""
        # len() would fix the number of pictures in an exported program.
        features = features.reshape(features.shape[0], *self.shape)
        if len(self.shape) == 2:
            return features.mean(1)
        # Pictures are square, so that sides of a different length are not both those of the picture.
        if len(self.shape) == 3 and self.shape[0] == self.shape[1] != self.shape[2]:
            return features.mean((1, 2))
        return features.flatten(2).mean(2) if len(self.shape) > 1 else features

    @torch.no_grad()
    def fit(self, train: Iterable[tuple[Tensor, Tensor]], val: Iterable[Tensor], fraction: float) -> OutlierScores:
        """Learns the classes from training pictures, and the threshold from validation pictures.

        Args:
            train: Features and class numbers of training pictures in chunks, shapes (B, ...) and (B,).
            val: Features of validation pictures in chunks, shape (B, ...); one picture or more in all.
            fraction: The share of pictures of the classes that may be refused, in (0, 1). Below 1 / fraction - 1
                validation pictures, none of them is, and of n new ones about n / (m + 1), where m validate.

        Returns:
            What it says of the validation pictures.
        """
        num_classes, num_features = self.means.shape
        counts = torch.zeros(num_classes, dtype=torch.float64)
        sums = torch.zeros(num_classes, num_features, dtype=torch.float64)
        squares = torch.zeros(num_features, num_features, dtype=torch.float64)
        for features, labels in train:
            inputs = nn.functional.normalize(self.pooled(features.cpu()).double(), dim=1)
            counts += torch.bincount(labels.cpu(), minlength=num_classes)
            sums.index_add_(0, labels.cpu(), inputs)
            squares.addmm_(inputs.T, inputs)
        means = sums / counts[:, None]
        present = counts > 0
        within = (squares - sums[present].T @ means[present]) / counts.sum()
        values, vectors = torch.linalg.eigh(within)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        # Along more directions than this, so few pictures do not tell a variance.
        degrees = int(counts.sum() - present.sum())
        known = min(len(self.variances), degrees // 4)
        others = values[known:] if len(values) > known else values[-1:]
        rest = others.mean().clamp(min=SMALLEST_VARIANCE)
        variances = values[: len(self.variances)].clamp(min=rest)
        variances[known:] = rest
        self.means.copy_(means)
        self.directions.copy_(vectors[:, : len(variances)].T)
        self.variances.copy_(variances)
        self.rest.copy_(rest)
        distance = torch.cat([self.distance(features).cpu() for features in val])
        place = min(len(distance), math.ceil((len(distance) + 1) * (1 - fraction)))
        self.threshold.copy_(distance.sort().values[place - 1])
        self.is_fitted = True
        return OutlierScores(distance, distance > self.threshold.cpu())

    @torch.no_grad()
    def distance(self, features: Tensor) -> Tensor:
        """The squared Mahalanobis distance to the nearest class, float32, shape (B,), for features of shape (B, ...).

        Features that are not numbers are infinitely far away. It is computed in float32 whatever the run's precision,
        since large numbers cancel each other in it.
        """
        with torch.autocast(self.means.device.type, enabled=False):
            return self._distance(features)

    def _distance(self, features: Tensor) -> Tensor:
        means = self.means
        origin = means.nanmean(0)
        inputs = nn.functional.normalize(self.pooled(features.to(means.device, torch.float32)), dim=1)
        ours, theirs = self._whitened(inputs - origin), self._whitened(means - origin)
        if torch.compiler.is_exporting():  # ONNX knows no cdist; what takes its place needs more memory.
            found = (ours[:, None] - theirs).square().sum(2)
        else:
            found = torch.cdist(ours, theirs, compute_mode="donot_use_mm_for_euclid_dist").square()
        return torch.where(found.isnan(), math.inf, found).amin(1)

    def _whitened(self, inputs: Tensor) -> Tensor:
        """Scales differences of features so that their squared length is their squared Mahalanobis distance."""
        directions, rest = self.directions, self.rest.rsqrt()
        along = inputs @ directions.T
        return inputs * rest + along * (self.variances.rsqrt() - rest) @ directions

    def forward(self, features: Tensor) -> OutlierScores:
        """What it says of pictures with these features, shape (B, ...)."""
        distance = self.distance(features)
        return OutlierScores(distance, distance > self.threshold)
