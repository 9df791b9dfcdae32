"""Examines the pictures that a run would use, and says what is wrong with them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pet_cifar.data import leakage
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.leakage import NearDuplicates
from pet_cifar.data.manifest import ImageRecord, Split
from pet_cifar.data.near_duplicates import gray_of, groups_of
from pet_cifar.doctor.label_errors import LabelErrors, find_label_errors
from pet_cifar.doctor.shortcuts import Shortcut, find_shortcuts, measures_of

BLANK = 8.0
"""The standard deviation of the gray values, of 0 to 255, below which a picture shows nearly nothing."""
ODD_ASPECT = 3.0
"""The longer side divided by the shorter one from which on a square picture shows a shape badly."""
SMALL = 0.25
"""The share of the net's image size below which a picture's shorter side is called small."""
RARE = 0.2
"""The share of the largest class below which a class is called rare."""


@dataclass(frozen=True)
class Examination:
    """What was found in the pictures that a run would use.

    Attributes:
        records: The pictures: those of training, then of validation, then of the test.
        splits: The split of each picture.
        labels: The class number of each picture, shape (n,).
        class_names: The names of the classes.
        pairs: The near duplicates among them.
        groups: The rows of the pictures that show the same, two or more each.
        straddling: The near duplicates on two sides of the split.
        label_errors: What the other pictures say about the labels; None where no net was at hand.
        shortcuts: How well eleven measures predict the class; empty where a class has one picture.
        blank, odd, small: The rows of pictures that show nearly nothing, are very long or high, or have few pixels.
    """

    records: list[ImageRecord]
    splits: list[Split]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    pairs: list[NearDuplicates]
    groups: list[list[int]]
    straddling: dict[tuple[Split, Split], list[NearDuplicates]]
    label_errors: LabelErrors | None
    shortcuts: list[Shortcut]
    blank: NDArray[np.int64]
    odd: NDArray[np.int64]
    small: NDArray[np.int64]

    @property
    def counts(self) -> dict[str, Counter[Split]]:
        """How many pictures of each class there are in each split."""
        found: dict[str, Counter[Split]] = {name: Counter() for name in self.class_names}
        for record, split in zip(self.records, self.splits, strict=True):
            found[record.label][split] += 1
        return found

    @property
    def rare(self) -> list[str]:
        """The classes that have far fewer pictures than the largest one."""
        sizes = {name: own.total() for name, own in self.counts.items()}
        return [name for name, size in sizes.items() if size < RARE * max(sizes.values())]


def examine(data: ImageDataModule, features: NDArray[np.floating] | None, image_size: int) -> Examination:
    """Examines the pictures of a data module whose ``setup`` has run.

    Args:
        data: The data module.
        features: A pretrained net's features of all pictures in the order of ``data.splits``, shape (n, F); None where
            there is no such net, and then no labels are examined.
        image_size: The side in pixels that a net would take the pictures at.
    """
    records = [record for own in data.splits.values() for record in own]
    splits = [name for name, own in data.splits.items() for _ in own]
    numbers = {name: number for number, name in enumerate(data.class_names)}
    labels = np.array([numbers[record.label] for record in records], np.int64)
    pictures = leakage.small_pictures(records, leakage.at_small_size(data))
    rows = {record.path: row for row, record in enumerate(records)}
    pairs = [pair for pair in data.near_duplicates() if pair.first.path in rows and pair.second.path in rows]
    numbers_of_groups = leakage.group_numbers(records, pairs, data.groups)
    width, height = (np.array([getattr(one, side) for one in records], np.float64) for side in ("width", "height"))
    contrast = gray_of(pictures.astype(np.float32)).std((1, 2))
    longer, shorter = np.maximum(width, height), np.minimum(width, height)
    return Examination(
        records=records,
        splits=splits,
        labels=labels,
        class_names=data.class_names,
        pairs=pairs,
        groups=groups_of([(rows[pair.first.path], rows[pair.second.path]) for pair in pairs], len(records)),
        straddling=leakage.straddling(data.splits, pairs),
        label_errors=None
        if features is None
        else find_label_errors(features, labels, len(data.class_names), numbers_of_groups),
        shortcuts=find_shortcuts(measures_of(records, pictures), labels),
        blank=np.flatnonzero(contrast < BLANK),
        odd=np.flatnonzero(longer >= ODD_ASPECT * shorter),
        small=np.flatnonzero(shorter < SMALL * image_size),
    )


@dataclass(frozen=True)
class Line:
    """One line of the summary.

    Attributes:
        finding: What was looked for.
        figure: What was found, as a number with its unit.
        advice: What it means and what can be done; empty where nothing need be.
    """

    finding: str
    figure: str
    advice: str


def summarize(found: Examination) -> Iterator[Line]:
    """The summary, for the terminal and the page."""
    yield from _about_classes(found)
    yield from _about_near_duplicates(found)
    yield from _about_labels(found)
    yield from _about_shortcuts(found)
    for finding, rows, advice in (
        ("blank pictures", found.blank, "they show nearly nothing; look at them on the page"),
        ("odd shapes", found.odd, f"one side is {ODD_ASPECT:g} times the other or more, and is squashed to a square"),
        ("small pictures", found.small, "they are enlarged to more than 4 times their size; try a smaller image_size"),
    ):
        yield Line(finding, _pictures(len(rows)), advice if len(rows) else "")


def _pictures(count: int) -> str:
    return f"{count:,} picture" if count == 1 else f"{count:,} pictures"


def _about_classes(found: Examination) -> Iterator[Line]:
    sizes = {name: own.total() for name, own in found.counts.items()}
    least, most = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
    rare = len(found.rare)
    advice = (
        f"{rare} classes are rare; look at val/balanced_acc, and try --model.class_weights balanced" if rare else ""
    )
    size = f"{sizes[least]:,} pictures each"
    if sizes[least] != sizes[most]:
        size = f"of {sizes[least]:,} ({least}) to {sizes[most]:,} ({most}) pictures"
    yield Line("classes", f"{len(sizes)}, {size}", advice)


def _about_near_duplicates(found: Examination) -> Iterator[Line]:
    inside = sum(map(len, found.groups))
    groups = f"{len(found.groups):,} group" if len(found.groups) == 1 else f"{len(found.groups):,} groups"
    yield Line(
        "near duplicates",
        f"{_pictures(inside)} in {groups} ({100 * inside / len(found.records):.2f} %)",
        "pictures of a group show the same, and can make a score too good on two sides of a split" if inside else "",
    )
    mixed = [group for group in found.groups if len({found.records[row].label for row in group}) > 1]
    if mixed:
        yield Line(
            "near duplicates of two classes",
            f"{len(mixed):,} group{'s' if len(mixed) != 1 else ''}",
            "pictures that show the same have different labels, of which one at most is right; they come first",
        )
    split_of = {record.path: split for record, split in zip(found.records, found.splits, strict=True)}
    for (one, other), pairs in found.straddling.items():
        in_other = {
            record.path for pair in pairs for record in (pair.first, pair.second) if split_of[record.path] == other
        }
        total = found.splits.count(other)
        advice = f"{other} pictures that show the same as one of {one} make a score too good"
        if other == "test":
            advice += "; --data.drop_near_duplicates train leaves out those of training and validation"
        yield Line(
            f"near duplicates across {one} and {other}",
            f"{len(in_other):,} of {total:,} {other} pictures ({100 * len(in_other) / total:.2f} %)",
            advice,
        )


def _about_labels(found: Examination) -> Iterator[Line]:
    errors = found.label_errors
    if errors is None:
        yield Line("wrong labels", "not looked for", "give --weights FILE, of a net that was trained on other pictures")
        return
    suspects, count = len(errors.suspects), len(found.records)
    most = "at most " if errors.is_upper_limit else ""
    interval = f"95 % interval {100 * errors.low:.2f} to {100 * errors.high:.2f} %"
    yield Line(
        "suspect labels",
        f"{_pictures(suspects)} ({100 * suspects / count:.2f} %)",
        "the other pictures say another class; look at them on the page, the worst first" if suspects else "",
    )
    yield Line(
        "wrong labels, estimated",
        f"{most}{100 * errors.share:.2f} % of all labels ({interval})",
        "the classes look too much alike to the pretrained net for more than an upper limit" if most else "",
    )


def _about_shortcuts(found: Examination) -> Iterator[Line]:
    warned = [shortcut for shortcut in found.shortcuts if shortcut.is_warned]
    if not found.shortcuts:
        yield Line("shortcuts", "not looked for", "a class has one picture only")
    elif not warned:
        best = found.shortcuts[0]
        yield Line("shortcuts", f"none; the best is {best.measure}, {_in_words(found, best)}", "")
    for shortcut in warned:
        yield Line(
            f"shortcut: {shortcut.measure}",
            _in_words(found, shortcut),
            "it alone tells the class, and a net may learn it instead of the subject; make it alike in all classes",
        )


def _in_words(found: Examination, shortcut: Shortcut) -> str:
    return (
        f"{100 * shortcut.balanced_accuracy:.1f} % right by it alone (95 % interval {100 * shortcut.low:.1f} to "
        f"{100 * shortcut.high:.1f} %, guessing {100 / len(found.class_names):.1f} %)"
    )
