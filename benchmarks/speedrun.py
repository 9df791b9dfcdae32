"""Repeats a speedrun config with different seeds: accuracy, its spread and seconds, beside the reference program.

    python benchmarks/speedrun.py --root data --runs 20
    python benchmarks/speedrun.py --root data --runs 20 configs/cifar10_speedrun96.yaml --line 96
    python benchmarks/speedrun.py --root data --runs 20 --reference cifar10-airbench/legacy/airbench94_compiled.py
    python benchmarks/speedrun.py --root data --runs 2 --cpu        # a narrow net, to see that it works

All runs are in one process and use the ordinary Trainer, LightningModule and data module; each starts from new weights.
As in the reference, the seconds of a run are those of training and one test. The first run is cold and includes the
compilation. The reference program is not changed; it decides how often it runs, in a directory where it finds the very
same pictures.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from features import build
from lightning import Trainer, seed_everything
from report import Measured, Report, parser, positive, run_or_explain

from pet_cifar.data import CIFAR10DataModule, ImageDataModule
from pet_cifar.data.manifest import Split
from pet_cifar.hardware import keep_freed_memory
from pet_cifar.training import ImageClassifier

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_speedrun94.yaml"


def now() -> float:
    """Reads the clock once the device has done all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def one_run(
    net: ImageClassifier, data: ImageDataModule, fresh: dict[str, torch.Tensor], seed: int, trainer: dict[str, Any]
) -> dict[str, float]:
    """Trains from fresh weights, and tests with all views and with one."""
    seed_everything(seed, verbose=False)
    net.load_state_dict(fresh)
    views = net.test_views
    start = now()
    runner = Trainer(
        **trainer,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    runner.fit(net, data)
    trained = now()
    (with_views,) = runner.test(net, data, verbose=False)
    tested = now()
    net.test_views = "one"
    again = now()
    (without,) = runner.test(net, data, verbose=False)
    ended = now()
    net.test_views = views
    return {
        "seconds": tested - start,
        "fit_seconds": trained - start,
        "accuracy": 100 * with_views["test/acc"],
        "seconds_one_view": trained - start + ended - again,
        "accuracy_one_view": 100 * without["test/acc"],
    }


def hand_over(data: CIFAR10DataModule, folder: Path) -> None:
    """Writes our pictures as the reference keeps them: ``folder/train.pt`` and ``folder/test.pt``."""
    data.prepare_data()
    data.setup("fit")
    folder.mkdir(parents=True)
    files: tuple[tuple[str, tuple[Split, ...]], ...] = (("train", ("train", "val")), ("test", ("test",)))
    for name, splits in files:
        pixels = torch.cat([data.pixels(split).take(np.arange(len(data.splits[split]))).cpu() for split in splits])
        labels = torch.cat([torch.from_numpy(data.labels(split)) for split in splits])
        # The reference whitens with the first 5,000 training pictures, which in the order of the folders are one class.
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
        images = pixels[order].permute(0, 2, 3, 1).contiguous()
        content = {"images": images, "labels": labels[order], "classes": list(data.class_names)}
        torch.save(content, folder / f"{name}.pt")


def reference(program: Path, data: CIFAR10DataModule) -> list[dict[str, float]]:
    """Runs the reference on our pictures; returns accuracy and seconds of each run, of which the first is cold."""
    with tempfile.TemporaryDirectory(prefix="pet_cifar_reference_") as temporary:
        hand_over(data, Path(temporary) / "cifar10")
        command = [sys.executable, "-u", str(program.resolve())]
        runs = []
        with subprocess.Popen(command, cwd=temporary, stdout=subprocess.PIPE, text=True) as done:
            assert done.stdout is not None
            for line in done.stdout:
                if not re.search(r"\|\s*eval\s*\|", line):
                    continue
                # The last two columns are the accuracy with all views and the seconds.
                *_, accuracy, seconds = (cell.strip() for cell in line.strip().strip("|").split("|"))
                runs.append({"accuracy": 100 * float(accuracy), "seconds": float(seconds)})
                print(f"{program.stem}, run {len(runs) - 1}: {runs[-1]}", file=sys.stderr, flush=True)
    if done.returncode:
        raise SystemExit(f"error: {program} ended with status {done.returncode}")
    if len(runs) < 2:
        raise SystemExit(f"error: {program} told of {len(runs)} runs; it takes a cold one and one more")
    return runs


def cells(accuracies: Sequence[float], seconds: Sequence[float], line: float, cold: float) -> list[object]:
    """Summarizes some runs for the table."""
    return [
        f"{statistics.mean(accuracies):.2f}",
        f"{statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else "",
        f"{100 * statistics.mean(one > line for one in accuracies):.0f} %",
        Measured(seconds),
        f"{cold:.1f}",
    ]


def main() -> None:
    """Prints a row for ours and one for the reference."""
    options = parser(__doc__)
    options.add_argument("config", nargs="?", type=Path, default=CONFIG)
    options.add_argument("--runs", type=positive, default=20, help="warm runs, which come after a cold one")
    options.add_argument("--line", type=float, default=94.0, help="the share of runs above this accuracy is counted")
    options.add_argument("--reference", type=Path, help="the reference program's file")
    options.add_argument("--cpu", action="store_true", help="widths 16, 16, 16, one epoch, not compiled")
    arguments = options.parse_args()
    keep_freed_memory()
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    config = yaml.safe_load(arguments.config.read_text())
    trainer = dict(config["trainer"])
    if arguments.cpu:
        config["model"]["init_args"] |= {"widths": [16, 16, 16], "compile": False}
        trainer |= {"max_epochs": 1, "precision": "32-true"}

    def made(seed: int) -> tuple[ImageClassifier, ImageDataModule]:
        seed_everything(seed, verbose=False)
        return build(config, arguments.root, None)

    net, data = made(0)
    runs = []
    for seed in range(arguments.runs + 1):
        fresh = {name: value.clone() for name, value in made(seed)[0].state_dict().items()}
        runs.append(one_run(net, data, fresh, seed, trainer))
        print(f"run {seed}: {runs[-1]}", file=sys.stderr, flush=True)
    cold, *warm = runs
    columns = ["program", "accuracy, %", "standard deviation", f"share above {arguments.line:g} %"]
    report = Report([*columns, "warm seconds", "cold seconds"], arguments, f"{len(warm)} warm runs")
    for name, suffix in ((f"`{arguments.config.stem}`", ""), ("with one view", "_one_view")):
        accuracies, seconds = ([run[f"{what}{suffix}"] for run in runs] for what in ("accuracy", "seconds"))
        report.row(name, cells(accuracies, seconds[1:], arguments.line, cold[f"seconds{suffix}"]), {"runs": runs})
    if arguments.reference:
        theirs = reference(arguments.reference, CIFAR10DataModule(arguments.root))
        accuracies, seconds = ([run[what] for run in theirs] for what in ("accuracy", "seconds"))
        # The accuracy of its cold run says nothing, because that may be on random labels.
        report.row(
            arguments.reference.stem,
            cells(accuracies[1:], seconds[1:], arguments.line, seconds[0]),
            {"runs": theirs},
        )


if __name__ == "__main__":
    run_or_explain(main)
