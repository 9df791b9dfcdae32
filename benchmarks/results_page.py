"""Keeps finished results in ``results/``, and writes ``docs/results.md`` from them.

    python benchmarks/results_page.py --keep cifar10_residual runs/lightning_logs/cifar10_residual --copy "JPEG copy"
    python benchmarks/results_page.py          # writes the page anew

A result is an experiment with its seeds: the accuracy of each, their mean with its interval, the hardware, the commit
and the copy of the data. Further seeds may be kept later, because long experiments are made in pieces. The page also
lists what is still owed, and a verdict for each pair of results on the same test pictures, which is made from the
predictions when the results are kept.
"""

import base64
import hashlib
import itertools
import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from report import run_or_explain

from pet_cifar.cli.compare import logged_tests
from pet_cifar.errors import InputError
from pet_cifar.runs import statistics
from pet_cifar.runs.comparison import compare, verdict_on
from pet_cifar.runs.comparison_table import COLUMNS
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.statistics import Rights
from pet_cifar.runs.tested_run import TestedRun, find_tested, read_run

HOME = Path(__file__).parents[1]
RESULTS = HOME / "results"
PAGE = HOME / "docs" / "results.md"
RUN_COLUMNS = (
    *("accuracy", "pictures_low", "pictures_high", "balanced_accuracy", "calibration_error", "parameters"),
    *("forward_gflop", "epochs", "best_epoch", "train_seconds", "images_per_second", "memory_gb"),
    *("hardware", "precision", "version", "forecast_deviation"),
)
"""The columns of a comparison that a result keeps of each run."""
SAME = ("copy", "test_pictures", "test_contents", "test_names")
"""What is the same for all runs of a result, and its options."""


@dataclass(frozen=True)
class Row:
    """A row of the page.

    Attributes:
        name: The name of the result, which is that of its config where nothing else is said.
        what: What it is, for people.
        seeds: The number of seeds that is asked for.
        goal: The accuracy that is asked for; None where none is.
    """

    name: str
    what: str
    seeds: int
    goal: float | None = None


ROWS = (
    Row("digits_residual", "residual net on handwritten digits", 5),
    Row(
        "cats_dogs_linear",
        "closed-form head on EfficientNet-Lite0's features, 4,000 cats and dogs; no seed changes it",
        1,
    ),
    Row("cats_dogs_efficientnet", "trained head on the same features", 5),
    Row("cats_dogs_cnn", "small CNN, 4,000 cats and dogs", 5, 0.79),
    Row("cats_dogs_vgg16_frozen", "VGG16 frozen, 4,000 cats and dogs", 3),
    Row("cats_dogs_vgg16_staged", "VGG16 freed in stages, 4,000 cats and dogs", 3),
    Row("cifar10_cpu", "speedrun net for a processor, CIFAR-10", 3),
    Row("cifar10_plain", "plain net, CIFAR-10", 3, 0.825),
    Row("cifar10_inception", "inception net, CIFAR-10", 3),
    Row("cifar10_residual", "residual net, CIFAR-10", 3, 0.91),
)


def main() -> None:
    """Keeps a result where one is named, and writes the page."""
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--keep", nargs="+", metavar=("NAME", "RUN_DIR"), help="the result's name and its runs")
    options.add_argument("--copy", default="", help="which copy of the data it is, such as 'JPEG copy'")
    options.add_argument("--replace", action="store_true", help="forget the runs that were kept before")
    arguments = options.parse_args()
    if arguments.keep:
        name, *paths = arguments.keep
        keep(name, [Path(path) for path in paths], arguments.copy, replace=arguments.replace)
    PAGE.write_text(page(read_results()), encoding="utf-8")
    print(f"written: {PAGE}")


def keep(name: str, paths: list[Path], copy: str, *, replace: bool = False) -> None:
    """Writes ``results/NAME.json``, or adds the runs of further seeds to it.

    Args:
        name: The name of the result.
        paths: Run directories of one experiment.
        copy: Which copy of the data they were trained on.
        replace: Forgets the runs that were kept before. Otherwise only those of the same seeds are replaced.

    Raises:
        InputError: The page has no such result, something misleads, or the runs that are kept are another experiment.
    """
    if name not in {row.name for row in ROWS}:
        raise InputError(f"--keep {name}: the page has no such row; it has {', '.join(row.name for row in ROWS)}")
    runs = [read_run(run) for path in paths for run in find_tested(path)[0]]
    found = compare(runs, logged_tests(runs, None))
    serious = [finding.text for finding in found.findings if finding.is_serious]
    if len(found.experiments) != 1 or serious:
        reason = serious[0] if serious else f"these are {len(found.experiments)} experiments"
        raise InputError(f"--keep {name}: {reason}; a result is one experiment of which nothing misleads")
    (one,) = found.experiments
    first = one.runs[0]
    options = {key: str(value) for key, value in first.options.items() if key.startswith(("model", "data", "trainer"))}
    content: dict[str, Any] = {
        "name": name,
        "copy": copy,
        "test_pictures": len(first.paths),
        "test_contents": first.pictures,
        "test_names": hashlib.sha256("\n".join(sorted(first.paths)).encode()).hexdigest()[:16],
        "options": options,
        "runs": [_kept(run) for run in one.runs],
    }
    file = RESULTS / f"{name}.json"
    if file.exists() and not replace:
        before = json.loads(file.read_text(encoding="utf-8"))
        others = [key for key in SAME if before[key] != content[key]]
        # A newer version may have further options, whose defaults leave everything as it was.
        others += [key for key in options.keys() & before["options"].keys() if options[key] != before["options"][key]]
        if others:
            raise InputError(
                f"--keep {name}: {file} holds runs of another experiment, which differ in {', '.join(sorted(others))}; "
                "--replace forgets them"
            )
        own = {run["seed"] for run in content["runs"]}
        content["runs"] += [run for run in before["runs"] if run["seed"] not in own]
    content["runs"].sort(key=lambda run: (len(run["seed"]), run["seed"]))
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _kept(run: TestedRun) -> dict[str, Any]:
    alone = Experiment(run.name, (run,))
    values = {column.name: column.value(alone) for column in COLUMNS}
    return {
        "seed": run.seed,
        **{key: values[key] for key in RUN_COLUMNS},
        "tested": str(run.scored.get("time", "")),
        "right": _packed(run),
    }


