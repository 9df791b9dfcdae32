"""What a listing's verdicts mean: what is said of them, and what stops a run."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.data.manifest import DUPLICATE, OK, VERDICTS, ImageRecord
from pet_cifar.errors import InputError

log = logging.getLogger(__name__)


def label_conflicts(pictures: Sequence[ImageRecord]) -> list[tuple[ImageRecord, ImageRecord]]:
    """Pairs of identical pictures that carry different labels: (the one that counts, the one left out)."""
    by_path = {picture.path: picture for picture in pictures}
    pairs = [
        (by_path[picture.verdict.removeprefix(DUPLICATE)], picture)
        for picture in pictures
        if picture.verdict.startswith(DUPLICATE)
    ]
    return [(kept, left) for kept, left in pairs if kept.label != left.label]


def describe_left_out(pictures: Sequence[ImageRecord], most: int = 20) -> str:
    """One line naming what is left out and why; empty where nothing is."""
    groups: dict[str, list[str]] = {}
    for picture in pictures:
        if picture.verdict != OK:
            verdict = "duplicate" if picture.verdict.startswith(DUPLICATE) else picture.verdict
            groups.setdefault(verdict, []).append(picture.path)
    if not groups:
        return ""
    parts = []
    for verdict, paths in sorted(groups.items()):
        more = f", and {len(paths) - most} more" if len(paths) > most else ""
        parts.append(f"{len(paths)} {verdict} ({', '.join(paths[:most])}{more})")
    return f"left out {sum(map(len, groups.values()))} of {len(pictures)} files: {'; '.join(parts)}"


def summary(pictures: Sequence[ImageRecord]) -> str:
    """A table of the verdicts for each split and class."""
    verdicts = [OK, "duplicate", *VERDICTS[1:]]
    counts = Counter(
        (
            picture.split,
            picture.label,
            "duplicate" if picture.verdict.startswith(DUPLICATE) else picture.verdict,
        )
        for picture in pictures
    )
    rows = sorted({(split, label) for split, label, _ in counts})
    table = [["split", "class", *verdicts]]
    table += [[split or "all", label, *(str(counts[split, label, v]) for v in verdicts)] for split, label in rows]
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
def warn(pictures: Sequence[ImageRecord], root: Path) -> None:
    """Logs what is left out, and which identical pictures have different labels; by one process."""
    line = describe_left_out(pictures)
    if line:
        log.warning("%s: %s", root, line)
    for kept, left in label_conflicts(pictures):
        log.warning(
            "%s and %s are the same picture with different labels; only the first is used, as %s",
            *(kept.path, left.path, kept.label),
        )


def refuse_bad_files(pictures: Sequence[ImageRecord], root: Path) -> None:
    """Stops where any file under ``root`` should have been a picture and is not.

    Raises:
        InputError: there is one.
    """
    if any(picture.is_bad for picture in pictures):
        raise InputError(f"{root}: {describe_left_out(pictures)}; mend or remove them, or give --data.on_bad_file skip")


def refuse_empty_classes(pictures: Iterable[ImageRecord], class_names: Iterable[str], root: Path) -> None:
    """Stops where a class has no usable picture under ``root``.

    Raises:
        InputError: there is one.
    """
    filled = {picture.label for picture in pictures if picture.verdict == OK}
    for name in class_names:
        if name not in filled:
            raise InputError(f"class {name} has no readable picture under {root}; put some there")
