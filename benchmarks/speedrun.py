"""Seeded runs of a speedrun config: accuracy, its spread, and seconds, beside the reference program.

    python benchmarks/speedrun.py --root data --runs 20
    python benchmarks/speedrun.py --root data --runs 20 configs/cifar10_speedrun96.yaml --line 96
    python benchmarks/speedrun.py --root data --runs 20 --reference cifar10-airbench/legacy/airbench94_compiled.py
    python benchmarks/speedrun.py --root data --runs 2 --cpu        # a narrow net, to see that it works

All runs are in one process, through the ordinary Trainer, LightningModule and data module, each from new weights. As in
the reference, a run's seconds are training and one test; the first run is the cold one, compilation included. The
reference is run as it is, in a directory where it finds the very same pictures.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from features import build
from lightning import Trainer, seed_everything
from report import Measured, Report, parser, told

from pet_cifar.data import CIFAR10DataModule, ImageDataModule
from pet_cifar.memory import keep_freed_memory
from pet_cifar.models import ImageClassifier

CONFIG = Path(__file__).parents[1] / "configs" / "cifar10_speedrun94.yaml"


def now() -> float:
    """The clock, when the device has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def one_run(
    net: ImageClassifier, data: ImageDataModule, fresh: dict[str, torch.Tensor], seed: int, trainer: dict[str, Any]
) -> dict[str, float]:
    """Trains from fresh weights and tests, with and without views."""
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
    (without,) = runner.test(net, data, verbose=False)
    net.test_views = views
    return {
        "seconds": tested - start,
        "fit_seconds": trained - start,
        "accuracy": 100 * with_views["test/acc"],
        "accuracy_one_view": 100 * without["test/acc"],
    }


def reference(program: Path, data: CIFAR10DataModule) -> tuple[list[float], list[float]]:
    """Accuracies and seconds of the reference's runs, on our pictures."""
    data.prepare_data()
    data.setup("fit")
    with tempfile.TemporaryDirectory(prefix="pet_cifar_reference_") as temporary:
        folder = Path(temporary) / "cifar10"
        folder.mkdir()
        for name, parts in (("train", ("train", "val")), ("test", ("test",))):
            pixels = [data.pixels(part).take(np.arange(len(data.parts[part]))).cpu() for part in parts]  # type: ignore[arg-type, index]
            labels = [torch.from_numpy(data.labels(part)) for part in parts]  # type: ignore[arg-type]
            images = torch.cat(pixels).permute(0, 2, 3, 1).contiguous()
            content = {"images": images, "labels": torch.cat(labels), "classes": list(data.class_names)}
            torch.save(content, folder / f"{name}.pt")
        done = subprocess.run(
            [sys.executable, str(program.resolve())], cwd=temporary, check=True, capture_output=True, text=True
        )
    finals = [line for line in done.stdout.splitlines() if re.search(r"\|\s*eval\s*\|", line)]
    # the first run is its warm-up; its last two columns are the accuracy with all views, and seconds
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in finals[1:]]
    return [100 * float(row[-2]) for row in cells], [float(row[-1]) for row in cells]


def main() -> None:
    """Prints a row for ours and one for the reference."""
    options = parser(__doc__)
    options.add_argument("config", nargs="?", type=Path, default=CONFIG)
    options.add_argument("--runs", type=int, default=20, help="warm ones, after the cold one")
    options.add_argument("--line", type=float, default=94.0, help="accuracy whose share of runs is counted, in percent")
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
    columns = ["program", "accuracy, %", "standard deviation", f"share above {arguments.line:g} %", "one view, %"]
    report = Report([*columns, "warm seconds", "cold seconds"], arguments, f"{len(warm)} warm runs")
    accuracies = [run["accuracy"] for run in runs]
    report.row(
        f"`{arguments.config.stem}`",
        [
            f"{statistics.mean(accuracies):.2f}",
            f"{statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else "",
            f"{100 * np.mean([one > arguments.line for one in accuracies]):.0f} %",
            f"{statistics.mean(run['accuracy_one_view'] for run in runs):.2f}",
            Measured([run["seconds"] for run in warm]),
            f"{cold['seconds']:.1f}",
        ],
        {"runs": runs},
    )
    if arguments.reference:
        assert isinstance(data, CIFAR10DataModule)
        theirs, seconds = reference(arguments.reference, CIFAR10DataModule(arguments.root))
        report.row(
            arguments.reference.stem,
            [
                f"{statistics.mean(theirs):.2f}",
                f"{statistics.stdev(theirs):.2f}",
                f"{100 * np.mean([one > arguments.line for one in theirs]):.0f} %",
                "",
                Measured(seconds),
                "",
            ],
            {"accuracies": theirs, "seconds": seconds},
        )


if __name__ == "__main__":
    told(main)
