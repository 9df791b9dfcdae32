"""Run directories as a training and a test leave them, made of chosen answers in no time."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pet_cifar.callbacks.experiment import key_of, options_of
from pet_cifar.data.test_log import LoggedTest

CLASSES = ("cat", "dog")


def labels(count: int = 400, num_classes: int = 2) -> NDArray[np.int64]:
    return np.arange(count) % num_classes


def answers(accuracy: float, seed: int, count: int = 400, num_classes: int = 2) -> NDArray[np.float64]:
    """Probabilities of a net that has about ``accuracy`` of the pictures right; the hard ones are the same for all."""
    generator = np.random.default_rng(seed)
    hardness = np.random.default_rng(77).uniform(size=count)
    right = hardness + 0.1 * generator.normal(size=count) < accuracy
    truth = labels(count, num_classes)
    given = np.where(right, truth, (truth + 1) % num_classes)
    sure = np.clip(0.6 + 0.3 * generator.uniform(size=(count, 1)), 0, 1)
    others = (1 - sure) / (num_classes - 1)
    return np.asarray(np.where(np.eye(num_classes)[given] > 0, sure, others))


def make_run(
    directory: Path,
    probabilities: NDArray[np.float64],
    seed: int = 0,
    *,
    options: Mapping[str, Any] | None = None,
    names: Sequence[str] = CLASSES,
    test: str = "test-pictures",
    train: str = "train-pictures",
    val: str = "val-pictures",
    epochs: int = 10,
    planned: int | None = None,
    state: str = "finished",
    seconds: float = 60.0,
    leaking: int | None = 0,
    prefix: str = "",
    reverse: bool = False,
    budget: float | None = None,
) -> Path:
    """Writes a run directory of a net with these probabilities, shape (n, num_classes)."""
    config = {
        "seed_everything": seed,
        "model": {"class_path": "pet_cifar.models.CatsDogsCNN", "init_args": {"lr": 0.001, **(options or {})}},
        "data": {"class_path": "pet_cifar.data.CatsDogsDataModule", "init_args": {"root": str(directory.parents[1])}},
        "trainer": {"max_epochs": planned or epochs},
        **({"budget": budget} if budget else {}),
    }
    (directory / "test").mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    truth, predicted = labels(*probabilities.shape), probabilities.argmax(1)
    rows = list(range(len(truth)))[:: -1 if reverse else 1]
    with (directory / "test" / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "prediction", *(f"p_{name}" for name in names)])
        for row in rows:
            own = [f"{value:.6f}" for value in probabilities[row]]
            writer.writerow([f"{prefix}{row}.jpg", names[truth[row]], names[predicted[row]], *own])
    record = {
        "format": 1,
        "state": state,
        "epochs": epochs,
        "planned_epochs": planned or epochs,
        "train_seconds": seconds,
        "images_per_second": 100.0,
        "memory_gb": 1.5,
        "environment": {"processor": "2 x a processor", "precision": "32-true", "pet_cifar": "0.1.0"},
        "net": {"class": "CatsDogsCNN", "parameters": 1000, "forward_gflop": 0.3},
        "data": {
            "class_names": list(names),
            "image_size": 200,
            "pictures": {"train": 3000, "val": 300, "test": len(truth)},
            "contents": {"train": train, "val": val, "test": test},
            "leaking": leaking,
        },
    }
    (directory / "run.json").write_text(json.dumps(record))
    scored = {"pictures": len(truth), "contents": test, "groups": None, "checkpoint": "best.ckpt"}
    (directory / "test" / "scored.json").write_text(json.dumps(scored))
    accuracy = float((truth == predicted).mean())
    metrics = {"pictures": len(truth), "test/acc": accuracy, "test/calibration_error": 0.02}
    (directory / "test" / "metrics.json").write_text(json.dumps(metrics))
    lines = [f"{epoch},{0.5 + 0.04 * epoch},{1 / (1 + epoch)}" for epoch in range(epochs)]
    (directory / "metrics.csv").write_text("\n".join(["epoch,val/acc,val/loss", *lines]) + "\n")
    return directory


def logged(run: Path, *, test: str = "test-pictures", checkpoint: str = "") -> LoggedTest:
    """The line that a test of the run leaves in the log."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    digest = checkpoint or hashlib.sha256(str(run).encode()).hexdigest()[:16]
    seed = str(config["seed_everything"])
    return LoggedTest("2026-01-01T00:00:00+00:00", test, key_of(options_of(config)), seed, digest,
                      f"{run.parent.name}/{run.name}")  # fmt: skip
