"""Keeps finished results in ``results/``, and writes ``docs/results.md`` from them.

    python benchmarks/results_page.py --keep cifar10_residual runs/lightning_logs/cifar10_residual --copy "JPEG copy"
    python benchmarks/results_page.py          # writes the page anew

A result is an experiment with all of its seeds: the accuracy of each, their mean with its interval, the hardware, the
commit and the copy of the data. The page also lists what is still owed, and a verdict for each pair of results on the
same test pictures, which is made from the predictions when the results are kept.
"""

import base64
import hashlib
import itertools
import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from report import run_or_explain

from pet_cifar.cli.compare import logged_tests
from pet_cifar.errors import InputError
from pet_cifar.runs import statistics
from pet_cifar.runs.comparison import compare, verdict_on
from pet_cifar.runs.comparison_table import COLUMNS
from pet_cifar.runs.statistics import Rights
from pet_cifar.runs.tested_run import TestedRun, find_tested, read_run

HOME = Path(__file__).parents[1]
RESULTS = HOME / "results"
PAGE = HOME / "docs" / "results.md"
KEPT = (
    *("runs", "test_pictures", "accuracy", "accuracy_low", "accuracy_high", "interval_over", "deviation"),
    *("pictures_low", "pictures_high"),
    *("balanced_accuracy", "calibration_error", "parameters", "forward_gflop", "epochs", "train_seconds"),
    *("images_per_second", "memory_gb", "hardware", "precision", "version"),
)
"""The columns of a comparison that a result keeps."""


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
    arguments = options.parse_args()
    if arguments.keep:
        name, *paths = arguments.keep
        keep(name, [Path(path) for path in paths], arguments.copy)
    PAGE.write_text(page(read_results()), encoding="utf-8")
    print(f"written: {PAGE}")


def keep(name: str, paths: list[Path], copy: str) -> None:
    """Writes ``results/NAME.json``."""
    if name not in {row.name for row in ROWS}:
        raise InputError(f"--keep {name}: the page has no such row; it has {', '.join(row.name for row in ROWS)}")
    runs = [read_run(run) for path in paths for run in find_tested(path)[0]]
    found = compare(runs, logged_tests(runs, None))
    serious = [finding.text for finding in found.findings if finding.is_serious]
    if len(found.experiments) != 1 or serious:
        reason = serious[0] if serious else f"these are {len(found.experiments)} experiments"
        raise InputError(f"--keep {name}: {reason}; a result is one experiment of which nothing misleads")
    (one,) = found.experiments
    columns = {column.name: column.value(one) for column in COLUMNS}
    content = {
        "name": name,
        "copy": copy,
        "seeds": [run.seed for run in one.runs],
        "accuracies": [run.accuracy for run in one.runs],
        **{key: columns[key] for key in KEPT},
        "test_contents": one.runs[0].pictures,
        "test_names": hashlib.sha256("\n".join(sorted(one.runs[0].paths)).encode()).hexdigest()[:16],
        "tested": max(str(run.scored.get("time", "")) for run in one.runs),
        "forecast_deviation": one.forecast_deviation,
        "right": [_packed(run) for run in one.runs],
        "options": {key: str(value) for key, value in one.runs[0].options.items() if key.startswith(("model", "data"))},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _packed(run: TestedRun) -> str:
    """Which pictures are right, a bit for each in the order of their names, as base64."""
    order = sorted(range(len(run.paths)), key=lambda row: run.paths[row])
    return base64.b64encode(np.packbits(run.right[order]).tobytes()).decode()


def _rights(own: dict[str, Any]) -> Rights:
    bits = [np.frombuffer(base64.b64decode(text), np.uint8) for text in own["right"]]
    return np.stack([np.unpackbits(one)[: own["test_pictures"]].astype(bool) for one in bits])


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
        spread = max(first["forecast_deviation"], second["forecast_deviation"])
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
        f"- `{name}`: {', '.join(f'{100 * value:.2f}' for value in own['accuracies'])} % of "
        f"{own['test_pictures']:,} test pictures; {own['version']}"
        for name, own in results.items()
    ] or ["- none yet"]
    lines += ["", "The verdicts on pairs of the same test pictures:", ""]
    lines += [f"- {words}." for words in verdicts(results)] or ["- none yet"]
    return "\n".join(lines) + "\n"


def _line(row: Row, own: dict[str, Any] | None) -> str:
    goal = "" if row.goal is None else f"{100 * row.goal:g} %"
    if own is None:
        return f"| {row.what} | `{row.name}` | {row.seeds} | *owed* | | {goal} | | |"
    count = len(own["seeds"])
    seeds = f"{count}" if count >= row.seeds else f"{count}; *{row.seeds - count} owed*"
    interval = f"{100 * own['accuracy_low']:.2f} to {100 * own['accuracy_high']:.2f} %, over {own['interval_over']}"
    if count > 1:
        interval += f"; {100 * own['pictures_low']:.2f} to {100 * own['pictures_high']:.2f} %, over test pictures"
    if row.goal is not None:
        goal += ", reached" if own["accuracy"] >= row.goal else ", not reached"
    seconds = "" if own["train_seconds"] is None else f"{own['train_seconds']:,.0f} s"
    where = ", ".join(filter(None, (str(own["hardware"]).partition(",")[0], str(own["precision"]), own["copy"])))
    accuracy = f"{100 * own['accuracy']:.2f} %"
    return f"| {row.what} | `{row.name}` | {seeds} | {accuracy} | {interval} | {goal} | {seconds} | {where} |"


if __name__ == "__main__":
    run_or_explain(main)
