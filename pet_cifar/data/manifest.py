"""Checks every file once, and lists it with a verdict: whether it is a picture, and whether it is a duplicate.

The list is kept as a CSV beside the data (or in the user's cache directory where the data is read-only), so that a
second run only compares names, sizes and times.
"""

import csv
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pet_cifar.data.files.locking import locked
from pet_cifar.data.files.parallel import map_in_threads
from pet_cifar.data.files.regular import MAX_BYTES, check_regular, is_endless, read_regular
from pet_cifar.data.files.replacing import replacing_text
from pet_cifar.data.pixels.decode import DecodeError, decode, inspect
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.names import as_cell, from_cell, printable

PICTURE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpf"),
}
OK = "ok"
DUPLICATE = "duplicate of "
UNSUPPORTED = "unsupported format"
BROKEN_LINK = "broken link"
NO_CLASS = "no class"
EXCLUDED = "excluded"
VERDICTS = (
    *(OK, "empty", "truncated", "undecodable", UNSUPPORTED, BROKEN_LINK),
    *(NO_CLASS, "not an image", EXCLUDED),
)
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A listed file (or one row of an array file) and what was found in it.

    Attributes:
        path: The file's path relative to the data's folder, with forward slashes.
        label: The name of the class; empty where the file belongs to none.
        split: ``train``, ``val`` or ``test`` where the dataset itself is divided, else empty.
        bytes: The size of the encoded picture.
        modified_ns: The time in nanoseconds of the last change of the file's content, as it is set.
        changed_ns: The time in nanoseconds of the last change of anything, which no program can set: a file that was
            replaced by one of the same size and date has another.
        width, height: The size in pixels as the file's header gives it; 0 where it could not be read.
        mode: Pillow's name for the pixel format, such as ``RGB`` or ``L``.
        hash: The sha256 of the encoded bytes, in hexadecimal.
        verdict: ``duplicate of PATH`` or one of `VERDICTS`.
    """

    path: str
    label: str
    split: str
    bytes: int
    modified_ns: int
    changed_ns: int
    width: int
    height: int
    mode: str
    hash: str
    verdict: str

    @property
    def is_bad(self) -> bool:
        """Whether this should have been a picture and is not; a stray ``Thumbs.db`` is left out but not bad."""
        if self.verdict in (OK, NO_CLASS, EXCLUDED) or self.verdict.startswith(DUPLICATE):
            return False
        return self.verdict != "not an image" or Path(self.path).suffix.lower() in PICTURE_SUFFIXES


COLUMNS = tuple(field.name for field in fields(ImageRecord))
"""The columns of a listing."""


_NUMBERS = re.compile("([0-9]+)")


def natural_key(path: str) -> list[str | int]:
    """Returns a key that sorts ``Cat/2.jpg`` before ``Cat/10.jpg``, on every machine and from any order of listing."""
    key: list[str | int] = [*_NUMBERS.split(path)]
    key[1::2] = map(int, key[1::2])
    # The path itself comes last, so that 1.jpg and 01.jpg have an order too. It stands behind a number that is below
    # all others, because every second part of a key is a number.
    key += (-1, path)
    return key


def check_files(
    folder: Path, files: Iterable[tuple[str, str, str]], listing: Path, num_threads: int
) -> list[ImageRecord]:
    """Opens and decodes every file once; a file that has not changed since an earlier listing is not read again.

    Args:
        folder: The folder that the paths are relative to.
        files: A (path, label, split) for every file, in any order; a file without a label belongs to no class, and is
            listed unread.
        listing: The CSV to reuse and to write.
        num_threads: The number of files that are checked at a time.

    Returns:
        The records in natural order of their paths, duplicates marked.
    """
    found = sorted(set(files), key=lambda file: natural_key(file[0]))
    before = read_csv(listing)
    records, todo = _known(folder, found, before)
    if not todo:
        return _listed(records, before, listing)
    # Of several runs that start at once, one checks, and the others find what it has listed.
    with locked(listing, ""):
        before = read_csv(listing)
        records, todo = _known(folder, found, before)
        missing = [found[index] for index in todo]
        checked = map_in_threads(lambda file: check_file(folder, *file), missing, num_threads, "checking pictures")
        for index, record in zip(todo, checked, strict=True):
            records[index] = record
        return _listed(records, before, listing)


def _known(
    folder: Path, found: Sequence[tuple[str, str, str]], before: Sequence[ImageRecord]
) -> tuple[list[ImageRecord | None], list[int]]:
    """The records of files that an earlier listing knows as unchanged, and the places of the others."""
    known = {record.path: record for record in before}
    base = os.fspath(folder)
    records: list[ImageRecord | None] = []
    todo: list[int] = []
    for path, label, split in found:
        try:
            status = os.stat(f"{base}/{path}")  # noqa: PTH116 - far faster than a Path, and there may be 60,000
        except OSError as error:
            if not os.path.islink(f"{base}/{path}"):  # noqa: PTH114
                raise _unreadable(folder / path, error) from error
            records.append(ImageRecord(path, label, split, 0, 0, 0, 0, 0, "", "", BROKEN_LINK))
            continue
        old = known.get(path)
        seen = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if not label:
            records.append(ImageRecord(path, label, split, *seen, 0, 0, "", "", NO_CLASS))
        # What no plugin could read may be readable by now.
        elif old and old.label and old.verdict != UNSUPPORTED and (old.bytes, old.modified_ns, old.changed_ns) == seen:
            verdict = OK if old.verdict.startswith(DUPLICATE) else old.verdict
            same = (old.label, old.split, old.verdict) == (label, split, verdict)
            records.append(old if same else replace(old, label=label, split=split, verdict=verdict))
        else:
            todo.append(len(records))
            records.append(None)
    return records, todo


def _listed(records: Iterable[ImageRecord | None], before: Sequence[ImageRecord], listing: Path) -> list[ImageRecord]:
    """Marks duplicates, and writes the list where it is another than before."""
    listed = mark_duplicates([record for record in records if record is not None])
    if listed != list(before):
        write_csv(listed, listing)
    return listed


def check_file(folder: Path, path: str, label: str, split: str) -> ImageRecord:
    """Reads one file, decodes all of it, and says what it is."""
    file = folder / path
    try:
        status = file.stat()
        times = (status.st_mtime_ns, status.st_ctime_ns)
        if is_endless(status) or status.st_size > MAX_BYTES:
            return ImageRecord(path, label, split, status.st_size, *times, 0, 0, "", "", "not an image")
        encoded = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error
    width, height, mode, verdict = 0, 0, "", OK
    try:
        width, height, mode = inspect(encoded)
    except DecodeError as error:
        verdict = error.verdict
    digest = hashlib.sha256(encoded).hexdigest()
    return ImageRecord(path, label, split, len(encoded), *times, width, height, mode, digest, verdict)


def _unreadable(file: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {printable(str(file))}: {error.strerror}; give it read permission or take it away")


def read_listed(file: Path, image_size: int, channels: Literal[1, 3], digest: str) -> NDArray[np.uint8]:
    """Decodes a file that was listed as usable; see `decode`.

    Args:
        file: The file.
        image_size: The side of the square picture in pixels.
        channels: 1 for gray, 3 for color.
        digest: The sha256 that it was listed with. Computing it takes a hundredth of the time of decoding.

    Raises:
        InputError: It has gone, or is another by now.
    """
    try:
        encoded = read_regular(file)
        if hashlib.sha256(encoded).hexdigest() != digest:
            raise InputError(
                f"{printable(str(file))} was changed after the pictures were checked; put it back and go on from the "
                "last checkpoint, or run again with the new one"
            )
        return decode(encoded, image_size, channels)
    except (OSError, DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{printable(str(file))} could be read when the pictures were checked, and now it cannot ({reason}); put "
            "it back, and go on from the last checkpoint or run again"
        ) from error


def check_arrays(arrays: Iterable[tuple[str, str, str, NDArray[np.uint8]]]) -> list[ImageRecord]:
    """Lists pictures that come as arrays; each item is (path, label, split, pixels of shape (H, W) or (H, W, 3))."""
    records = [
        ImageRecord(
            path=path,
            label=label,
            split=split,
            bytes=pixels.nbytes,
            modified_ns=0,
            changed_ns=0,
            width=pixels.shape[1],
            height=pixels.shape[0],
            mode="L" if pixels.ndim == 2 else "RGB",
            hash=hashlib.sha256(pixels.tobytes()).hexdigest(),
            verdict=OK,
        )
        for path, label, split, pixels in arrays
    ]
    return mark_duplicates(records)


def mark_duplicates(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Marks every picture whose bytes were seen before, in the given order but in test first and then in validation.

    A dataset's own test split loses no picture: its copies stay, and the copy in the training split is left out.
    """
    first: dict[str, str] = {}
    turn = {"test": 0, "val": 1}
    for record in sorted(records, key=lambda record: turn.get(record.split, 2)):
        if record.verdict == OK:
            first.setdefault(record.hash, record.path)
    return [
        replace(record, verdict=DUPLICATE + first[record.hash])
        if record.verdict == OK and record.split != "test" and first[record.hash] != record.path
        else record
        for record in records
    ]


