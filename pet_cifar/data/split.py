"""Divides pictures into train, val and test without overlap and with every class in proportion."""

import hashlib
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.data.stratified import proportional_rows
from pet_cifar.errors import InputError, did_you_mean
from pet_cifar.names import printable


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


def check_images_per_class(count: int | None) -> None:
    """Refuses to take no picture of a class.

    Args:
        count: How many pictures are taken of each class; None takes all.

    Raises:
        InputError: The number is below 1.
    """
    if count is not None and count < 1:
        raise InputError(f"images_per_class is {count}; it is at least 1, or null for all")


def stratified_split(
    records: Sequence[ImageRecord],
    size: float | int,
    seed: int,
    name: str,
    group: Callable[[ImageRecord], str] | None = None,
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Divides pictures into (rest, taken) with every class in proportion, each in the given order.

    A class that is too rare for its proportion has one picture taken.

    Args:
        records: The records, in an order that is the same on every machine.
        size: The share of the pictures to take, in (0, 1), or their number.
        seed: The same seed and records give the same result everywhere.
        name: The option that an error names.
        group: The name of the group that a picture belongs to; the pictures of a group stay together, and the
            proportions are then those that the groups allow.

    Raises:
        InputError: Some class would have no picture on one of the two sides.
    """
    if isinstance(size, float):
        check_fraction(name, size)
    labels = [record.label for record in records]
    if not labels:
        raise InputError(f"{name} is {size}, but there are no pictures to be divided; give more pictures")
    if group is not None:
        taken = _grouped(labels, [group(record) for record in records], size, seed)
    else:
        taken = proportional_rows(labels, size, seed)
    rest = sorted(set(range(len(records))) - set(taken))
    counts = Counter(labels)
    for side in (rest, taken):
        for label in sorted(counts.keys() - {labels[index] for index in side}):
            unit = "picture(s)" if group is None else "picture(s) in too few groups"
            raise InputError(
                f"{name} is {size}, but class {label} has {counts[label]} {unit} to be divided, and every class needs "
                f"one on both sides; give more pictures of {label}, or another {name}"
            )
    if group is not None:
        _tell_share(len(taken) / len(labels), size if isinstance(size, float) else size / len(labels), name)
    return [records[index] for index in rest], [records[index] for index in sorted(taken)]


def _grouped(labels: Sequence[str], groups: Sequence[str], size: float | int, seed: int) -> list[int]:
    """The rows of the groups that are taken, chosen so that the classes are about in proportion.

    The groups are divided into folds, of which as many are taken as the share asks for. Where no choice of them leaves
    every class on both sides, there are fewer and larger folds. Nothing is taken where none of it helps.
    """
    share = Fraction(size if isinstance(size, float) else size / len(labels)).limit_denominator(20)
    every = set(labels)
    most = max(2, share.denominator)
    for count in sorted({most, *(fewer for fewer in (10, 5, 4, 3, 2) if fewer < most)}, reverse=True):
        number = min(count - 1, max(1, round(share * count)))
        folds = _group_folds(labels, groups, count, seed)
        for first in range(len(folds)):
            taken = {row for place in range(number) for row in folds[(first + place) % count]}
            inside = {labels[row] for row in taken}
            if inside == every == {label for row, label in enumerate(labels) if row not in taken}:
                return sorted(taken)
    return []


def _group_folds(labels: Sequence[str], groups: Sequence[str], count: int, seed: int) -> list[list[int]]:
    """The rows of each fold; none where there are fewer pictures of each class than folds."""
    # scikit-learn takes up to a second to import, and most runs have neither groups nor folds.
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    try:
        with warnings.catch_warnings():
            # Whether every class is on both sides is checked by the caller.
            warnings.simplefilter("ignore", UserWarning)
            return [taken.tolist() for _, taken in folds.split(np.zeros(len(labels)), labels, groups)]
    except ValueError:
        return []


def _tell_share(share: float, asked: float, name: str) -> None:
    if abs(share - asked) > max(0.01, asked / 10):
        rank_zero_info(f"{name}: whole groups make it {share:.2f} of the pictures in the place of {asked:.2f}")


def parse_fold(text: str | None) -> tuple[int, int] | None:
    """The number of a fold, from 1 on, and how many folds there are, from text such as ``2/5``.

    Raises:
        InputError: The text says something else.
    """
    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()) or not 1 <= int(number) <= int(count) or int(count) < 2:
        raise InputError(f"fold is {text}; it is the number of a fold and how many there are, such as 1/5 up to 5/5")
    return int(number), int(count)


def _fold(
    records: Sequence[ImageRecord], fold: tuple[int, int], seed: int, group: Callable[[ImageRecord], str] | None
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Divides pictures into (rest, one of several folds), with every class in proportion and no group divided."""
    # scikit-learn takes up to a second to import, and most runs have neither groups nor folds.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    number, count = fold
    labels = [record.label for record in records]
    folds = (StratifiedKFold if group is None else StratifiedGroupKFold)(count, shuffle=True, random_state=seed)
    groups = None if group is None else [group(record) for record in records]
    try:
        with warnings.catch_warnings():
            # A class that is too rare for all folds is told where the splits are checked.
            warnings.simplefilter("ignore", UserWarning)
            sides = list(folds.split(np.zeros(len(labels)), labels, groups))
    except ValueError as error:
        raise InputError(f"fold is {number}/{count}, but no class has {count} pictures; give fewer folds") from error
    rest, taken = sides[number - 1]
    return [records[row] for row in rest], [records[row] for row in taken]


def split_records(
    records: Sequence[ImageRecord],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    num_listed: int | None = None,
    group: Callable[[ImageRecord], str] | None = None,
    fold: tuple[int, int] | None = None,
) -> dict[Split, list[ImageRecord]]:
    """Splits usable pictures into training, validation and test, with every class in proportion.

    Args:
        records: The usable pictures, in an order that is the same on every machine.
        val_fraction: The share of what is not test that validates, where the dataset has no validation split of its
            own.
        test_fraction: The share of all pictures that tests, where the dataset has no test split of its own.
        seed: The same seed and pictures give the same splits everywhere.
        num_listed: The number of pictures that validation takes its share of, where the dataset has a test split of its
            own; None counts those that are divided.
        group: The name of the group that a picture belongs to; no group is divided.
        fold: Which of how many folds of all pictures tests, in the place of ``test_fraction``.
    """
    given: dict[str, list[ImageRecord]] = {name: [] for name in ("", "train", "val", "test")}
    for record in records:
        given[record.split].append(record)
    rest, val, test = [record for record in records if record.split in ("", "train")], given["val"], given["test"]
    if group is not None:
        _refuse_divided_groups(records, group)
    size: float | int = round(val_fraction * (len(rest) if num_listed is None else num_listed))
    _check_enough(rest, 1 + (not test) + (not val))
    if test and fold:
        raise InputError(f"fold is {fold[0]}/{fold[1]}, but this dataset has a test split of its own; leave fold out")
    if not test:
        if fold:
            rest, test = _fold(rest, fold, seed, group)
        else:
            rest, test = stratified_split(rest, test_fraction, seed, "test_fraction", group)
        size = val_fraction
    if not val:
        rest, val = stratified_split(rest, size, seed, "val_fraction", group)
    return {"train": rest, "val": val, "test": test}


def _refuse_divided_groups(records: Sequence[ImageRecord], group: Callable[[ImageRecord], str]) -> None:
    """Refuses groups that the dataset's own splits divide."""
    sides: dict[str, set[str]] = defaultdict(set)
    for record in records:
        sides[group(record)].add(record.split or "train")
    divided = sorted(name for name, found in sides.items() if len(found) > 1)
    if divided:
        raise InputError(
            f"group_by divides {len(divided)} groups, such as {printable(divided[0])}, which is in the splits "
            f"{' and '.join(sorted(sides[divided[0]]))} of the data; leave group_by out, or the data's own splits"
        )


def _check_enough(records: Sequence[ImageRecord], least: int) -> None:
    """Refuses a class that has fewer pictures than there are splits to be filled."""
    for label, count in sorted(Counter(record.label for record in records).items()):
        if count < least:
            near = did_you_mean(label, sorted({record.label for record in records} - {label}))
            splits = "one each to train, to validate and to test" if least == 3 else "one for each split"
            raise InputError(
                f"class {label} has {count} usable picture{'s' if count != 1 else ''}, and {least} are the least, "
                f"{splits}; give more pictures of {label}, or leave the class out{near}"
            )


def first_of_each_class(records: Sequence[ImageRecord], count: int | None, folder: Path) -> list[ImageRecord]:
    """The first pictures of each class, in the order of their names; those of a given test split all stay.

    Args:
        records: The usable pictures.
        count: How many are taken of each class, the option ``images_per_class``; None takes all.
        folder: The folder of the pictures, for the message.

    Raises:
        InputError: A class has fewer.
    """
    if count is None:
        return list(records)
    by_class: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        if record.split in ("", "train"):
            by_class[record.label].append(record)
    for name, own in by_class.items():
        if len(own) < count:
            raise InputError(
                f"images_per_class is {count}, but class {name} has {len(own)} usable pictures in {folder}; give a "
                "smaller number, or null for all"
            )
    taken = {record.path for own in by_class.values() for record in own[:count]}
    return [record for record in records if record.path in taken or record.split not in ("", "train")]


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
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
