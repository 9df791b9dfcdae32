"""Comparisons of runs that no net has made, of any number of experiments, seeds and classes."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

from pet_cifar.runs.comparison import Comparison, compare
from pet_cifar.runs.tested_run import read_run
from tests.runs.run_folders import answers, make_run


def two_runs(digits_run: Path, folder: Path, names: Sequence[str] = ("first", "second")) -> list[Path]:
    """Two copies of a run on digits, of two learning rates and with answers of their own.

    The first is wrong for every twelfth picture, and the second for every fourth; never are both. They are the surer
    the later a picture comes.
    """
    runs = [folder / name / "version_0" for name in names]
    for run, lr, every, first in zip(runs, ("0.005", "0.5"), (12, 4), (1, 0), strict=True):
        shutil.copytree(digits_run, run)
        config = run / "config.yaml"
        config.write_text(config.read_text().replace("lr: 0.005", f"lr: {lr}"))
        table = run / "test" / "predictions.csv"
        with table.open(newline="") as file:
            head, *rows = list(csv.reader(file))
        for number, row in enumerate(rows):
            given = (int(row[1]) + (number % every == first)) % 10
            sure = 0.6 + 0.3 * number / len(rows)
            row[2:] = [str(given), *(f"{sure if digit == given else (1 - sure) / 9:.6f}" for digit in range(10))]
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    return runs


def comparison(
    folder: Path,
    names: Sequence[str] = ("best", "good"),
    seeds: int = 2,
    classes: Sequence[str] = ("cat", "dog", "cow"),
    count: int = 300,
) -> Comparison:
    """Experiments of these names, each better than the next one; ``count`` is the number of test pictures."""
    return compare(
        [
            read_run(
                make_run(
                    folder / name / f"version_{seed}",
                    answers(0.95 - 0.35 * place / max(1, len(names) - 1), 100 * place + seed, count, len(classes)),
                    seed,
                    options={"lr": place},
                    names=classes,
                    epochs=4,
                    seconds=60.0 + place,
                )
            )
            for place, name in enumerate(names)
            for seed in range(seeds)
        ]
    )
