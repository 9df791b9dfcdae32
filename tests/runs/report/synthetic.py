"""Tested runs that no net has made, of any number of classes and seeds."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pet_cifar.runs.comparison import Comparison, compare
from pet_cifar.runs.tested_run import TestedRun


def tested_run(
    directory: Path,
    names: Sequence[str] = ("cat", "dog"),
    accuracy: float = 0.8,
    seed: int = 0,
    pictures: int = 60,
    widths: str = "[8]",
    record: bool = True,
) -> TestedRun:
    """A run that has about so many of its pictures right, with curves of four epochs."""
    generator = np.random.default_rng([seed, int(1000 * accuracy), len(directory.parent.name)])
    labels = np.arange(pictures) % len(names)
    is_right = generator.random(pictures) < accuracy
    other = (labels + generator.integers(1, len(names), pictures)) % len(names)
    predicted = np.where(is_right, labels, other)
    probabilities = generator.dirichlet(np.ones(len(names)), pictures) / 2
    probabilities[np.arange(pictures), predicted] += 0.5
    directory.mkdir(parents=True, exist_ok=True)
    lines = ["epoch,train/loss,train/acc,val/loss,val/acc"]
    lines += [f"{n},{1 / (n + 1)},{accuracy},{1.2 / (n + 1)},{accuracy - 0.1 / (n + 1)}" for n in range(4)]
    (directory / "metrics.csv").write_text("\n".join(lines) + "\n")
    known = {
        "state": "finished",
        "epochs": 4,
        "planned_epochs": 4,
        "command": "pet-cifar fit",
        "started": "2026-01-02T03:04:05+00:00",
        "train_seconds": 100 * accuracy,
        "net": {"parameters": int(1e6 * accuracy)},
    }
    return TestedRun(
        directory=directory,
        class_names=tuple(names),
        paths=tuple(f"{names[label]}/{number}.jpg" for number, label in enumerate(labels)),
        labels=labels.astype(np.int64),
        predicted=predicted.astype(np.int64),
        probabilities=probabilities,
        record=json.loads(json.dumps(known)) if record else {},
        scored={},
        metrics={"test/acc": float((predicted == labels).mean())},
        options={"model.widths": widths},
        seed=str(seed),
    )


def comparison(folder: Path, count: int = 2, seeds: int = 2, classes: int = 3, pictures: int = 60) -> Comparison:
    """A comparison of so many experiments, each a little better than the one before."""
    names = [f"class {number}" for number in range(classes)]
    return compare(
        [
            tested_run(
                folder / f"experiment_{number}" / f"version_{seed}",
                names,
                0.6 + 0.38 * number / max(1, count - 1),
                seed,
                pictures,
                widths=f"[{number}]",
            )
            for number in range(count)
            for seed in range(seeds)
        ]
    )
