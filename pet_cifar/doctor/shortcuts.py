"""Finds what tells the classes apart without showing the subject: size, brightness, borders, format, file size.

A net takes such a shortcut where there is one, and fails on pictures from elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.near_duplicates import gray_of

FOLDS = 5
WARNED = 0.25
"""The share of the way from guessing to certainty from which on a measure is a shortcut."""


@dataclass(frozen=True)
class Shortcut:
    """How well one measure alone predicts the class.

    Attributes:
        measure: The measure's name, with its unit.
        values: Its value for every picture, shape (n,).
        balanced_accuracy: The mean of the classes' accuracies on pictures that were left out.
        low, high: Its 95 % interval.
        is_warned: Whether a net could take it instead of looking at the subject.
    """

    measure: str
    values: NDArray[np.float64]
    balanced_accuracy: float
    low: float
    high: float
    is_warned: bool


def measures_of(records: Sequence[ImageRecord], small: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Measures pictures and their files.

    Args:
        records: The pictures' records.
        small: The pictures in RGB, shape (n, 3, 32, 32).

    Returns:
        Eleven measures by name, each of shape (n,).
    """
    width = np.array([record.width for record in records], np.float64)
    height = np.array([record.height for record in records], np.float64)
    size = np.array([record.bytes for record in records], np.float64)
    formats = sorted({(Path(record.path).suffix.lower(), record.mode) for record in records})
    kind = np.array([formats.index((Path(record.path).suffix.lower(), record.mode)) for record in records], np.float64)
    pixels = small.astype(np.float32)
    gray = gray_of(pixels)
    frame = np.concatenate([gray[:, 0], gray[:, -1], gray[:, 1:-1, 0], gray[:, 1:-1, -1]], 1)
    return {
        "width (pixels)": width,
        "height (pixels)": height,
        "width / height": width / np.maximum(height, 1),
        "file size (bytes)": size,
        "bytes per pixel": size / np.maximum(width * height, 1),
        "format and mode": kind,
        "brightness (0 to 255)": gray.mean((1, 2), dtype=np.float64),
        "contrast (0 to 255)": gray.std((1, 2), dtype=np.float64),
        "colorfulness (0 to 255)": (pixels.max(1) - pixels.min(1)).mean((1, 2), dtype=np.float64),
        "brightness of the border": frame.mean(1, dtype=np.float64),
        "contrast of the border": frame.std(1, dtype=np.float64),
    }


def find_shortcuts(measures: dict[str, NDArray[np.float64]], labels: NDArray[np.int64]) -> list[Shortcut]:
    """Predicts the class of pictures from one measure at a time, by a decision tree with a leaf for each class.

    Every picture is predicted by a tree that has not seen it, in five folds.

    Args:
        measures: The measures by name, each of shape (n,).
        labels: The class numbers, shape (n,).

    Returns:
        The measures, the best predictor first; none where a class has fewer than two pictures.
    """
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    if counts.min() < 2 or len(counts) < 2:
        return []
    folds = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=0)
    found = []
    for measure, values in measures.items():
        tree = DecisionTreeClassifier(max_leaf_nodes=len(counts), class_weight="balanced", random_state=0)
        predicted = cross_val_predict(tree, values[:, None], labels, cv=folds)
        recalls = np.array([(predicted[labels == label] == label).mean() for label in np.unique(labels)])
        accuracy = float(recalls.mean())
        # Each class's accuracy is a share of its own pictures, and the mean of independent shares varies like this.
        half = 1.96 * float(np.sqrt((recalls * (1 - recalls) / counts).sum())) / len(counts)
        chance = 1 / len(counts)
        warned = accuracy - half > chance + WARNED * (1 - chance)
        found.append(Shortcut(measure, values, accuracy, max(0.0, accuracy - half), min(1.0, accuracy + half), warned))
    return sorted(found, key=lambda shortcut: -shortcut.balanced_accuracy)
