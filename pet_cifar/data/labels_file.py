"""A table of pictures and their classes: the CSV that ``--data.labels`` names."""

import csv
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pet_cifar.data.files.regular import check_regular
from pet_cifar.data.layout import SPLIT_WORDS, LayoutFile
from pet_cifar.errors import InputError, did_you_mean

PATH_WORDS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "image_id", "name")
LABEL_WORDS = ("label", "class", "category", "target", "class_name", "species", "y")
SPLIT_HEADERS = ("split", "subset", "set", "fold", "partition")


@dataclass
class LabelsFile:
    """What a table says.

    Attributes:
        files: A file for each row, without repeated rows.
        columns: The names of the columns; without a header ``path``, ``label`` and ``split``.
        values: The values of all columns, by path.
        repeated: How many rows say again what an earlier row said.
    """

    files: list[LayoutFile] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    repeated: int = 0


def read_labels_file(file: Path, folder: Path | None = None) -> LabelsFile:
    """Reads a table of paths, classes and, perhaps, splits.

    The separator is guessed among comma, semicolon, tab and bar. A first row is a header where it names a column of
    paths and one of classes (see `PATH_WORDS` and `LABEL_WORDS`); otherwise the columns are path, label and split.

    Args:
        file: The table.
        folder: What the paths in it are relative to; None takes the table's own folder.

    Raises:
        InputError: The file cannot be read, or a row makes no sense.
    """
    rows = _rows(file)
    columns = tuple(cell.strip() for cell in rows[0][1])
    header = [name.lower() for name in columns]
    paths, labels, splits = (_column(header, words) for words in (PATH_WORDS, LABEL_WORDS, SPLIT_HEADERS))
    if paths is None or labels is None:
        columns = ("path", "label", "split")[: len(columns)]
        paths, labels, splits = 0, 1, 2
    else:
        rows = rows[1:]
        if splits is not None and header[splits] in ("set", "fold") and not _are_splits(rows, splits):
            splits = None  # It may number folds.
    found = LabelsFile(columns=columns)
    earlier: dict[str, LayoutFile] = {}
    for number, row in rows:
        row = [cell.strip() for cell in row]
        cells = dict(enumerate(row))
        path, label = _relative(cells.get(paths, ""), folder or file.parent), cells.get(labels, "")
        label = unicodedata.normalize("NFC", label)
        if not path or not label:
            raise InputError(f"{file} line {number} has no {'class' if path else 'path'}; fill it in or leave it out")
        split = "" if splits is None else _split(file, number, cells.get(splits, ""))
        one = LayoutFile(path, label, split)
        if earlier.setdefault(path, one) != one:
            raise _contradiction(file, number, one, earlier[path])
        if path in found.values:
            found.repeated += 1
            continue
        found.files.append(one)
        found.values[path] = dict(zip(columns, row, strict=False))
    if not found.files:
        raise InputError(f"{file} names no picture; give it a row of path and class for each")
    return found


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    try:
        check_regular(file)
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"labels is {file}, which cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{file} line {line} is no UTF-8 text; save the table as UTF-8") from error
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    unquoted = re.sub(r'"[^"]*"', "", first)
    separator = max(",;\t|", key=unquoted.count)
    try:
        parsed = list(enumerate(csv.reader(lines, delimiter=separator, strict=True), start=1))
    except csv.Error as error:
        raise InputError(f"{file} cannot be read as a table: {error}; mend its quotes") from error
    rows = [(number, row) for number, row in parsed if any(cell.strip() for cell in row)]
    if not rows:
        raise InputError(f"{file} is empty; give it a row of path and class for each picture")
    return rows


def _column(header: Sequence[str], words: Sequence[str]) -> int | None:
    return next((header.index(word) for word in words if word in header), None)


def _are_splits(rows: Sequence[tuple[int, list[str]]], column: int) -> bool:
    words = {row[column].strip().lower() for _, row in rows if len(row) > column}
    return words - {""} <= SPLIT_WORDS.keys()


def _split(file: Path, number: int, word: str) -> str:
    if word and word.lower() not in SPLIT_WORDS:
        near = did_you_mean(word, SPLIT_WORDS)
        raise InputError(
            f"{file} line {number} has the split {word}; give train, val or test, or leave the column empty{near}"
        )
    return SPLIT_WORDS[word.lower()] if word else ""


def _relative(path: str, folder: Path) -> str:
    """A path as the list of pictures has it: relative to the table's folder, with forward slashes."""
    path = path.replace("\\", "/").removeprefix("./")
    return os.path.relpath(path, folder.absolute()).replace(os.sep, "/") if path.startswith("/") else path


def _contradiction(file: Path, number: int, row: LayoutFile, earlier: LayoutFile) -> InputError:
    return InputError(
        f"{file} line {number} calls {row.path} {row.label}{_of(row)}, and an earlier line {earlier.label}"
        f"{_of(earlier)}; leave one of them out"
    )


def _of(row: LayoutFile) -> str:
    return f" ({row.split})" if row.split else ""
