"""Measures what bf16-mixed costs in accuracy and saves in time, on short configs with several seeds each.

    python benchmarks/precision.py --root data --logs runs --seeds 5
    python benchmarks/precision.py --logs runs --configs digits_residual --seeds 2

Each config is trained and tested in float32 and in bf16-mixed with the same seeds, one run after the other in turn. The
difference is that of the mean accuracies on the same test pictures, with its 95 % interval over pictures and seeds. A
config suffers where the whole interval is below zero; it then stays in float32. The runs go to
``runs/lightning_logs/<config>_<precision>/version_N``; those that are there already are not made again.
"""

from pathlib import Path

from report import CONFIGS, Measured, Report, parser, positive, run_or_explain
from short_runs import QUIET, train

from pet_cifar.hardware import Precision
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.statistics import Difference, difference
from pet_cifar.runs.tested_run import read_run

# They are as the configs have them, but for the epochs and the larger test split, which tells more.
SHORT = {
    "digits_residual": ("--data.test_fraction", "0.4"),
    "cifar10_cpu": (),
    "cats_dogs_cnn": ("--trainer.max_epochs", "4"),
}
PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")


def name_of(config: str, precision: Precision) -> str:
    """The name of the runs' directory."""
    return f"{config}_{precision.partition('-')[0]}"


def runs_of(config: str, precision: Precision, seeds: int, logs: Path) -> Experiment:
    """The tested runs of a config in one precision."""
    folder = logs / "lightning_logs" / name_of(config, precision)
    return Experiment(folder.name, tuple(read_run(folder / f"version_{seed}") for seed in range(seeds)))


def make(config: str, seeds: int, root: Path, logs: Path) -> None:
    """Trains and tests the runs that are missing, the two precisions in turn."""
    (file,) = (path for path in CONFIGS if path.stem == config)
    where = () if config.startswith("digits") else ("--data.root", str(root.resolve()))
    for seed in range(seeds):
        for precision in PRECISIONS:
            words = ["--config", str(file), *SHORT[config], *where, *QUIET, "--trainer.precision", precision]
            train(name_of(config, precision), seed, logs, words)


def compare(full: Experiment, half: Experiment) -> Difference:
    """How much better the runs in bfloat16 are."""
    return difference(half.rights[:, half.runs[0].rows_in_order_of(full.runs[0])], full.rights)


def accuracy(runs: Experiment) -> str:
    """The mean accuracy in percent with its interval."""
    found = runs.accuracy
    return f"{100 * found.value:.2f} ({100 * found.low:.2f} to {100 * found.high:.2f})"


def verdict(found: Difference) -> str:
    """What the difference means for the config."""
    return "suffers: 32-true" if found.high < 0 else f"auto: at most {max(0.0, -100 * found.low):.2f} points less"


def main() -> None:
    """Makes the runs, and prints a row for each config as soon as its runs are there."""
    options = parser(__doc__)
    options.add_argument("--logs", type=Path, default=Path(), help="where lightning_logs is made")
    options.add_argument("--seeds", type=positive, default=5)
    options.add_argument("--configs", nargs="+", default=list(SHORT), choices=list(SHORT))
    arguments = options.parse_args()
    columns = ["config", "32-true, %", "bf16-mixed, %", "difference, points", "seconds of training", "so"]
    note = (
        f"{arguments.seeds} seeds, accuracies of the test with 95 % intervals, medians of seconds (lowest to highest)"
    )
    for config in arguments.configs:  # What is printed of the runs would cut the table into pieces.
        make(config, arguments.seeds, arguments.root, arguments.logs)
    report = Report(columns, arguments, note)
    for config in arguments.configs:
        full, half = (runs_of(config, one, arguments.seeds, arguments.logs) for one in PRECISIONS)
        found = compare(full, half)
        seconds = [Measured([float(run.record["train_seconds"]) for run in one.runs]) for one in (full, half)]
        report.row(
            f"`{config}` {' '.join(SHORT[config])}".strip(),
            [
                accuracy(full),
                accuracy(half),
                f"{100 * found.mean:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})",
                " -> ".join(map(str, seconds)),
                verdict(found),
            ],
            {
                "32-true": Measured([run.accuracy for run in full.runs]),
                "bf16-mixed": Measured([run.accuracy for run in half.runs]),
                "difference": {"mean": found.mean, "low": found.low, "high": found.high, "p": found.p},
                "seconds_32-true": seconds[0],
                "seconds_bf16-mixed": seconds[1],
            },
        )


if __name__ == "__main__":
    run_or_explain(main)
