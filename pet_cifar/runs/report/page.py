"""Writes the report of a comparison, and the report card of a single experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pet_cifar.errors import disk_errors
from pet_cifar.runs.comparison import Comparison
from pet_cifar.runs.comparison_table import SHOWN_COLUMNS, cells
from pet_cifar.runs.report import matrices
from pet_cifar.runs.report.charts import MOST_BARS, Styled, percent
from pet_cifar.runs.report.disagreements import MOST_PAIRS, Gallery, Group, OpenData
from pet_cifar.runs.report.sections import comparable, overview, sections_of
from pet_cifar.runs.report.svg import MOST_STYLES, Style
from pet_cifar.runs.report.template import render_template
from pet_cifar.runs.tested_run import TestedRun

MOST_LINES = 12
"""The number of verdicts, and of warnings, that stand open on the page; the others are unfolded."""
MOST_MISTAKES = 8
"""The number of pairs of classes that are listed as taken for each other."""
MOST_LETTERS = 80
"""The number of letters of an option's value that are shown."""


class VerdictLine(NamedTuple):
    """A verdict in words, and in a word."""

    tag: str
    words: str


class RunLine(NamedTuple):
    """One run in the list of runs."""

    name: str
    seed: str
    accuracy: str
    best_epoch: str
    started: str
    state: str
    command: str


def write(found: Comparison, output: Path, open_data: OpenData, command: str) -> list[str]:
    """Writes the page.

    Args:
        found: The comparison.
        output: The file.
        open_data: Opens the data of a run; see `OpenData`.
        command: The command that makes the page again.

    Returns:
        A line for each thing that the page lacks, because something is not there.

    Raises:
        InputError: The file cannot be written.
    """
    gallery = Gallery(found.experiments[:MOST_STYLES], open_data)
    groups = gallery.groups()
    html = render(found, groups, gallery.missing, output.stem, command)
    with disk_errors(output, "; give another --output"):
        output.write_text(html, encoding="utf-8", errors="backslashreplace")
    return gallery.missing


def render(found: Comparison, groups: Sequence[Group], missing: Sequence[str], stem: str, command: str) -> str:
    """The page.

    Args:
        found: The comparison.
        groups: The pictures on which the experiments disagree.
        missing: A line for each thing that could not be drawn.
        stem: The name of the page's file without its ending, by which the files beside it are named.
        command: The command that makes the page again.
    """
    shown = [Styled(one, Style(number)) for number, one in enumerate(found.experiments[:MOST_STYLES])]
    compared = comparable(shown)[:MOST_BARS]
    return render_template(
        "pet_cifar.runs.report",
        found=found,
        verdicts=_verdicts(found),
        title=_title(found),
        stem=stem,
        left_out=len(found.experiments) - len(shown),
        most_lines=MOST_LINES,
        tables=_tables(found),
        everyone=[(one.name, style) for one, style in shown],
        overview=overview(found, shown),
        sections=sections_of(shown),
        mistakes=matrices.mistakes([one for one, _ in compared], MOST_MISTAKES),
        compared=compared,
        styles={one.name: style for one, style in shown},
        groups=groups,
        gallery_legend=[(one.name, style) for one, style in shown if one.name in _named(groups)],
        missing=missing,
        pairs=MOST_PAIRS,
        options=_options(found),
        runs=[_line(run) for one in found.experiments for run in one.runs],
        command=command,
    )


def _title(found: Comparison) -> str:
    if len(found.experiments) == 1:
        return f"Report card of {found.experiments[0].name}"
    return f"Comparison of {len(found.experiments)} experiments"


def _verdicts(found: Comparison) -> list[VerdictLine]:
    pairs = [one for one in found.verdicts if not one.reason]
    lines = [VerdictLine("better" if one.is_better else "undecided", one.words) for one in pairs]
    return lines + [VerdictLine("not comparable", words) for words in found.verdict_lines()[len(pairs) :]]


def _tables(found: Comparison) -> list[tuple[str, list[str], list[list[str]]]]:
    """The table in two, which paper is wide enough for: a title, the heads and the rows of each."""
    costs = next(place for place, column in enumerate(SHOWN_COLUMNS) if column.name == "parameters")
    halves = (("How good", SHOWN_COLUMNS[:costs]), ("At what cost", (SHOWN_COLUMNS[0], *SHOWN_COLUMNS[costs:])))
    return [
        (title, [column.head for column in columns], [cells(one, columns) for one in found.experiments])
        for title, columns in halves
    ]


def _options(found: Comparison) -> list[tuple[str, list[str]]]:
    return [
        (key, [value if len(value) <= MOST_LETTERS else f"{value[:MOST_LETTERS]}…" for value in values])
        for key, values in found.differing_options().items()
    ]


def _line(run: TestedRun) -> RunLine:
    def said(key: str) -> str:
        value: Any = run.record.get(key)
        return "-" if value is None else str(value)

    epoch = run.best_epoch
    return RunLine(
        run.name,
        run.seed or "-",
        percent(run.accuracy),
        "-" if epoch is None else str(epoch),
        said("started").replace("T", " ").replace("+00:00", " UTC"),
        said("state"),
        said("command"),
    )


def _named(groups: Sequence[Group]) -> set[str]:
    """The experiments whose answers are shown."""
    return {answer.experiment for group in groups for picture in group.pictures for answer in picture.answers}
