"""A big net of timm that two processes divide among them: it trains, is kept whole, and one process tests it."""

from pathlib import Path

import pytest

from pet_cifar.cli.main import main
from pet_cifar.models import TimmClassifier
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_vit_base_on_two_processes() -> None:
    fit = [
        *("fit", "--config", "digits_residual", *TRUST, "--model", f"{__name__}.ShardedTimm"),
        *("--model.name", "vit_base_patch16_224", "--model.weights", "none", "--data.batch_size", "4"),
        *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", STRATEGY),
    ]
    ends, said, _ = together(fit, fit)
    assert ends == [0, 0], said
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
