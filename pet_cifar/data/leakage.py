"""Keeps near duplicates out of reach of a test: pictures that show the same are on one side of a split.

Which pictures show the same is found once for a set of pictures, and kept beside the data.
"""

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from pet_cifar.data.files.locking import locked
from pet_cifar.data.files.parallel import map_in_threads
from pet_cifar.data.files.regular import read_json
from pet_cifar.data.files.replacing import replacing
from pet_cifar.data.manifest import ImageRecord, Split, natural_key
from pet_cifar.data.manifest_report import warn_line
from pet_cifar.data.near_duplicates import SIDE, groups_of, near_duplicates
from pet_cifar.data.pixels.decode import fit_array
from pet_cifar.errors import disk_errors
from pet_cifar.hardware import cores
from pet_cifar.names import printable

MOST = 50_000
"""The number of pictures up to which a run looks for near duplicates by itself, which takes a minute, once."""
FORMAT = 1
"""This number changes when the near duplicates of the same pictures would be other ones."""

Read = Callable[[ImageRecord], NDArray[np.uint8]]


@dataclass(frozen=True)
class NearDuplicates:
    """Two pictures that show the same.

    Attributes:
        first, second: Their records.
        mirrored: Whether one is the mirror image of the other.
        similarity: How well they agree, 1 for equal pictures; see `near_duplicates`.
    """

    first: ImageRecord
    second: ImageRecord
    mirrored: bool
    similarity: float


def small_pictures(records: Sequence[ImageRecord], read: Read) -> NDArray[np.uint8]:
    """Reads pictures at a size that shows what they show and no more.

    Args:
        records: The pictures.
        read: Reads one picture: uint8, shape (C, H, W); pictures of another size than 32 x 32 are resized.

    Returns:
        RGB, shape (n, 3, 32, 32).
    """
    pictures = np.empty((len(records), 3, SIDE, SIDE), np.uint8)
    found = map_in_threads(read, records, cores(), "reading small pictures")
    for row, picture in enumerate(found):
        if picture.shape != pictures.shape[1:]:
            last = picture.transpose(1, 2, 0)
            picture = fit_array(last[..., 0] if last.shape[2] == 1 else np.ascontiguousarray(last), SIDE, 3)
        pictures[row] = picture
    return pictures


def find_near_duplicates(records: Sequence[ImageRecord], read: Read, directory: Path) -> list[NearDuplicates]:
    """Finds near duplicates among pictures, or reads what an earlier run found among the same ones.

    Args:
        records: The pictures, without identical ones.
        read: Reads one picture; see `small_pictures`.
        directory: Where the result is kept.
    """
    # The names of files do not count, so that a folder that was moved is not read again.
    records = sorted(records, key=lambda record: (record.hash, record.path))
    key = hashlib.sha256("\n".join(record.hash for record in records).encode()).hexdigest()
    file = directory / f"near_duplicates-{FORMAT}-{key[:20]}.json"
    with locked(file):
        if (rows := _read(file, len(records))) is None:
            pairs = near_duplicates(small_pictures(records, read))
            rows = [(pair.first, pair.second, pair.mirrored, round(pair.similarity, 4)) for pair in pairs]
            _write(rows, file)
    return [NearDuplicates(records[a], records[b], mirrored, score) for a, b, mirrored, score in rows]


def at_small_size(data: object) -> Read:
    """The ``read`` of a data module for small pictures in color.

    Args:
        data: The data module; it is not changed.
    """
    small = copy.copy(data)
    small.image_size, small.num_channels = SIDE, 3  # type: ignore[attr-defined]
    read: Read = small.read  # type: ignore[attr-defined]
    return read


def is_divided_here(splits: Mapping[Split, Sequence[ImageRecord]]) -> bool:
    """Whether pictures were divided into two splits or more, and not by the dataset itself."""
    return sum(any(_is_movable(record, name) for record in records) for name, records in splits.items()) > 1


def _is_movable(record: ImageRecord, split: Split) -> bool:
    """Whether the dataset left it open which split a picture is in; its training pictures may become validation's."""
    return split == "train" or record.split != split


def keep_together(
    splits: Mapping[Split, Sequence[ImageRecord]],
    pairs: Sequence[NearDuplicates],
    groups: Mapping[str, str],
) -> dict[Split, list[ImageRecord]]:
    """Moves near duplicates to one split, as far as the dataset leaves the choice and no class suffers.

    A group of pictures that show the same goes to the split that the first of them is in, or else to one that another
    of them is in. Where each choice would take more than half of a class's pictures out of a split, the group stays on
    two sides, which a warning tells. A picture that the dataset itself puts into its test or validation split stays.

    Args:
        splits: The pictures of each split.
        pairs: The near duplicates among them, and perhaps among others.
        groups: The name of the group that a picture belongs to, by its path; a group moves as a whole.

    Returns:
        The splits, each in the order of its paths.
    """
    if not pairs and not groups:
        return {name: list(records) for name, records in splits.items()}
    movable = {
        record.path: (name, record)
        for name, records in splits.items()
        for record in records
        if _is_movable(record, name)
    }
    before = {name: Counter(record.label for record in records) for name, records in splits.items()}
    now = {name: Counter(counts) for name, counts in before.items()}
    moved: dict[str, Split] = {}
    stuck: list[str] = []
    for paths in _groups_of_paths(list(movable), pairs, groups):
        sides = list(dict.fromkeys(movable[path][0] for path in paths))
        if len(sides) == 1:
            continue
        for side in sides:
            after = {name: Counter(counts) for name, counts in now.items()}
            for name, record in (movable[path] for path in paths):
                after[name][record.label] -= 1
                after[side][record.label] += 1
            labels = {movable[path][1].label for path in paths}
            if all(2 * after[name][label] >= before[name][label] for name in before for label in labels):
                now = after
                moved.update({path: side for path in paths if movable[path][0] != side})
                break
        else:
            stuck.append(paths[0])
    if stuck:
        more = f" and {len(stuck) - 1} more" if len(stuck) > 1 else ""
        warn_line(
            f"{printable(stuck[0])}{more}: pictures that show the same stay on two sides of the split, since moving "
            "them would take more than half of a class out of a split; a test may come out too good: give more "
            "pictures of the class, or --data.drop_near_duplicates train"
        )
    if not moved:
        return {name: list(records) for name, records in splits.items()}
    rank_zero_info(
        f"near duplicates: {len(moved)} of {len(movable)} pictures are on another side of the split than they would "
        "be, because they show the same as a picture there"
    )
    return _moved(splits, moved)


