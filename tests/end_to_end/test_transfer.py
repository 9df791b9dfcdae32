"""Frozen bases through the command line."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pet_cifar.cli.main import main

# There are no batch norms, since what they average differs between one process and two.
STAGED = [
    *("--model", "TimmClassifier", "--model.name", "test_convnext", "--model.dropout", "0"),
    *("--model.freeze_until", "all", "--model.unfreeze", '{"1": "stages.0"}', "--model.cache_features", "true"),
    *("--model.optimizer", "sgd", "--model.lr", "0.05", "--model.base_lr_factor", "0.5"),
    *("--data", "DigitsDataModule", "--data.image_size", "32", "--data.root", "."),
    *("--trainer.max_epochs", "3", "--trainer.limit_train_batches", "8", "--trainer.accelerator", "cpu"),
]


CHECKPOINT = "lightning_logs/TimmClassifier/version_{}/checkpoints/last.ckpt"


def losses(version: int) -> list[float]:
    with Path(f"lightning_logs/TimmClassifier/version_{version}/metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


def test_a_staged_run_on_features_goes_all_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    fitted = main(["fit", *STAGED, "--trainer.devices", "1"])
    assert fitted is not None
    run = Path(fitted.trainer.log_dir or "")
    assert not capsys.readouterr().out.count("overridden")
    # The blocks by epoch come out of the checkpoint as they went in.
    tested = main(["test", "--run", str(run)])
    assert "overridden" not in capsys.readouterr().out
    assert tested is not None
    assert tested.model.freezing.frozen_from_epoch == fitted.model.freezing.frozen_from_epoch
    # What was trained goes on.
    gone_on = main(["fit", "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "4"])
    assert gone_on is not None
    assert gone_on.trainer.current_epoch == 4
    assert "overridden: --trainer.max_epochs 3 -> 4" in capsys.readouterr().out
    assert gone_on.model.freezing.frozen == gone_on.model.freezing.ends["stages.0"]


def test_two_processes_train_on_features_as_one_does() -> None:
    main(["fit", *STAGED, "--trainer.devices", "1", "--data.batch_size", "32"])
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp_find_unused_parameters_true"]
    command = [sys.executable, "-m", "pet_cifar", "fit", *STAGED, *two, "--data.batch_size", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert losses(1) == pytest.approx(losses(0), rel=1e-3)
    # This holds after the first stage was unfrozen, too.
    assert losses(1)[2] < losses(1)[0]
    # Both know the same of pictures of none of the classes, and say it of the same pictures.
    one, other = (torch.load(CHECKPOINT.format(version), weights_only=True)["outliers"] for version in (0, 1))
    for name in ("means", "variances", "rest", "threshold"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-6)
    main(["test", "--run", "lightning_logs/TimmClassifier/version_1", "--trainer.devices", "1"])
    with Path("lightning_logs/TimmClassifier/version_1/test/predictions.csv").open() as file:
        flags = [row["none_of_these"] for row in csv.DictReader(file)]
    metrics = json.loads(Path("lightning_logs/TimmClassifier/version_1/test/metrics.json").read_text())
    assert len(flags) == metrics["pictures"]
    assert metrics["test/coverage"] == pytest.approx(flags.count("0") / len(flags))


def test_stages_on_two_processes_are_refused_in_one_line() -> None:
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command = [sys.executable, "-m", "pet_cifar", "fit", *STAGED, *two]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "ddp_find_unused_parameters_true" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_stages_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("staged.yaml").write_text(
        "model:\n  class_path: TimmClassifier\n  init_args:\n    unfreeze:\n      1: blocks.0\n"
    )
    with pytest.raises(SystemExit):
        main(["fit", "--config", "staged.yaml", *STAGED, "--model.unfreeze", '{"2": "nowhere"}'])
    assert "overridden: --model.unfreeze {1: 'blocks.0'} -> {'2': 'nowhere'}" in capsys.readouterr().out
