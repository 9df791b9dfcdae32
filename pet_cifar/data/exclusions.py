"""The pictures that a user leaves out: the list that ``--data.exclude`` names."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pet_cifar.data.files.regular import check_regular
from pet_cifar.data.manifest import EXCLUDED, NO_CLASS, ImageRecord
from pet_cifar.data.manifest_report import warn_line
from pet_cifar.errors import InputError
from pet_cifar.names import from_cell, listed, printable


def read_exclusions(file: Path) -> list[str]:
    """Reads the paths that a list names, one in each line.

    The list is a table (CSV) with a column ``path``, as ``pet-cifar data doctor`` writes it, or has a path in the first
    column of each line. Empty lines count as none, and without such a column lines that begin with # too.

    Args:
        file: The list.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        check_regular(file)
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"exclude is {file}, which cannot be read: {error.strerror}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    # Spreadsheets save tables with other separators.
    named = (separator for separator in ",;\t|" if lines and "path" in _cells(lines[0].lower(), separator))
    separator = next(named, ",")
    rows = [row for row in csv.reader(lines, delimiter=separator) if any(cell.strip() for cell in row)]
    header = _cells(lines[0].lower(), separator) if lines else []
    if "path" in header:
        column = header.index("path")
        rows = [row for row in rows[1:] if len(row) > column]
    else:
        rows, column = [row for row in rows if not row[0].startswith("#")], 0
    return [from_cell(row[column].strip()).replace("\\", "/").removeprefix("./") for row in rows]


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]


def exclude(records: Sequence[ImageRecord], paths: Sequence[str], file: Path, folder: Path) -> list[ImageRecord]:
    """Marks the pictures that a list names as excluded; a name that no picture has is told.

    Args:
        records: All listed pictures.
        paths: What the list names; see `read_exclusions`.
        file: The list, for the messages.
        folder: The folder that the records' paths are relative to; the list may also hold whole paths below it.

    Raises:
        InputError: None of the paths is listed.
    """
    prefix = f"{folder.absolute().as_posix()}/"
    named = dict.fromkeys(path.removeprefix(prefix) for path in paths)
    known = {record.path for record in records}
    strangers = [path for path in named if path not in known]
    if strangers and len(strangers) == len(named):
        raise InputError(
            f"exclude is {file}, and none of its {len(named)} paths is listed, such as {printable(strangers[0])}; give "
            f"paths relative to {folder}"
        )
    if strangers:
        warn_line(f"exclude: {file} names what is not listed: {listed(strangers, 5)}")
    return [
        replace(record, verdict=EXCLUDED) if record.path in named and record.verdict != NO_CLASS else record
        for record in records
    ]
