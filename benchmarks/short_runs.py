"""Trains ten short experiments with several seeds each, for the benchmarks that need real runs which differ by seed.

    python benchmarks/short_runs.py --root data --logs runs

The runs go to ``runs/lightning_logs/<experiment>/version_N``; those that are there already are not made again. Each
is trained and tested as a user would do it, in a process of its own that has imported everything. Six experiments
train on handwritten digits, two on CIFAR-10 and two on cats and dogs, each for seconds.
"""

import os
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path

from report import CONFIGS, positive

from pet_cifar.cli import main as commands
from pet_cifar.cli import trainer as _trainer  # noqa: F401  Every child process has it imported.

QUIET = (
    *("--trainer.enable_progress_bar", "false", "--trainer.callbacks", "Board"),
    *("--trainer.callbacks.max_megabytes", "0"),
)
DIGITS = ("--config", "digits_residual", "--data.test_fraction", "0.4", "--trainer.max_epochs")
CIFAR10 = ("--config", "cifar10_cpu", "--trainer.max_epochs", "1")
CATS_DOGS = (
    *("--config", "cats_dogs_cnn", "--model.image_size", "32", "--data.image_size", "32"),
    *("--data.images_per_class", "2000", "--data.test_fraction", "0.5", "--trainer.max_epochs"),
)
EXPERIMENTS: Mapping[str, Sequence[str]] = {
    "digits": (*DIGITS, "12"),
    "digits_short": (*DIGITS, "8"),
    "digits_narrow": (*DIGITS, "12", "--model.widths", "[8, 16]"),
    "digits_wide": (*DIGITS, "8", "--model.widths", "[32, 64]"),
    "digits_low_rate": (*DIGITS, "12", "--model.lr", "0.002"),
    "digits_still": (*DIGITS, "8", "--data.augment.translate", "0"),
    "cifar10": CIFAR10,
    "cifar10_narrow": (*CIFAR10, "--model.widths", "[16, 32, 32]"),
    "cats_dogs": (*CATS_DOGS, "8"),
    "cats_dogs_longer": (*CATS_DOGS, "16"),
}


def words_of(experiment: str, root: Path) -> list[str]:
    """The options of an experiment."""
    words = [*EXPERIMENTS[experiment], *QUIET]
    config = CONFIGS[0].parent / f"{words[1]}.yaml"
    words[1] = str(config)
    return [*words, "--data.root", str(root)] if "digits" not in config.stem else words


def run_in_child(*commands_to_run: Sequence[str], log: Path) -> bool:
    """Runs commands one after another in a child process, whose output goes to a file.

    Returns:
        Whether all succeeded.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                for words in commands_to_run:
                    commands.main(words)
                status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def train(experiment: str, seed: int, logs: Path, words: Sequence[str]) -> None:
    """Trains and tests one run, unless it is there."""
    folder = logs / "lightning_logs" / experiment
    run = folder / f"version_{seed}"
    if (run / "test" / "predictions.csv").is_file():
        return
    start = time.perf_counter()
    config = folder / f"{experiment}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    # The name of the config is that of the runs.
    config.write_text(Path(words[1]).read_text())
    fit = ["fit", "--config", str(config), *words[2:], "--seed_everything", str(seed)]
    done = run_in_child(
        [*fit, "--trainer.default_root_dir", str(logs)],
        ["test", "--run", str(run), "--trainer.enable_progress_bar", "false"],
        log=folder / "output.txt",
    )
    print(f"{experiment} seed {seed}: {time.perf_counter() - start:.0f} s{'' if done else ', FAILED'}", flush=True)
    if not done:
        raise SystemExit(f"see {folder / 'output.txt'}")


def main() -> None:
    """Trains all experiments, the first seed of each first."""
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--root", type=Path, default=Path("data"), help="where CIFAR-10 and the cats and dogs are")
    options.add_argument("--logs", type=Path, default=Path(), help="where lightning_logs is made")
    options.add_argument("--seeds", type=positive, default=8)
    options.add_argument("--experiments", nargs="+", default=list(EXPERIMENTS), choices=list(EXPERIMENTS))
    arguments = options.parse_args()
    for seed in range(arguments.seeds):
        for experiment in arguments.experiments:
            train(experiment, seed, arguments.logs, words_of(experiment, arguments.root))


if __name__ == "__main__":
    main()
