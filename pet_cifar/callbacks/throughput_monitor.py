"""How fast a run goes and how large its steps are."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from pet_cifar.hardware import peak_memory


class ThroughputMonitor(Callback):
    """Logs how fast and with how much memory a run goes.

    ``lr`` every ``log_every_n_steps`` steps, of the parameters that have no factor of their own; ``epoch_seconds``,
    ``images_per_second`` and ``memory_gb`` every epoch. The seconds are those of the training steps and of waiting for
    their data; validation does not count. The pictures are those of all processes. Memory, in 10^9 bytes, is the
    largest so far of this process: what is allocated on the GPU, or on the CPU all that is resident (not on Windows,
    which does not tell).
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._start = 0.0
        self._images = 0
        self._lr = 0.0
        self._logged_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock: a run that goes on in the middle of an epoch does not start one."""
        self._seconds, self._images, self._start = 0.0, 0, time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._seconds, self._images, self._start = 0.0, 0, time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Notes the learning rate before the schedule moves on."""
        if trainer.optimizers:
            self._lr = _learning_rate(trainer.optimizers[0])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch, and logs the learning rate that it was trained with now and then."""
        self._images += len(batch.label)
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 and step != self._logged_step and trainer.optimizers:
            self._logged_step = step
            for logger in trainer.loggers:
                logger.log_metrics({"lr": self._lr}, step=step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        if not trainer.sanity_checking:
            self._seconds += _now(trainer) - self._start

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock again."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the epoch."""
        seconds = self._seconds + _now(trainer) - self._start
        found = {"epoch_seconds": seconds, "images_per_second": self._images * trainer.world_size / seconds}
        device = trainer.strategy.root_device
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
        if memory is not None:
            found["memory_gb"] = memory / 1e9
        for name, value in found.items():
            # a tensor: Lightning copies a number to the device and waits for it
            pl_module.log(name, torch.tensor(value))


def _now(trainer: Trainer) -> float:
    # what the steps have given the device to do is part of them
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
    return time.perf_counter()


def _learning_rate(optimizer: torch.optim.Optimizer) -> float:
    # of the parameters that follow the rate the run was given: others may have a multiple of it
    groups = optimizer.param_groups
    return float(next((group for group in groups if group.get("lr_factor") == 1), groups[0])["lr"])