def _packed(run: TestedRun) -> str:
    """Which pictures are right, a bit for each in the order of their names, as base64."""
    order = sorted(range(len(run.paths)), key=lambda row: run.paths[row])
    return base64.b64encode(np.packbits(run.right[order]).tobytes()).decode()


def _rights(own: dict[str, Any]) -> Rights:
    bits = [np.frombuffer(base64.b64decode(run["right"]), np.uint8) for run in own["runs"]]
    return np.stack([np.unpackbits(one)[: own["test_pictures"]].astype(bool) for one in bits])


def _spread(own: dict[str, Any]) -> float:
    """The standard deviation between seeds that is to be expected; see `Experiment.forecast_deviation`."""
    return float(median(run["forecast_deviation"] for run in own["runs"]))


def verdicts(results: dict[str, dict[str, Any]]) -> list[str]:
    """A verdict for each pair of results on the same test pictures, in words."""
    pairs = [
        pair
        for pair in itertools.combinations(results.values(), 2)
        if all(pair[0][key] == pair[1][key] for key in ("test_contents", "test_names"))
    ]
    found = [statistics.difference(_rights(first), _rights(second)) for first, second in pairs]
    corrected = statistics.holm([one.p_of_looks for one in found])
    words = []
    for (first, second), one, p in zip(pairs, found, corrected, strict=True):
        spread = max(_spread(first), _spread(second))
        words.append(verdict_on(first["name"], second["name"], one, p, spread, len(pairs)).words)
    return words


def read_results() -> dict[str, dict[str, Any]]:
    """The results that are kept, by name."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))}


def page(results: dict[str, dict[str, Any]]) -> str:
    """The page that shows results and what is owed."""
    lines = [
        "# Results",
        "",
        "This page answers: how accurate is each experiment, with how many seeds, and on which hardware was it",
        "measured? `python benchmarks/results_page.py` writes it from the files in `results/`. A row that says *owed*",
        "is not measured yet with as many seeds as it asks for. One interval is over the seeds, and one over the test",
        "pictures: each counts one kind of noise. [compare.md](compare.md) says how intervals and verdicts are made.",
        "",
        "| experiment | config | seeds | test accuracy | 95 % interval | goal | training | hardware, data |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_line(row, results.get(row.name)) for row in ROWS]
    lines += ["", "The accuracies of the single seeds:", ""]
    lines += [
        f"- `{name}`: {', '.join(_percent(run['accuracy']) for run in own['runs'])} of {own['test_pictures']:,} test "
        f"pictures, with the seed{'s' * (len(own['runs']) > 1)} {', '.join(run['seed'] for run in own['runs'])}; "
        f"{_words(own, 'version')}"
        for name, own in results.items()
    ] or ["- none yet"]
    lines += ["", "The verdicts on pairs of the same test pictures:", ""]
    lines += [f"- {words}." for words in verdicts(results)] or ["- none yet"]
    return "\n".join(lines) + "\n"


def _line(row: Row, own: dict[str, Any] | None) -> str:
    goal = "" if row.goal is None else f"{100 * row.goal:g} %"
    if own is None:
        return f"| {row.what} | `{row.name}` | {row.seeds} | *owed* | | {goal} | | |"
    runs = own["runs"]
    count, accuracy = len(runs), fmean(run["accuracy"] for run in runs)
    seeds = f"{count}" if count >= row.seeds else f"{count}; *{row.seeds - count} owed*"
    # The intervals over pictures are moved to the mean of the seeds, because they are as wide as for one run.
    low, high = (
        accuracy + fmean(run[key] - run["accuracy"] for run in runs) for key in ("pictures_low", "pictures_high")
    )
    intervals = [f"{_percent(low)} to {_percent(min(high, 1.0))}, over test pictures"]
    if count > 1:
        over_seeds = statistics.mean_of_seeds([run["accuracy"] for run in runs])
        intervals.insert(0, f"{_percent(over_seeds.low)} to {_percent(over_seeds.high)}, over seeds")
    if row.goal is not None:
        goal += ", reached" if accuracy >= row.goal else ", not reached"
    taken = [run["train_seconds"] for run in runs if run["train_seconds"] is not None]
    seconds = f"{fmean(taken):,.0f} s" if taken else ""
    processors = dict.fromkeys(str(run["hardware"]).partition(",")[0] for run in runs)
    where = ", ".join(filter(None, (" / ".join(processors), _words(own, "precision"), own["copy"])))
    shown = f"{_percent(accuracy)} | {'; '.join(intervals)}"
    return f"| {row.what} | `{row.name}` | {seeds} | {shown} | {goal} | {seconds} | {where} |"


def _words(own: dict[str, Any], key: str) -> str:
    """The words that the runs have under a key, each once."""
    return " / ".join(dict.fromkeys(str(run[key]) for run in own["runs"] if run[key] is not None))


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


if __name__ == "__main__":
    run_or_explain(main)
