"""A comparison as a table: for the terminal, and as Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pet_cifar.names import as_cell
from pet_cifar.runs.comparison import Comparison
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.statistics import Interval


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: Its name, which is its head in CSV and JSON.
        head: Its head for people.
        value: What it holds for an experiment; None where that is not known.
        show: How people see the value.
        is_short: Whether the terminal shows it.
    """

    name: str
    head: str
    value: Callable[[Experiment], Any]
    show: Callable[[Any], str]
    is_short: bool = False


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _three(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:.2f} to {_percent(interval.high)}"


def _over_seeds(one: Experiment) -> Interval | None:
    return one.accuracy if len(one.runs) > 1 else None


def _calibration(one: Experiment) -> float | None:
    return one.mean(lambda run: run.metrics.get("test/calibration_error"))


def _word(*keys: str) -> Callable[[Experiment], str | None]:
    """The words that the runs' records have under some keys, each once."""

    def read(one: Experiment) -> str | None:
        words = []
        for run in one.runs:
            part: Any = run.record
            for key in keys:
                part = part.get(key) if isinstance(part, dict) else None
            words += [str(part)] if part is not None else []
        return " / ".join(dict.fromkeys(words)) or None

    return read


COLUMNS = (
    Column("experiment", "experiment", lambda one: one.name, str, True),
    Column("runs", "runs", lambda one: len(one.runs), str, True),
    Column("test_pictures", "test pictures", lambda one: len(one.runs[0].paths), _count, True),
    Column("accuracy", "test accuracy", lambda one: one.accuracy.value, _percent, True),
    Column("accuracy_low", "95 % from", lambda one: one.accuracy.low, _percent),
    Column("accuracy_high", "95 % to", lambda one: one.accuracy.high, _percent),
    Column("interval_over", "95 % interval over", lambda one: one.noise, str),
    Column("pictures_low", "over pictures from", lambda one: one.interval_of_pictures.low, _percent),
    Column("pictures_high", "over pictures to", lambda one: one.interval_of_pictures.high, _percent),
    Column("deviation", "SD of seeds", lambda one: one.deviation, _percent, True),
    Column("forecast_deviation", "SD forecast", lambda one: one.forecast_deviation, _percent),
    Column("balanced_accuracy", "balanced", lambda one: one.mean(lambda run: run.balanced_accuracy), _percent),
    Column("calibration_error", "calibration error", _calibration, _percent),
    Column("parameters", "parameters", lambda one: one.recorded("net", "parameters"), _count, True),
    Column("forward_gflop", "GFLOP a picture", lambda one: one.recorded("net", "forward_gflop"), _three),
    Column("epochs", "epochs", lambda one: one.recorded("epochs"), _three),
    Column("best_epoch", "best epoch", lambda one: one.mean(lambda run: run.best_epoch), _three),
    Column("train_seconds", "training", lambda one: one.recorded("train_seconds"), _seconds, True),
    Column("images_per_second", "pictures/s", lambda one: one.recorded("images_per_second"), _three, True),
    Column("memory_gb", "peak GB", lambda one: one.recorded("memory_gb"), _three),
    Column("hardware", "hardware", _word("environment", "processor"), str),
    Column("precision", "precision", _word("environment", "precision"), str),
    Column("version", "version", _word("environment", "pet_cifar"), str),
)
"""The columns of CSV and JSON."""
_INTERVALS = (
    Column("over_seeds", "95 % over seeds", _over_seeds, _range, True),
    Column("over_pictures", "95 % over pictures", lambda one: one.interval_of_pictures, _range, True),
)
_EDGES = ("accuracy_low", "accuracy_high", "interval_over", "pictures_low", "pictures_high")
_place = [column.name for column in COLUMNS].index(_EDGES[0])
SHOWN_COLUMNS = (
    *COLUMNS[:_place],
    *_INTERVALS,
    *(column for column in COLUMNS[_place:] if column.name not in _EDGES),
)
"""The columns that people see, where each kind of interval is one column."""


def cells(one: Experiment, columns: Sequence[Column]) -> list[str]:
    """The values of an experiment as people see them; a dash stands for what is not known."""
    return ["-" if (value := column.value(one)) is None else column.show(value) for column in columns]


def terminal_table(found: Comparison) -> list[str]:
    """The lines of the table that fits a terminal; what no experiment has is left out."""
    short = [column for column in SHOWN_COLUMNS if column.is_short]
    columns = [column for column in short if any(column.value(one) is not None for one in found.experiments)]
    rows = [[column.head for column in columns], *(cells(one, columns) for one in found.experiments)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def as_markdown(found: Comparison) -> str:
    """The table, the verdicts and what could mislead."""
    heads = [column.head for column in SHOWN_COLUMNS]
    rows = [heads, ["---"] * len(heads), *(cells(one, SHOWN_COLUMNS) for one in found.experiments)]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    lines += ["", *(f"- {line}." for line in found.verdict_lines())]
    if found.findings:
        lines += ["", "What could mislead:", "", *(f"- {finding.text}." for finding in found.findings)]
    return "\n".join(lines) + "\n"


def as_csv(found: Comparison) -> str:
    """The table with plain numbers."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(column.name for column in COLUMNS)
    for one in found.experiments:
        values = [column.value(one) for column in COLUMNS]
        writer.writerow("" if one is None else as_cell(one) if isinstance(one, str) else one for one in values)
    return text.getvalue()


def as_json(found: Comparison) -> str:
    """All figures of the comparison."""
    content = {
        "experiments": [
            {
                **{column.name: _finite(column.value(one)) for column in COLUMNS},
                "seeds": [run.seed for run in one.runs],
                "accuracies": [run.accuracy for run in one.runs],
                "run_directories": [run.name for run in one.runs],
            }
            for one in found.experiments
        ],
        "verdicts": [
            {
                "first": verdict.first,
                "second": verdict.second,
                "is_better": verdict.is_better,
                "p": verdict.p,
                "words": verdict.words,
                "difference": None
                if verdict.difference is None
                else {key: _finite(value) for key, value in asdict(verdict.difference).items() if key != "noise"},
            }
            for verdict in found.verdicts
        ],
        "findings": [asdict(finding) for finding in found.findings],
        "differing_options": found.differing_options(),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
