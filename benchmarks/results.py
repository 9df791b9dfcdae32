"""Trains and tests configs with several seeds, and prints a table of their accuracies.

    python benchmarks/results.py --root data --seeds 3 configs/cifar10_residual.yaml configs/cats_dogs_cnn.yaml
    python benchmarks/results.py --root data --seeds 3      # every config

Further options for all runs come after ``--``, such as ``-- --trainer.precision bf16-mixed``.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from report import CONFIGS, Measured, Report, parsed, parser, positive, resident, run_or_explain


def run(config: Path, root: str, seed: int, options: list[str]) -> dict[str, float]:
    """Trains and tests once in a process of its own; the seconds include its start and its end."""
    start = time.perf_counter()
    fit = ["fit", "--config", str(config), "--data.root", root, "--seed_everything", str(seed), "--test", *options]
    subprocess.run([sys.executable, "-m", "pet_cifar", *fit], check=True)
    taken = time.perf_counter() - start
    runs = Path("lightning_logs", config.stem).glob("version_*")
    newest = max(runs, key=lambda path: int(path.name.removeprefix("version_")))
    metrics = json.loads((newest / "test" / "metrics.json").read_text())
    return {"accuracy": 100 * metrics["test/acc"], "seconds": taken}


def main() -> None:
    """Runs every config with every seed and prints a row for each config as soon as it is done."""
    options = parser(__doc__)
    options.add_argument("configs", nargs="*", type=Path, default=CONFIGS)
    options.add_argument("--seeds", type=positive, default=3)
    arguments, rest = parsed(options)
    note = f"{arguments.seeds} seeds: mean accuracy ± standard deviation, median seconds (lowest to highest)"
    report = Report(["config", "test accuracy", "seconds, fit and test"], arguments, note)
    failed: list[str] = []
    for config in arguments.configs:
        try:
            runs = [run(config, str(arguments.root), seed, rest) for seed in range(arguments.seeds)]
        except subprocess.CalledProcessError:  # It has printed its own error; the results of the others are kept.
            report.row(f"`{config.stem}`", ["failed", ""], {"failed": True})
            failed.append(config.stem)
            continue
        accuracy = Measured([one["accuracy"] for one in runs])
        seconds = Measured([one["seconds"] for one in runs])
        spread = f" ± {statistics.stdev(accuracy.values):.2f}" if len(runs) > 1 else ""
        cells = [f"{statistics.mean(accuracy.values):.2f}{spread} %", seconds]
        report.row(f"`{config.stem}`", cells, {"accuracy": accuracy, "seconds": seconds, "runs": runs})
    memory = resident(resource.getrusage(resource.RUSAGE_CHILDREN))
    print(f"peak resident memory of any process: {memory:.2f} GB")
    report.keep("peak_memory", {"gigabytes": memory})
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    run_or_explain(main)
