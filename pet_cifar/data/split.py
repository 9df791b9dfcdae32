"""Which pictures train, validate and test: divided without overlap, every class in proportion."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.model_selection import train_test_split

from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.errors import InputError


def check_fraction(name: str, value: float) -> None:
    """Refuses what is no share of the pictures."""
    if not 0 < value < 1:
        raise InputError(f"{name} is {value}; it is a share of the pictures, above 0 and below 1")


def stratified_split(
    pictures: Sequence[ImageRecord], size: float | int, seed: int, name: str
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Divides pictures into (rest, taken) with every class in proportion, each in the given order.

    Args:
        pictures: in an order that is the same on every machine.
        size: the share of the taken pictures in (0, 1), or its number of pictures.
        seed: the same seed and pictures give the same division everywhere.
        name: the argument to name when it does not fit.
    """
    if isinstance(size, float):
        check_fraction(name, size)
    labels = [picture.label for picture in pictures]
    counts = Counter(labels)
    message = (
        f"{name} cannot take {size} of {len(pictures)} pictures "
        f"({', '.join(f'{label} {count}' for label, count in sorted(counts.items()))}) so that every class is on both "
        "sides; give more pictures a class or another fraction"
    )
    try:
        rest, taken = train_test_split(np.arange(len(pictures)), test_size=size, stratify=labels, random_state=seed)
    except ValueError as error:
        raise InputError(message) from error
    for side in (rest, taken):
        if {labels[index] for index in side} != set(labels):
            raise InputError(message)
    return [pictures[index] for index in sorted(rest)], [pictures[index] for index in sorted(taken)]


def fingerprint(splits: Mapping[Split, Sequence[ImageRecord]]) -> str:
    """A hash of which pictures, by content and class, are in which split; names and order do not count."""
    lines = sorted(f"{name} {picture.label} {picture.hash}" for name, own in splits.items() for picture in own)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
