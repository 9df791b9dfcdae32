"""Every shipped config is trained and tested through the command line, on a sample in its dataset's real layout."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import pet_cifar.data
from pet_cifar.cli.main import main
from pet_cifar.data import ImageDataModule
from tests.conftest import HOME

CONFIGS = sorted((HOME / "configs").glob("*.yaml"))


def data_class(config: dict[str, Any]) -> type[ImageDataModule]:
    found: type[ImageDataModule] = getattr(pet_cifar.data, config["data"]["class_path"].rpartition(".")[2])
    return found


def smaller(config: dict[str, Any], root: Path) -> dict[str, Any]:
    """Options that make a config's run last seconds, whatever its net and its data; the net keeps its widths."""
    net, data = config["model"].get("init_args", {}), config["data"].get("init_args", {})
    published = data_class(config)(root, **{name: data[name] for name in ("image_size", "batch_size") if name in data})
    batch_size = min(published.batch_size, 8)
    options: dict[str, Any] = {
        "data.batch_size": batch_size,
        "data.image_size": min(published.image_size, 32),
        # Every class needs a picture to validate.
        "data.val_fraction": 0.1,
        # Blocks that are unfrozen on the way get three epochs, too.
        "trainer.max_epochs": 3 + max(net.get("unfreeze", {}), default=0),
        "trainer.limit_train_batches": 8,
    }
    if "lr" in net:
        options["model.lr"] = net["lr"] * math.sqrt(batch_size / published.batch_size)
    if "weights" in net:
        # The head then learns from random features, in few steps.
        options |= {"model.weights": "none", "model.lr": 0.01, "model.dropout": 0}
    if net.get("compile"):
        # Compiling takes a minute; tests/training/test_compile.py does it.
        options["model.compile"] = "false"
    if "precision" in config.get("trainer", {}):
        # A processor that emulates bfloat16 takes ten times as long.
        options["trainer.precision"] = "32-true"
    return options


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_trains_tests_and_leaves_its_files(config: Path, tmp_path: Path) -> None:
    wanted = yaml.safe_load(config.read_text())
    root = tmp_path / "data"
    data_class(wanted).write_sample(root)
    options = {"data.root": root, **smaller(wanted, root)}

    fitted = main(["fit", "--config", str(config), *(f"--{name}={value}" for name, value in options.items())])

    assert fitted is not None
    run = Path(fitted.trainer.log_dir or "")
    assert run == Path("lightning_logs") / config.stem / "version_0"
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(losses) == options["trainer.max_epochs"]
    assert all(map(math.isfinite, losses))
    # A head that is solved learns nothing more.
    assert losses[-1] < losses[0] or wanted["model"]["init_args"].get("lr") == 0
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
