"""Trains and tests configs with several seeds and prints the README's table of results.

    python benchmarks/results.py --root data --seeds 3 configs/cifar10_residual.yaml configs/cats_dogs_cnn.yaml
    python benchmarks/results.py --root data --seeds 3 --output results.json      # every config

Further options for all runs come after ``--``, such as ``-- --trainer.precision bf16-mixed``.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from report import hardware

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def run(config: Path, root: str, seed: int, options: list[str]) -> dict[str, float]:
    """One training and test in processes of their own; seconds count from process start to the last file written."""
    name = f"lightning_logs/{config.stem}"
    program = [sys.executable, "-m", "pet_cifar"]
    start = time.perf_counter()
    fit = ["fit", "--config", str(config), "--data.root", root, "--seed_everything", str(seed), *options]
    subprocess.run([*program, *fit], check=True)
    trained = time.perf_counter()
    subprocess.run([*program, "test", "--run", name], check=True)
    newest = max(Path(name).glob("version_*"), key=lambda path: int(path.name.removeprefix("version_")))
    metrics = json.loads((newest / "test" / "metrics.json").read_text())
    return {
        "accuracy": 100 * metrics["test/acc"],
        "fit_seconds": trained - start,
        "test_seconds": time.perf_counter() - trained,
    }


def main() -> None:
    """Runs every config with every seed and prints a row for each config as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path, default=CONFIGS)
    parser.add_argument("--root", default="data", help="where the data is")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    print(f"hardware: {hardware()}; data: {arguments.root}; {arguments.seeds} seeds")
    print("| config | test accuracy | seconds, fit + test |\n| --- | --- | --- |")
    results = {}
    failed: list[str] = []
    for config in arguments.configs:
        try:
            figures = [run(config, arguments.root, seed, options) for seed in range(arguments.seeds)]
        except subprocess.CalledProcessError:  # whose own words stand above; what others reached is not lost
            print(f"| `{config.stem}` | failed | |", flush=True)
            failed.append(config.stem)
            continue
        results[config.stem] = figures
        accuracies = [figure["accuracy"] for figure in figures]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        seconds = statistics.median(figure["fit_seconds"] + figure["test_seconds"] for figure in figures)
        print(f"| `{config.stem}` | {statistics.mean(accuracies):.2f}{spread} % | {seconds:.0f} |", flush=True)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"peak resident memory of any process: {memory:.2f} GB")
    if arguments.output:
        arguments.output.write_text(json.dumps({"hardware": hardware(), "results": results}, indent=2) + "\n")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
