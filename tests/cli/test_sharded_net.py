"""Nets of timm that two processes divide among them: they train, go on, are kept whole, and one process tests one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pet_cifar.cli.main import main
from pet_cifar.models import TimmClassifier
from pet_cifar.runs.checkpoint_file import check_hash
from tests.cli.ranks import together

STRATEGY = "{class_path: lightning.pytorch.strategies.ModelParallelStrategy, init_args: {data_parallel_size: 2, "
STRATEGY += "tensor_parallel_size: 1, save_distributed_checkpoint: false}}"
RUNS = "lightning_logs/digits_residual"
TRUST = ["--trust", "tests.cli.test_sharded_net"]


class ShardedTimm(TimmClassifier):
    """Any of timm's vision transformers, block by block in parts."""

    def configure_model(self) -> None:
        """Divides the net where there are processes to divide it among."""
        from torch.distributed.fsdp import fully_shard

        if self.device_mesh is None:
            return
        mesh = self.device_mesh["data_parallel"]
        for part in (*self.backbone.blocks, self.backbone, self.head):  # type: ignore[misc]
            fully_shard(part, mesh=mesh)


TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", STRATEGY]


def train(*options: str) -> list[str]:
    """Trains on two processes; returns what each has printed."""
    ends, said, _ = together(*[["fit", *TRUST, *TWO, *options]] * 2)
    assert ends == [0, 0], said
    return said


def options_of(name: str, epochs: int) -> list[str]:
    return [
        *("--config", "digits_residual", "--model", f"{__name__}.ShardedTimm", "--model.name", name),
        *("--model.weights", "none", "--model.schedule", "constant", "--data.batch_size", "4"),
        *("--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"),
        *("--trainer.max_epochs", str(epochs)),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop", "muon"])
def test_a_run_goes_on(optimizer: str) -> None:
    def last(version: int) -> dict[str, Any]:
        file = Path(RUNS, f"version_{version}", "checkpoints", "last.ckpt")
        check_hash(file)
        found: dict[str, Any] = torch.load(file, weights_only=False)
        return found

    chosen = ["--model.optimizer", optimizer]
    train(*options_of("vit_tiny_patch16_224", 2), *chosen)
    train(*options_of("vit_tiny_patch16_224", 1), *chosen)
    train("--resume", f"{RUNS}/version_1", "--trainer.max_epochs", "2")
    whole, gone_on = last(0), last(1)
    assert gone_on["global_step"] == whole["global_step"] == 4
    for name, weight in whole["state_dict"].items():
        assert torch.allclose(gone_on["state_dict"][name], weight, rtol=0, atol=1e-6), name
    # This run's options win over those that the checkpoint brings.
    train("--resume", f"{RUNS}/version_1", "--trainer.max_epochs", "3", "--model.lr", "0.0007")
    assert {group["lr"] for group in last(1)["optimizer_states"][0]["param_groups"]} == {0.0007}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_vit_base_on_two_processes() -> None:
    said = train(*options_of("vit_base_patch16_224", 1))
    assert "--trainer.strategy ModelParallelStrategy" in said[0]
    one = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.limit_test_batches", "1"]
    main(["test", "--run", RUNS, *TRUST, *one])
    run = Path(RUNS) / "version_0"
    assert list(run.glob("test*/predictions.csv"))
    # What the line about the pictures promises is kept.
    assert "pet-cifar draw --run RUN_DIR" in said[0]
    main(["draw", "--run", RUNS, *TRUST])
    assert list(run.glob("drawings/feature_maps/*/*.png"))
    assert list(run.glob("drawings/grad_cam/*.png"))
