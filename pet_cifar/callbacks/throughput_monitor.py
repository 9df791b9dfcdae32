"""Logs how fast a run goes, how much memory it takes and its learning rate."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from pet_cifar.data.loader import Batch, FeatureBatch
from pet_cifar.hardware import peak_memory
from pet_cifar.training.optimizer import learning_rate

LOGGED = ("epoch_seconds", "images_per_second", "memory_gb")
"""The values that are logged every epoch; a callback can monitor them."""


class ThroughputMonitor(Callback):
    """Logs the learning rate, the speed and the memory of a run.

    ``lr`` is logged every ``log_every_n_steps`` steps; it is the rate of the parameters that have no factor of their
    own, and goes to the loggers alone. The values of `LOGGED` are logged every epoch. The seconds include the
    training steps and the waiting for their data, but not validation. The pictures of all processes are counted.
    Memory, in 10^9 bytes, is the peak of this process: what was allocated on the GPU, or what was resident on the CPU
    (Windows does not report that, so there it is left out).
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._start: float | None = None
        self._images = 0
        self._lr = 0.0
        self._logged_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets the epoch of an earlier run."""
        self._seconds, self._images, self._start = 0.0, 0, None

    def state_dict(self) -> dict[str, Any]:
        """Keeps what the epoch has counted, for a run that goes on within it."""
        running = 0.0 if self._start is None else time.perf_counter() - self._start
        return {"seconds": self._seconds + running, "images": self._images, "logged_step": self._logged_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._seconds, self._images = state_dict["seconds"], state_dict["images"]
        self._logged_step = state_dict["logged_step"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, because a run that goes on in the middle of an epoch does not start that epoch."""
        self._start = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the epoch."""
        self._seconds, self._images, self._start = 0.0, 0, time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Notes the learning rate before the schedule changes it."""
        if trainer.optimizers:
            self._lr = learning_rate(trainer.optimizers[0])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the pictures, and every few steps logs the learning rate that they were trained with."""
        own = len(batch.label if isinstance(batch, Batch | FeatureBatch) else batch[1])
        # The pictures of all processes are counted, of which there may be more or fewer when the run goes on.
        self._images += own * trainer.world_size
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 and step != self._logged_step and trainer.optimizers:
            self._logged_step = step
            for logger in trainer.loggers:
                logger.log_metrics({"lr": self._lr}, step=step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock during validation."""
        if not trainer.sanity_checking and self._start is not None:
            self._seconds += _now(trainer) - self._start
            self._start = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock again after validation."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the speed and memory of the epoch."""
        assert self._start is not None, "training has started it"
        seconds = self._seconds + _now(trainer) - self._start
        device = trainer.strategy.root_device
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
        values = (
            seconds,
            self._images / seconds,
            None if memory is None else memory / 1e9,
        )
        for name, value in zip(LOGGED, values, strict=True):
            if value is not None:
                # The value is a tensor, because Lightning copies a plain number to the device and waits for it.
                pl_module.log(name, torch.tensor(value))


def _now(trainer: Trainer) -> float:
    # The work that the steps have given the device belongs to them, so it has to be done first.
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
    return time.perf_counter()
