"""Predictions as a table on the terminal and in a file."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_cifar.data.files.names import printable
from pet_cifar.errors import InputError, did_you_mean, disk_errors
from pet_cifar.runs.load import NONE_OF_THESE, Prediction
from pet_cifar.runs.sources import Source

FORMATS = (".csv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Row:
    """What came of one picture.

    Attributes:
        source: The picture.
        prediction: What the net says; None where it could not be read.
        error: Why it could not be read; empty where it could.
    """

    source: Source
    prediction: Prediction | None
    error: str = ""


def check_output(path: Path) -> None:
    """Refuses a file that could not be written, before the work begins.

    Raises:
        InputError: Its ending is unknown, its folder is not there, or a package is missing.
    """
    if path.suffix not in FORMATS:
        near = did_you_mean(path.suffix, FORMATS)
        raise InputError(
            f"--output {path}: its name ends with {path.suffix or 'nothing'}; give {', '.join(FORMATS)}{near}"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(
            f"--output {path}: there is no folder for it, or it is one; give a file in a folder that is there"
        )
    if path.suffix == ".parquet":
        _pyarrow()


def records(rows: Sequence[Row], top: int) -> Iterator[dict[str, Any]]:
    """The rows as records of plain values, all with the same keys.

    Args:
        rows: The rows.
        top: How many of the most probable classes are listed.
    """
    knows = any(row.prediction is not None and row.prediction.is_outlier is not None for row in rows)
    for row in rows:
        found = row.prediction
        record: dict[str, Any] = {"path": printable(row.source.name), "prediction": found.label if found else ""}
        best = found.top(top) if found else []
        for place in range(top):
            name, probability = best[place] if place < len(best) else ("", None)
            record[f"top{place + 1}"] = name
            record[f"p{place + 1}"] = None if probability is None else round(probability, 6)
        if knows:
            record["none_of_these"] = None if found is None else int(found.none_of_these)
        record["error"] = row.error
        yield record


def write_table(rows: Sequence[Row], path: Path, top: int) -> None:
    """Writes the rows; the file is whole or unchanged.

    Raises:
        InputError: It cannot be written.
    """
    found = list(records(rows, top))
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with disk_errors(path, "; give another --output"):
        try:
            if path.suffix == ".parquet":
                arrow, parquet = _pyarrow()
                parquet.write_table(arrow.Table.from_pylist(found), partial)
            else:
                partial.write_text(_text(found, path.suffix), encoding="utf-8", newline="")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _text(found: Sequence[dict[str, Any]], suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if suffix == ".jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in found)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(found[0]) if found else ["path"])
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in record.items()} for record in found)
    return stream.getvalue()


def _cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


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
    """The rows as lines of text in columns."""
    names = [printable(row.source.name) for row in rows]
    width = min(max(map(len, names), default=0), 60)
    for name, row in zip(names, rows, strict=True):
        if row.prediction is None:
            yield f"{name:<{width}}  {row.error}"
            continue
        words = ", ".join(f"{printable(one)} {100 * p:.1f} %" for one, p in row.prediction.top(top))
        yield f"{name:<{width}}  {words}" + (f"  ({NONE_OF_THESE})" if row.prediction.none_of_these else "")
