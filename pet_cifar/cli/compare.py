"""``pet-cifar compare``: which of some runs is better, as far as test pictures and seeds can tell."""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pet_cifar.cli.plain_parser import PlainParser
from pet_cifar.errors import InputError, disk_errors
from pet_cifar.names import printable
from pet_cifar.runs.directory import check_run_folder

if TYPE_CHECKING:
    from pet_cifar.runs.comparison import Comparison
    from pet_cifar.runs.tested_run import TestedRun

WIDE = 0.1
"""The width of an interval over two seeds from which on a third seed is advised."""


def _parser() -> PlainParser:
    parser = PlainParser(
        prog="pet-cifar compare",
        description="Compare runs that were tested: each experiment's accuracy with its interval, a verdict for each "
        "pair, and what could mislead. Runs that differ by their seeds alone count together.",
        hints={"--run": "compare takes the directories without an option: pet-cifar compare RUN_DIR [RUN_DIR ...]"},
        epilog="A single run gets its report card. The exit status is 2 where a run cannot be read.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN_DIR",
        help="Run directories, or directories of experiments, of which every tested run counts.",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="A report for a browser, such as report.html; the same as .md, .csv and .json goes beside it.",
    )  # fmt: skip
    parser.add_argument("--data.root", dest="root", metavar="DIR", help="Where the runs' pictures are now.")
    return parser


def run_compare(words: Sequence[str]) -> int:
    """Compares runs, prints what was found, and writes a report where one is asked for.

    Returns:
        The exit status, 0.

    Raises:
        InputError: An option is wrong, or a run cannot be read.
    """
    options = _parser().parse_args(words)
    if options.output is not None:
        _check_output(options.output)
    for path in options.runs:
        check_run_folder(path)
    # These imports take seconds, and --help and a run that is not there are answered without them.
    from pet_cifar.runs.comparison import compare
    from pet_cifar.runs.comparison_table import terminal_table

    runs, notes = _read(options.runs)
    found = compare(runs, logged_tests(runs, options.root))
    for line in (*terminal_table(found), "", *found.verdict_lines()):
        print(printable(line))
    for finding in found.findings:
        print(printable(f"{'beware' if finding.is_serious else 'note'}: {finding.text}"))
    for note in (*notes, *_notes_on(found, is_card=len(options.runs) == 1)):
        print(printable(f"note: {note}"))
    if options.output is not None:
        _write(found, options.output, options.root, shlex.join(["pet-cifar", "compare", *words]))
        print(f"report: {printable(str(options.output))}")
    return 0


def _check_output(output: Path) -> None:
    """Refuses a report that would replace what is none.

    Raises:
        InputError: It is no page, or a file beside it would be replaced that belongs to no earlier report.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {output}: give a name that ends in .html; .md, .csv and .json go beside it")
    for beside in (output.with_suffix(suffix) for suffix in (".md", ".csv", ".json")):
        if beside.exists() and not output.exists():
            raise InputError(f"--output {output}: {beside} would be replaced, which is of no report; give another name")


def _read(paths: Sequence[Path]) -> "tuple[list[TestedRun], list[str]]":
    """The tested runs of the paths, and what is to be said of paths that were given twice."""
    from pet_cifar.runs.tested_run import find_tested, read_run, why_untested

    tested: list[Path] = []
    untested: list[Path] = []
    for path in paths:
        own, rest = find_tested(path)
        tested, untested = [*tested, *own], [*untested, *rest]
    if not tested:
        raise InputError(why_untested(untested[0]))
    for run in dict.fromkeys(untested):
        print(printable(f"left out: {why_untested(run)}"), file=sys.stderr)
    given = Counter(run.resolve() for run in tested)
    shown = {run.resolve(): run for run in tested}
    notes = [f"{shown[run]} was given {count} times and counts once" for run, count in given.items() if count > 1]
    return [read_run(run) for run in given], notes


def _notes_on(found: "Comparison", *, is_card: bool) -> list[str]:
    """What the table does not say by itself: why there is no verdict, and why an interval is wide.

    Args:
        found: The comparison.
        is_card: Whether a single directory was asked for, so that nobody expects a verdict.
    """
    notes = []
    if len(found.experiments) == 1:
        (one,) = found.experiments
        if len(one.runs) > 1:
            seeds = ", ".join(run.seed or "unknown" for run in one.runs)
            notes.append(
                f"these {len(one.runs)} runs, of the seeds {seeds}, count together as one experiment, {one.name}; a "
                "verdict takes runs of another experiment beside them"
            )
        elif not is_card:
            notes.append(f"nothing is left to compare {one.runs[0].name} with; this is its report card")
    for one in found.experiments:
        if len(one.runs) == 2 and one.accuracy.high - one.accuracy.low > WIDE:
            notes.append(
                f"the interval of {one.name} over seeds is wide, since two seeds say little of how much seeds differ; "
                "a third seed narrows it"
            )
    return notes


def logged_tests(runs: "Sequence[TestedRun]", root: str | None) -> list[object]:
    """The tests that were made of the same pictures before, as far as the data's folders are where they were."""
    from pet_cifar.callbacks.experiment import flatten, read_config
    from pet_cifar.data.root import data_root
    from pet_cifar.data.test_log import read_tests

    places: dict[tuple[Path, str], None] = {}
    for run in runs:
        own = dict(flatten(read_config(run.directory))).get("data.init_args.root")
        places[data_root(root or (own if isinstance(own, str) else None)), run.pictures] = None
    return [test for place, pictures in places for test in read_tests(place, pictures)]


def _write(found: "Comparison", output: Path, root: str | None, command: str) -> None:
    from pet_cifar.cli.log_filters import each_once
    from pet_cifar.cli.run_option import data_of_run
    from pet_cifar.runs.comparison_table import as_csv, as_json, as_markdown
    from pet_cifar.runs.report.page import write

    with disk_errors(output, "; give another --output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        for suffix, text in ((".md", as_markdown(found)), (".csv", as_csv(found)), (".json", as_json(found))):
            output.with_suffix(suffix).write_text(text, encoding="utf-8", errors="backslashreplace")
    with each_once():
        missing = write(found, output, lambda checkpoint: data_of_run(checkpoint, root), command)
    for line in missing:
        print(f"not drawn: {printable(line)}", file=sys.stderr)
