"""Predictions as a table on the terminal and in a file."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pet_cifar.data.files.regular import check_regular
from pet_cifar.data.files.replacing import replacing
from pet_cifar.errors import InputError, did_you_mean, disk_errors
from pet_cifar.names import as_cell, printable, without_codes
from pet_cifar.runs.stream import Row
from pet_cifar.training.prediction import NONE_OF_THESE

FORMATS = (".csv", ".json", ".jsonl", ".parquet")
FIRST = ("path", "prediction", "probability")
"""The first columns of every table."""


def check_output(path: Path) -> None:
    """Refuses a file that could not be written, before the work begins.

    Raises:
        InputError: Its ending is unknown, its folder is not there, it is something else than an earlier table, or a
            package is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        near = did_you_mean(suffix, FORMATS)
        raise InputError(
            f"--output {path}: its name ends with {path.suffix or 'nothing'}; give {', '.join(FORMATS)}{near}"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(
            f"--output {path}: there is no folder for it, or it is one; give a file in a folder that is there"
        )
    if suffix == ".parquet":
        _pyarrow()
    if path.exists() and not _is_table(path):
        raise InputError(f"--output {path}: this file is there, and is no table of predictions; give another name")


def _is_table(path: Path) -> bool:
    """Whether `write_table` wrote this file."""
    if path.suffix.lower() == ".parquet":
        arrow, parquet = _pyarrow()
        try:
            return list(parquet.read_schema(path).names[:3]) == list(FIRST)
        except (OSError, arrow.ArrowException):
            return False
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return False
    if path.suffix.lower() == ".csv":
        return head.replace('"', "").startswith(",".join(FIRST))
    return re.match(r'[\[\s]*\{\s*"path": ".*",\s*"prediction": ', head) is not None


def records(rows: Sequence[Row], top: int) -> Iterator[dict[str, Any]]:
    """The rows as records of plain values, all with the same keys.

    Args:
        rows: The rows.
        top: How many of the most probable classes are listed before the probabilities of all.
    """
    predictions = [row.prediction for row in rows if row.prediction is not None]
    names = predictions[0].class_names if predictions else ()
    knows = any(prediction.is_outlier is not None for prediction in predictions)
    for row in rows:
        found = row.prediction
        record: dict[str, Any] = {"path": without_codes(row.source.name)}
        best = found.top(top) if found else []
        for place in range(min(top, len(names))):
            name, probability = best[place] if best else ("", None)
            number = "" if place == 0 else place + 1
            record[f"prediction{number}"] = name
            record[f"probability{number}"] = _rounded(probability)
        if knows:
            record["none_of_these"] = None if found is None else int(found.none_of_these)
        record["error"] = row.error
        for place, name in enumerate(names):
            record[f"p_{name}"] = _rounded(found.probabilities[place]) if found else None
        yield record


def _rounded(probability: float | None) -> float | None:
    return None if probability is None else round(float(probability), 6)


def write_table(rows: Sequence[Row], path: Path, top: int) -> None:
    """Writes the rows; the file is whole or unchanged.

    Raises:
        InputError: It cannot be written.
    """
    found = list(records(rows, top))
    with disk_errors(path, "; give another --output"), replacing(path) as file:
        if path.suffix.lower() == ".parquet":
            arrow, parquet = _pyarrow()
            parquet.write_table(arrow.Table.from_pylist(found), file)
        else:
            file.write(_text(found, path.suffix.lower()).encode())


def _text(found: Sequence[dict[str, Any]], suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if suffix == ".jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in found)
    stream = io.StringIO()
    # Quoted cells stay whole in spreadsheets that take other separators.
    writer = csv.DictWriter(stream, list(found[0]) if found else FIRST, quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    for record in found:
        writer.writerow({name: as_cell(value) if isinstance(value, str) else value for name, value in record.items()})
    return stream.getvalue()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "--output: a .parquet file needs pyarrow, which is not installed: pip install 'pet_cifar[parquet]', or "
            "give a .csv file"
        ) from error
    return pyarrow, pyarrow.parquet


def lines(rows: Sequence[Row], top: int) -> Iterator[str]:
    """The rows as lines of text in columns, below a line that names the columns."""
    names = [printable(row.source.name) for row in rows]
    answers = [_answer(row, top) for row in rows]
    width = min(max(map(len, names), default=0), 60)
    yield f"{'picture':<{width}}  prediction"
    for name, answer in zip(names, answers, strict=True):
        yield f"{name:<{width}}  {answer}"


def _answer(row: Row, top: int) -> str:
    if row.prediction is None:
        return f"cannot be read: {printable(str(row.error))}"
    words = ", ".join(f"{printable(name)} {100 * p:.1f} %" for name, p in row.prediction.top(top))
    return f"{words}  ({NONE_OF_THESE})" if row.prediction.none_of_these else words


def summary(rows: Sequence[Row]) -> str:
    """One line that counts the classes."""
    predictions = [row.prediction for row in rows if row.prediction is not None]
    counts = Counter(NONE_OF_THESE if one.none_of_these else one.label for one in predictions)
    words = [f"{printable(name)} {count}" for name, count in counts.most_common(10)]
    words += [f"others {counts.total() - sum(n for _, n in counts.most_common(10))}"] if len(counts) > 10 else []
    return f"{counts.total()} pictures: {', '.join(words) or 'none could be read'}"
