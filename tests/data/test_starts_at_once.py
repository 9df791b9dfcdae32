"""Runs that start at once on one folder of pictures share its list and its cache, and none fails."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pet_cifar.cli.main import main
from pet_cifar.data import manifest
from pet_cifar.data.pixels import cache
from tests.cli.kills import Apart, begin

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

LOGS = Path("lightning_logs/ResidualCNN")


def start(root: Path, seed: int, number: int) -> Apart:
    """Starts a run in a fork of this process.

    What it checks and decodes is noted in a file that all runs share.
    """

    def work() -> None:
        noted = os.open("noted.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        check_file, write = manifest.check_file, cache._write

        def noting_check(folder: Path, path: str, label: str, split: str) -> manifest.ImageRecord:
            os.write(noted, f"checked {path}\n".encode())
            return check_file(folder, path, label, split)

        def noting_write(read: cache.Read, count: int, shape: cache.Shape, file: Path, *more: Any) -> None:
            os.write(noted, f"decoded {file.name}\n".encode())
            write(read, count, shape, file, *more)

        vars(manifest)["check_file"], vars(cache)["_write"] = noting_check, noting_write
        words = [
            *("fit", "--data", "CatsDogsDataModule", "--data.root", str(root), "--data.image_size", "16"),
            *("--data.cache", "disk", "--model", "ResidualCNN", "--model.widths", "[4]", "--data.batch_size", "8"),
            *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--seed_everything", str(seed)),
        ]
        main(words)

    return begin(work, Path(f"output_{number}.txt"))


@pytest.mark.parametrize("runs", [3, pytest.param(10, marks=pytest.mark.torture)])
def test_every_run_starts_twice_at_once(runs: int, cats_dogs_root: Path) -> None:
    children = [start(cats_dogs_root, number // 2, number) for number in range(2 * runs)]
    ends, said = zip(*(child.wait() for child in children), strict=True)
    assert list(ends) == [0] * len(ends), "\n".join(said)
    noted = Counter(Path("noted.txt").read_text().splitlines())
    assert set(noted.values()) == {1}, noted.most_common(3)
    assert sum(line.startswith("checked") for line in noted) > 40
    assert sum(line.startswith("decoded") for line in noted) == 2, "the pictures of training and of validation"
    assert sorted(path.name for path in LOGS.iterdir()) == sorted(f"version_{number}" for number in range(2 * runs))
    own = [re.findall(r"run directory: (\S+)", text) for text in said]
    assert sorted(own) == sorted([str(path)] for path in LOGS.iterdir())
    for run in LOGS.iterdir():
        assert (run / "checkpoints/last.ckpt").is_file()
        assert (run / "metrics.csv").read_text().count("\n") == 3, "a header, and a row each of training and validation"
