"""Tells the user what the verdicts of a listing are, and stops a run whose data cannot be used."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.data.manifest import DUPLICATE, NO_CLASS, OK, VERDICTS, ImageRecord, Split
from pet_cifar.errors import InputError, did_you_mean
from pet_cifar.names import printable

log = logging.getLogger(__name__)

MOST = 0.9
"""The share of one class in the training pictures from which on accuracy says little."""


def label_conflicts(records: Sequence[ImageRecord]) -> list[tuple[ImageRecord, ImageRecord]]:
    """Returns pairs of identical pictures with different labels: (the one that is used, the one that is left out)."""
    by_path = {record.path: record for record in records}
    pairs = [
        (by_path[record.verdict.removeprefix(DUPLICATE)], record)
        for record in records
        if record.verdict.startswith(DUPLICATE)
    ]
    return [(kept, left) for kept, left in pairs if kept.label != left.label]


def describe_left_out(records: Sequence[ImageRecord], most: int = 20) -> str:
    """Returns one line that names what is left out and why; it is empty where nothing is left out."""
    groups: dict[str, list[str]] = {}
    for record in records:
        if record.verdict != OK:
            verdict = "duplicate" if record.verdict.startswith(DUPLICATE) else record.verdict
            groups.setdefault(verdict, []).append(printable(record.path))
    if not groups:
        return ""
    parts = []
    for verdict, paths in sorted(groups.items()):
        if verdict == NO_CLASS:
            folders = Counter(f"{path.rpartition('/')[0] or '.'}/" for path in paths)
            parts.append(f"{len(paths)} {verdict} ({', '.join(f'{count} in {one}' for one, count in folders.items())})")
            continue
        more = f", and {len(paths) - most} more" if len(paths) > most else ""
        parts.append(f"{len(paths)} {verdict} ({', '.join(paths[:most])}{more})")
    return f"left out {sum(map(len, groups.values()))} of {len(records)} files: {'; '.join(parts)}"


def verdict_table(records: Sequence[ImageRecord]) -> str:
    """Returns a table that counts the verdicts of each split and class, as far as they occur."""
    counts = Counter(
        (
            record.split,
            record.label,
            "duplicate" if record.verdict.startswith(DUPLICATE) else record.verdict,
        )
        for record in records
    )
    rows = sorted({(split, label) for split, label, _ in counts})
    occurring = {verdict for _, _, verdict in counts}
    verdicts = [OK, *(verdict for verdict in ("duplicate", *VERDICTS[1:]) if verdict in occurring)]
    table = [["split", "class", *verdicts]]
    table += [
        [split or "all", printable(label) or "none", *(str(counts[split, label, v]) for v in verdicts)]
        for split, label in rows
    ]
    table.append(["", "total", *(str(sum(counts[*row, v] for row in rows)) for v in verdicts)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )


@rank_zero_only
def warn(records: Sequence[ImageRecord], root: Path) -> None:
    """Logs, in one process, what is left out and which identical pictures have different labels."""
    line = describe_left_out(records)
    if line:
        log.warning("%s: %s", printable(str(root)), line)
    for kept, left in label_conflicts(records):
        log.warning(
            "%s and %s are the same picture with different labels; only the first is used, as %s",
            *(printable(text) for text in (kept.path, left.path, kept.label)),
        )


def report_listing(records: Sequence[ImageRecord], class_names: Sequence[str], root: Path) -> None:
    """Tells what a listing leaves out, and refuses a class without a usable picture.

    Args:
        records: The listing.
        class_names: The names of all classes.
        root: The data's folder, for the messages.

    Raises:
        InputError: A class has no usable picture.
    """
    warn(records, root)
    refuse_empty_classes(records, class_names, root)


def report_splits(splits: Mapping[Split, Sequence[ImageRecord]], class_names: Sequence[str], root: Path) -> None:
    """Tells what is odd about splits, and refuses a class that would not be trained; see `check_splits`."""
    check_splits(splits, class_names, root)
    warn_of_imbalance(splits["train"])


def refuse_bad_files(records: Sequence[ImageRecord], root: Path) -> None:
    """Stops where any file under ``root`` should have been a picture and is not.

    Raises:
        InputError: There is such a file.
    """
    if any(record.is_bad for record in records):
        raise InputError(f"{root}: {describe_left_out(records)}; mend or remove them, or give --data.on_bad_file skip")


def refuse_empty_classes(records: Iterable[ImageRecord], class_names: Iterable[str], root: Path) -> None:
    """Stops where a class has no usable picture under ``root``.

    Raises:
        InputError: There is such a class.
    """
    filled = {record.label for record in records if record.verdict == OK}
    for name in class_names:
        if name not in filled:
            raise InputError(f"class {name} has no readable picture under {root}; put some there")


def _near(name: str, class_names: Iterable[str]) -> str:
    return did_you_mean(name, [printable(other) for other in class_names if other != name])


def check_splits(splits: Mapping[Split, Sequence[ImageRecord]], class_names: Sequence[str], root: Path) -> None:
    """Stops where a class has no training picture, and warns where it has none to validate or test.

    Args:
        splits: The pictures of each split.
        class_names: The names of all classes.
        root: The data's folder, for the message.

    Raises:
        InputError: The net would never see a class.
    """
    for split, records in splits.items():
        filled = {record.label for record in records}
        for name in class_names:
            if name in filled:
                continue
            if split == "train":
                raise InputError(
                    f"class {printable(name)} has no training picture under {root}, though it has others; put some "
                    f"into its training folder, or take the class away{_near(name, class_names)}"
                )
            warn_line(f"class {printable(name)} has no picture in {split} under {root}, so that it gets no score there")


def warn_of_imbalance(training: Sequence[ImageRecord]) -> None:
    """Warns where nearly all training pictures are of one class, so that a high accuracy says little."""
    (label, count), *_ = Counter(record.label for record in training).most_common(1)
    if count > MOST * len(training):
        warn_line(
            f"{100 * count / len(training):.0f} % of the training pictures are of the class {printable(label)}, and a "
            "net that always says so is right as often: look at val/balanced_acc and val/f1, and try "
            "--model.class_weights balanced"
        )


@rank_zero_only
def warn_line(line: str) -> None:
    """Logs a warning in one process; a name of a stranger's may stand in it."""
    log.warning(printable(line))
