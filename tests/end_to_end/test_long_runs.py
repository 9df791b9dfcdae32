"""A run of many epochs grows in nothing but its logs: neither in memory, nor in threads, nor in open files."""

from pathlib import Path

import pytest
from lightning import Callback, LightningModule, Trainer

from pet_cifar.cli.main import main

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells this of a process")

SCALARS = 3000
"""The most bytes that an epoch's values take in TensorBoard's files."""


class Usage(Callback):
    """Notes after each epoch how much this process takes."""

    def __init__(self) -> None:
        self.memory: list[int] = []
        self.threads: list[int] = []
        self.files: list[int] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        status = Path("/proc/self/status").read_text()
        self.memory.append(int(status.partition("VmRSS:")[2].split()[0]))
        self.threads.append(len(list(Path("/proc/self/task").iterdir())))
        self.files.append(len(list(Path("/proc/self/fd").iterdir())))


@pytest.mark.parametrize(("epochs", "megabytes"), [(45, 1), pytest.param(2000, 50, marks=pytest.mark.torture)])
def test_epochs_cost_nothing_that_stays(epochs: int, megabytes: int) -> None:
    usage = Usage()
    words = [
        *("fit", "--config", "digits_residual", "--model.widths", "[4]", "--trainer.max_epochs", str(epochs)),
        *("--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1", "--trainer.log_every_n_steps", "1"),
        *("--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", str(megabytes)),
    ]
    main(words, callbacks=[usage])
    assert len(usage.memory) == epochs
    # By a third of the run every kind of picture was drawn, and every library is loaded.
    first, last = usage.memory[epochs // 3], usage.memory[-1]
    print(f"{epochs} epochs: {first} to {last} kB, {usage.threads[-1]} threads, {usage.files[-1]} open files")
    # 20 MB cover the noise of freed memory that the system gets back late; a picture kept each epoch would be more.
    assert last - first < 20_000, "kB"
    assert usage.threads[-1] <= usage.threads[epochs // 3]
    assert usage.files[-1] <= usage.files[epochs // 3]
    run = Path("lightning_logs/digits_residual/version_0")
    events = sum(path.stat().st_size for path in run.rglob("*") if ".tfevents." in path.name)
    print(f"{events} bytes of events, budget {megabytes} MB")
    assert events <= 10**6 * megabytes + SCALARS * epochs
