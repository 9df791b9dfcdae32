"""Divides pictures into train, val and test without overlap and with every class in proportion."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from sklearn.model_selection import train_test_split

from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.errors import InputError


def check_fraction(name: str, value: float) -> None:
    """Refuses what is no share of the pictures.

    Args:
        name: The name of the option.
        value: The value that was given.

    Raises:
        InputError: The value is not between 0 and 1.
    """
    if not 0 < value < 1:
        raise InputError(f"{name} is {value}; it is a share of the pictures, above 0 and below 1")


def stratified_split(
    records: Sequence[ImageRecord], size: float | int, seed: int, name: str
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Divides pictures into (rest, taken) with every class in proportion, each in the given order.

    Args:
        records: The records, in an order that is the same on every machine.
        size: The share of the pictures to take, in (0, 1), or their number.
        seed: The same seed and records give the same result everywhere.
        name: The option that an error names.

    Raises:
        InputError: Some class would have no picture on one of the two sides.
    """
    if isinstance(size, float):
        check_fraction(name, size)
    labels = [record.label for record in records]
    counts = Counter(labels)
    message = (
        f"{name} cannot take {size} of {len(records)} pictures "
        f"({', '.join(f'{label} {count}' for label, count in sorted(counts.items()))}) so that every class is on both "
        "sides; give more pictures a class or another fraction"
    )
    try:
        rest, taken = train_test_split(np.arange(len(records)), test_size=size, stratify=labels, random_state=seed)
    except ValueError as error:
        raise InputError(message) from error
    for side in (rest, taken):
        if {labels[index] for index in side} != set(labels):
            raise InputError(message)
    return [records[index] for index in sorted(rest)], [records[index] for index in sorted(taken)]


def split_records(
    records: Sequence[ImageRecord], *, val_fraction: float, test_fraction: float, seed: int, num_listed: int
) -> dict[Split, list[ImageRecord]]:
    """Splits usable pictures into training, validation and test, with every class in proportion.

    Args:
        records: The usable pictures, in an order that is the same on every machine.
        val_fraction: The share of what is not test that validates.
        test_fraction: The share of all pictures that tests, where the dataset has no test split of its own.
        seed: The same seed and pictures give the same splits everywhere.
        num_listed: The number of listed pictures outside the dataset's own test split. Validation takes its share
            of these, so that CIFAR-10 validates on 5,000 also where its duplicates are left out.
    """
    test = [record for record in records if record.split == "test"]
    rest = [record for record in records if record.split != "test"]
    size: float | int = round(val_fraction * num_listed)
    if not test:
        rest, test = stratified_split(rest, test_fraction, seed, "test_fraction")
        size = val_fraction
    train, val = stratified_split(rest, size, seed, "val_fraction")
    return {"train": train, "val": val, "test": test}


def overfit_splits(
    splits: Mapping[Split, Sequence[ImageRecord]], batches: float, size: int, seed: int
) -> tuple[dict[Split, list[ImageRecord]], int]:
    """Takes a few training pictures, which train and validate: a net that works learns them by heart.

    Args:
        splits: The whole splits.
        batches: How many batches are taken: a number, or as a float a share of the training batches.
        size: The number of pictures in a batch of all processes together.
        seed: Decides which pictures are taken; they are of all classes, where files may be sorted by class.

    Returns:
        The splits, of which ``train`` and ``val`` are the same, and the number of batches.

    Raises:
        InputError: The share comes to no batch.
    """
    train = splits["train"]
    most = max(1, len(train) // size)
    count = int(batches * most) if isinstance(batches, float) else min(batches, most)
    if count < 1:
        raise InputError(
            f"--trainer.overfit_batches {batches} of {most} training batches is none; give a number such as 1, or a "
            f"share of at least {math.ceil(1000 / most) / 1000}"
        )
    rows = np.random.default_rng(seed).permutation(len(train))[: count * size]
    taken = [train[row] for row in sorted(rows)]
    rank_zero_info(
        f"overfit_batches: the same {len(taken)} training pictures train and validate in every epoch, in the same "
        "order and without augmentation"
    )
    return {"train": taken, "val": taken, "test": list(splits["test"])}, count


def fingerprint(splits: Mapping[Split, Sequence[ImageRecord]]) -> str:
    """Returns a hash of the pictures, by content and class, of each split; names and order do not count."""
    lines = sorted(f"{name} {record.label} {record.hash}" for name, own in splits.items() for record in own)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def refuse_other_splits(states: Mapping[str, Any], own: str, current: str, root: Path) -> None:
    """Refuses a checkpoint of a net that was trained with other splits: their test pictures may train here.

    Args:
        states: The states that a checkpoint holds, by name; that of a data module has a ``fingerprint``.
        own: The name of the data module that is used now.
        current: The fingerprint of its splits.
        root: Its folder, for the message.

    Raises:
        InputError: The net was trained with another data module, with other pictures or with other splits.
    """
    trained = {name: state for name, state in states.items() if isinstance(state, dict) and "fingerprint" in state}
    if trained and own not in trained:
        raise InputError(
            f"the checkpoint was trained with a {next(iter(trained))}, not with a {own}; give the original data, or "
            "--data.allow_other_data true if you know that no test picture was trained on"
        )
    if trained and trained[own]["fingerprint"] != current:
        raise InputError(
            f"the checkpoint was trained with other pictures, or another split of them, than {root} gives now, so "
            "a score could be of pictures it was trained on; give the original pictures, split_seed, fractions and "
            "images_per_class, or --data.allow_other_data true if you know that they are apart"
        )
