"""How much each class counts in the training loss."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pet_cifar.errors import InputError, check_choice, check_positive, did_you_mean

ClassWeights = Literal["none", "balanced"] | dict[str, float]


def check_class_weights(weights: ClassWeights) -> None:
    """Refuses a word that is not known, and weights that are not above 0.

    Raises:
        InputError: They are wrong.
    """
    if isinstance(weights, str):
        check_choice("class_weights", weights, ("none", "balanced"))
    else:
        for name, weight in weights.items():
            check_positive(f"class_weights.{name}", weight)


def class_weights(weights: ClassWeights, class_names: Sequence[str], labels: NDArray[np.int64]) -> Tensor | None:
    """The weight of each class; None where all count alike.

    Args:
        weights: ``balanced`` weighs a class by the inverse of its share of the training pictures, so that a picture
            weighs 1 on average (as scikit-learn does); a mapping gives the weights of some classes by name, and all
            others have 1.
        class_names: The names of the classes in the order of their numbers.
        labels: The class numbers of the training pictures, shape (n,).

    Returns:
        float32, shape (num_classes,).

    Raises:
        InputError: A class is not there.
    """
    if weights == "none":
        return None
    if isinstance(weights, Mapping):
        for name in weights:
            if name not in class_names:
                near = did_you_mean(name, class_names)
                raise InputError(f"class_weights: there is no class {name}; there are {', '.join(class_names)}{near}")
        return torch.tensor([float(weights.get(name, 1.0)) for name in class_names])
    counts = np.bincount(labels, minlength=len(class_names))
    return torch.from_numpy(len(labels) / (len(class_names) * np.maximum(counts, 1))).float()