def _groups_of_paths(
    paths: Sequence[str], pairs: Sequence[NearDuplicates], groups: Mapping[str, str]
) -> list[list[str]]:
    """The pictures that belong together, by what they show or by the user's groups, each in the order of their names.

    The order of the splits must not decide which is the first of a group.
    """
    rows = {path: row for row, path in enumerate(paths)}
    links = [(rows[pair.first.path], rows[pair.second.path]) for pair in pairs if _both_in(pair, rows)]
    heads: dict[str, int] = {}
    links += [(heads.setdefault(groups[path], row), row) for path, row in rows.items() if path in groups]
    found = [sorted((paths[row] for row in group), key=natural_key) for group in groups_of(links, len(paths))]
    return sorted(found, key=lambda group: natural_key(group[0]))


def group_numbers(
    records: Sequence[ImageRecord], pairs: Sequence[NearDuplicates], groups: Mapping[str, str]
) -> NDArray[np.int64]:
    """A number for each picture that it shares with those that show the same or belong to the same group.

    Args:
        records: The pictures.
        pairs: The near duplicates among them, and perhaps among others.
        groups: The name of the group that a picture belongs to, by its path.

    Returns:
        Shape (n,); a picture that belongs with no other has a number of its own.
    """
    rows = {record.path: row for row, record in enumerate(records)}
    numbers = np.arange(len(records))
    for paths in _groups_of_paths(list(rows), pairs, groups):
        numbers[[rows[path] for path in paths]] = rows[paths[0]]
    return numbers


def drop_from_training(
    splits: Mapping[Split, Sequence[ImageRecord]], pairs: Sequence[NearDuplicates]
) -> dict[Split, list[ImageRecord]]:
    """Leaves out training and validation pictures that show the same as a test picture, and says how many.

    Args:
        splits: The pictures of each split.
        pairs: The near duplicates among them.
    """
    test = {record.path for record in splits["test"]}
    ends = [(pair.first.path, pair.second.path) for pair in pairs]
    leaking = {b for a, b in ends if a in test} | {a for a, b in ends if b in test}
    after = {
        name: [record for record in records if name == "test" or record.path not in leaking]
        for name, records in splits.items()
    }
    left = sum(map(len, splits.values())) - sum(map(len, after.values()))
    rank_zero_info(f"drop_near_duplicates: {left} training and validation pictures show the same as a test picture")
    return after


def straddling(
    splits: Mapping[Split, Sequence[ImageRecord]], pairs: Sequence[NearDuplicates]
) -> dict[tuple[Split, Split], list[NearDuplicates]]:
    """The near duplicates on two sides of a split, by the names of the two."""
    side = {record.path: name for name, records in splits.items() for record in records}
    order: tuple[Split, ...] = ("train", "val", "test")
    found: dict[tuple[Split, Split], list[NearDuplicates]] = {}
    for pair in pairs:
        one, other = side.get(pair.first.path), side.get(pair.second.path)
        if one is not None and other is not None and one != other:
            first, second = sorted((one, other), key=order.index)
            found.setdefault((first, second), []).append(pair)
    return found


def _both_in(pair: NearDuplicates, rows: Mapping[str, int]) -> bool:
    return pair.first.path in rows and pair.second.path in rows


def _moved(splits: Mapping[Split, Sequence[ImageRecord]], moved: Mapping[str, Split]) -> dict[Split, list[ImageRecord]]:
    after: dict[Split, list[ImageRecord]] = {name: [] for name in splits}
    for name, records in splits.items():
        for record in records:
            after[moved.get(record.path, name)].append(record)
    return {name: sorted(records, key=lambda record: natural_key(record.path)) for name, records in after.items()}


def _read(file: Path, count: int) -> list[tuple[int, int, bool, float]] | None:
    """What an earlier run found; None where it found nothing or the file is damaged."""
    try:
        rows = read_json(file)
        found = [(int(a), int(b), bool(mirrored), float(score)) for a, b, mirrored, score in rows]
    except (OSError, ValueError, TypeError, OverflowError):  # No number is infinite.
        return None
    return found if all(0 <= a < b < count for a, b, _, _ in found) else None


def _write(rows: Sequence[tuple[int, int, bool, float]], file: Path) -> None:
    with disk_errors(file, ""), replacing(file, waits_for_disk=False) as content:
        content.write(json.dumps(rows).encode())
