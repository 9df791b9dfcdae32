"""The drawing of pictures with every class in proportion, beside scikit-learn's."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from pet_cifar.data.stratified import _drawn

CLASSES = {
    "even": [50, 50],
    "many": [7, 7, 7, 8, 8, 9, 30, 31, 32, 33],
    "rare": [2, 3, 200],
    "one": [1, 20],
    "single": [40],
}


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("size", [0.1, 1 / 9, 0.25, 0.5, 0.9, 3, 17, 0.001])
def test_the_rows_are_those_of_scikit_learn(classes: str, size: float | int) -> None:
    counts = CLASSES[classes]
    labels = [f"class {number}" for number, count in enumerate(counts) for _ in range(count)]
    labels = [labels[row] for row in np.random.default_rng(0).permutation(len(labels))]
    for seed in range(8):
        try:
            _, expected = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
        except ValueError:  # scikit-learn refuses what this draws nothing of.
            expected = np.zeros(0, int)
        assert sorted(_drawn(labels, size, seed)) == sorted(expected.tolist())