def write_csv(records: Sequence[ImageRecord], path: Path) -> None:
    """Writes the list; the file is whole or unchanged, and an `InputError` says why it cannot be written."""
    with disk_errors(path, ""):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files may hold bytes that are no UTF-8, which come back as they were.
        with replacing_text(path, "surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            # asdict would copy every value, which for small pictures takes a tenth of the time of checking them.
            rows = map(attrgetter(*COLUMNS), records)
            writer.writerows((as_cell(path), as_cell(label), *others) for path, label, *others in rows)


def is_listing(path: Path) -> bool:
    """Whether `write_csv` wrote this file, in this version or another."""
    try:
        check_regular(path)
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header = next(csv.reader(file), [])
    except (OSError, csv.Error):
        return False
    return header[:3] == list(COLUMNS[:3]) and header[-1:] == list(COLUMNS[-1:])


def read_csv(path: Path) -> list[ImageRecord]:
    """Reads a list that `write_csv` wrote; one that is absent, damaged or of another layout counts as empty."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file, strict=True)
        if header != list(COLUMNS) or not all(_is_verdict(row[-1]) for row in rows):
            return []
        # Values are taken by position, since there may be 60,000 rows.
        return [
            ImageRecord(
                from_cell(path) if path[:1] == "'" else path,
                from_cell(label) if label[:1] == "'" else label,
                split,
                int(a),
                int(b),
                int(c),
                int(d),
                int(e),
                mode,
                digest,
                verdict,
            )
            for path, label, split, a, b, c, d, e, mode, digest, verdict in rows
        ]
    except (OSError, ValueError, IndexError, csv.Error):  # The list is damaged, so everything is checked anew.
        return []


def _is_verdict(text: str) -> bool:
    return text in VERDICTS or text.startswith(DUPLICATE)
