import json
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from pet_cifar.callbacks import RunRecord, ThroughputMonitor
from pet_cifar.callbacks.run_record import net_sizes
from pet_cifar.models import CatsDogsCNN, PlainCNN
from tests.callbacks.small_runs import digits, run, small
from tests.conftest import quiet_trainer


def record_of(directory: Path) -> dict[str, Any]:
    content = json.loads((directory / "run.json").read_text())
    assert isinstance(content, dict)
    return content


def test_a_run_keeps_what_it_was_and_cost() -> None:
    data = digits()
    trainer, directory = run(small(), data, [ThroughputMonitor(), RunRecord("pet-cifar fit")], epochs=3)
    record = record_of(directory)
    assert record["command"] == "pet-cifar fit"
    assert (record["state"], record["epochs"], record["planned_epochs"], record["steps"]) == ("finished", 3, 3, 9)
    assert record["net"]["parameters"] == sum(one.numel() for one in trainer.lightning_module.parameters())
    assert record["data"]["pictures"] == {name: len(own) for name, own in data.splits.items()}
    assert len(set(record["data"]["contents"].values())) == 3
    assert record["train_seconds"] > 0
    assert record["images_per_second"] > 0
    assert record["memory_gb"] > 0


class Stop(Callback):
    """Ends a run as a fault does, in the middle of its second epoch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 1:
            raise RuntimeError("pulled the plug")


def test_a_run_that_was_cut_off_is_known_as_such() -> None:
    with pytest.raises(RuntimeError, match="pulled the plug"):
        run(small(), digits(), [RunRecord(), Stop()], epochs=4)
    record = record_of(Path("logs/run/version_0"))
    assert (record["state"], record["epochs"], record["planned_epochs"]) == ("unfinished", 1, 4)


def test_the_seconds_of_a_run_that_goes_on_add_up(tmp_path: Path) -> None:
    first = RunRecord(directory=tmp_path)
    trainer, _ = run(small(), digits(), [first], epochs=1)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    before = record_of(tmp_path)["train_seconds"]
    again = RunRecord(directory=tmp_path)
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=3, callbacks=[again])
    trainer.fit(small(), digits(), ckpt_path=tmp_path / "first.ckpt")
    record = record_of(tmp_path)
    assert record["train_seconds"] > before
    assert record["epochs"] == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"command": 3}'])
def test_a_damaged_record_does_not_keep_a_run_from_going_on(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    record = RunRecord("pet-cifar fit", directory=tmp_path)
    record.goes_on = True
    quiet_trainer(max_epochs=1, limit_train_batches=1, callbacks=[record]).fit(small(), digits())
    assert (record_of(tmp_path)["command"], record_of(tmp_path)["state"]) == ("pet-cifar fit", "finished")


def test_nothing_is_written_in_a_dry_run_or_without_a_place(tmp_path: Path) -> None:
    quiet_trainer(fast_dev_run=1, callbacks=[RunRecord(directory=tmp_path)]).fit(small(), digits())
    quiet_trainer(max_epochs=1, limit_train_batches=1, callbacks=[RunRecord()]).fit(small(), digits())
    assert not [*tmp_path.rglob("run.json"), *Path.cwd().rglob("run.json")]


@pytest.mark.parametrize(("net", "gflop"), [(CatsDogsCNN(), 0.379), (PlainCNN(), 0.272)], ids=["cats_dogs", "plain"])
def test_the_operations_of_a_net_are_counted(net: Any, gflop: float) -> None:
    net.train()
    sizes = net_sizes(net)
    assert sizes["forward_gflop"] == pytest.approx(gflop, rel=0.01)
    assert net.training, "the net is left as it was"
    assert net.backbone.training
