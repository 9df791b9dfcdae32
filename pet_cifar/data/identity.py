"""What tells the pictures of one run from those of another, so that no two scores are compared that cannot be."""

import hashlib
from collections.abc import Iterable
from typing import Any

from pet_cifar.data import leakage
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.manifest import Split


def identity_of(data: ImageDataModule) -> dict[str, Any]:
    """What a run keeps of its data, as numbers and strings.

    Args:
        data: The data module, set up.

    Returns:
        Its class, the names of its classes, the number of pictures of each split and hashes of each split's contents
        and names; and how many test pictures show the same as a training or validation picture, or None where that is
        not known.
    """
    return {
        "class": type(data).__name__,
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "num_channels": data.num_channels,
        "fold": None if data.fold is None else list(data.fold),
        "pictures": {name: len(records) for name, records in data.splits.items()},
        "contents": {name: contents_of(data, name) for name in data.splits},
        "names": {name: names_of(data, name) for name in data.splits},
        "leaking": _leaking(data),
    }


def contents_of(data: ImageDataModule, split: Split) -> str:
    """A hash of a split's pictures by what their files hold and which class they have; their order does not count."""
    return _hash(f"{record.label} {record.hash}" for record in data.splits[split])


def names_of(data: ImageDataModule, split: Split) -> str:
    """A hash of the names of a split's pictures; their order does not count."""
    return _hash(record.path for record in data.splits[split])


def _hash(lines: Iterable[str]) -> str:
    text = "\n".join(sorted(lines))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _leaking(data: ImageDataModule) -> int | None:
    pairs = data.known_near_duplicates()
    if pairs is None:
        return None
    sides = leakage.straddling(data.splits, pairs)
    test = {record.path for record in data.splits["test"]}
    ends = {
        record.path
        for (_, other), own in sides.items()
        if other == "test"
        for pair in own
        for record in (pair.first, pair.second)
    }
    return len(test & ends)
