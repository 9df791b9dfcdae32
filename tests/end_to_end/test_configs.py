"""Every shipped config is trained and tested through the command line, on tiny data in the real formats."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from pet_cifar.cli.main import main
from tests.conftest import write_cats_dogs, write_cifar10_folders

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))

# small enough for seconds, each with what its net and data need
DATA = {
    "DigitsDataModule": [],
    "CatsDogsDataModule": [
        "--data.image_size",
        "40",
        "--data.batch_size",
        "8",
        "--data.images_per_class",
        "null",
    ],
    "CIFAR10DataModule": ["--data.batch_size", "16", "--data.val_fraction", "0.1"],
}
WEIGHTS = {"VGG16Classifier": ["--model.weights", "none"], "TimmClassifier": ["--model.weights", "none"]}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_trains_tests_and_leaves_its_files(config: Path, tmp_path: Path) -> None:
    wanted = yaml.safe_load(config.read_text())
    net, data = wanted["model"]["class_path"], wanted["data"]["class_path"]
    root = tmp_path / "data"
    if data == "CatsDogsDataModule":
        write_cats_dogs(root)
    elif data == "CIFAR10DataModule":
        write_cifar10_folders(root)
    small = [*DATA[data], *WEIGHTS.get(net, []), "--data.root", str(root), "--trainer.max_epochs", "3"]
    if data == "CIFAR10DataModule":
        # the learning rate shrinks with the batch
        lr = wanted["model"]["init_args"]["lr"] * 16 / wanted["data"]["init_args"]["batch_size"]
        small += ["--model.lr", str(lr)]
    if net == "VGG16Classifier":
        # untrained, its signal fades over thirteen layers unless the head is quick
        small += ["--model.lr", "0.001", "--model.dropout", "0", "--model.base_lr_factor", "1"]
    if wanted["model"]["init_args"].get("compile"):
        # takes a minute; tests/models/test_compiling.py compiles
        small += ["--model.compile", "false"]
    if "unfreeze" in wanted["model"]["init_args"]:
        # nor do its last layers alone learn anything
        small += ["--model.unfreeze", '{"1": "block1"}', "--model.lr", "0.0003"]

    fitted = main(["fit", "--config", str(config), *small])

    assert fitted is not None
    run = Path(fitted.trainer.log_dir or "")
    assert run == Path("lightning_logs") / config.stem / "version_0"
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    for name in ("best", "last"):
        checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["config"]
    assert list(run.glob("events.out.tfevents.*"))

    tested = main(["test", "--run", str(run)])

    assert tested is not None
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    with (run / "test" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() >= {
        "path",
        "label",
        "prediction",
        *(f"p_{name}" for name in tested.datamodule.class_names),
    }
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert metrics["pictures"] == len(rows)
    assert metrics["test/acc"] == pytest.approx(right / len(rows))
    with (run / "test" / "confusion_matrix.csv").open() as file:
        matrix = [list(map(int, row[1:])) for row in list(csv.reader(file))[1:]]
    assert sum(map(sum, matrix)) == len(rows)
    assert sum(matrix[i][i] for i in range(len(matrix))) == right
