"""Keeps what a run was and what it cost, for the comparison with others."""

import json
import logging
import shlex
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pet_cifar.callbacks.environment import environment
from pet_cifar.callbacks.experiment import RECORD, key_of, read_options, read_record
from pet_cifar.data.datamodule import image_data_of
from pet_cifar.data.files.replacing import replacing
from pet_cifar.data.identity import identity_of
from pet_cifar.errors import disk_errors
from pet_cifar.names import printable
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.prediction import evaluating

log = logging.getLogger(__name__)
FORMAT = 1
"""This number changes when the file means something else."""


class RunRecord(Callback):
    """Writes ``run.json`` into the run directory: when, with what and on which pictures a net was trained.

    It holds the environment, the sizes of the net, the pictures of each split as hashes, the epochs that were planned
    and made, and the training's seconds, pictures a second and peak of memory. It is written when training starts,
    after every epoch and at the end, so that a run that was cut off is known as such.

    Args:
        command: The command that repeats the run; null takes the one that was typed.
        directory: The run directory; null takes the trainer's log directory.

    Attributes:
        goes_on: Whether the run goes on in its own directory, whose record keeps its command and its beginning.
    """

    def __init__(self, command: str | None = None, directory: str | Path | None = None) -> None:
        self.command = command
        self.directory = None if directory is None else Path(directory)
        self.goes_on = False
        self._net: dict[str, Any] = {}
        self._speeds: list[float] = []
        self._seconds = 0.0
        self._since = 0.0
        self._place: Path | None = None
        self._record: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Measures the net before anything compiles or wraps it."""
        if stage == "fit" and trainer.is_global_zero and isinstance(pl_module, ImageClassifier):
            self._net = net_sizes(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Keeps the seconds and the speeds for a run that goes on."""
        return {"seconds": self._total(), "speeds": list(self._speeds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the seconds and the speeds of the checkpoint."""
        self._seconds, self._speeds = float(state_dict["seconds"]), list(state_dict["speeds"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes what the run is."""
        self._since = time.perf_counter()
        if trainer.global_step == 0:
            self._seconds, self._speeds = 0.0, []
        # All processes ask together, since Lightning tells the others what the first one knows.
        self._place = directory = self._directory_of(trainer)
        if not trainer.is_global_zero or directory is None:
            return
        data = image_data_of(trainer)
        options = read_options(directory) or _options_of(trainer, pl_module)
        self._record = {
            "format": FORMAT,
            "command": self.command or shlex.join(sys.argv),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment(trainer),
            "threads": torch.get_num_threads(),
            "experiment": key_of(options),
            "options": {name: str(value) for name, value in options.items()},
            "net": {"class": type(pl_module).__name__, **self._net},
            "data": identity_of(data) if data is not None else None,
        }
        file = directory / RECORD
        if self.goes_on and file.is_file():
            self._record |= _beginning_in(directory)
        self._write(trainer, "started")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes how far the run has come."""
        speed = trainer.callback_metrics.get("images_per_second")
        if speed is not None:
            self._speeds.append(float(speed))
        self._write(trainer, "unfinished")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes that the run is finished, or that it was stopped."""
        # The time until somebody saves or goes on is not training.
        self._seconds, self._since = self._total(), 0.0
        self._write(trainer, "stopped" if trainer.interrupted else "finished")

    def _write(self, trainer: Trainer, state: str) -> None:
        directory = self._place
        if not self._record or directory is None or not trainer.is_global_zero:
            return
        memory = trainer.callback_metrics.get("memory_gb")
        record = {
            **self._record,
            "state": state,
            "epochs": trainer.current_epoch + (state == "unfinished"),
            "planned_epochs": trainer.max_epochs,
            "steps": trainer.global_step,
            "train_seconds": round(self._total(), 3),
            "images_per_second": statistics.median(self._speeds) if self._speeds else None,
            "memory_gb": None if memory is None else float(memory),
        }
        file = directory / RECORD
        with disk_errors(file, ""):
            directory.mkdir(parents=True, exist_ok=True)
            with replacing(file, waits_for_disk=False) as content:
                content.write((json.dumps(record, indent=1, allow_nan=False) + "\n").encode())

    def _directory_of(self, trainer: Trainer) -> Path | None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return None
        return self.directory or (Path(trainer.log_dir) if trainer.log_dir and trainer.loggers else None)

    def _total(self) -> float:
        return self._seconds + (time.perf_counter() - self._since if self._since else 0.0)


def _beginning_in(directory: Path) -> dict[str, Any]:
    """The command, the time and the threads of a run's beginning; empty where its record is damaged, which is told."""
    before = read_record(directory)
    if before is None:
        log.warning(
            f"{printable(str(directory / RECORD))} is damaged: it is written anew, and begins with this command"
        )
        return {}
    kinds = {"command": str, "started": str, "threads": int}
    return {name: before[name] for name, kind in kinds.items() if isinstance(before.get(name), kind)}


def _options_of(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """The options of a run without a config, as far as net, data and trainer tell them."""
    data = image_data_of(trainer)
    found = {"model.class_path": type(module).__name__, "trainer.max_epochs": trainer.max_epochs}
    found |= {f"model.init_args.{name}": value for name, value in module.hparams_initial.items()}
    if data is not None:
        names = ("image_size", "batch_size", "val_fraction", "split_seed")
        found["data.class_path"] = type(data).__name__
        found |= {f"data.init_args.{name}": getattr(data, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def net_sizes(net: ImageClassifier) -> dict[str, Any]:
    """The size of a net.

    Returns:
        ``parameters``, ``trained_parameters``, and ``forward_gflop``, the 10^9 floating-point operations of
        convolutions and matrix products for one picture, where a multiplication and an addition count as two.
    """
    counter = FlopCounterMode(display=False)
    with evaluating(net), torch.no_grad(), counter:
        net(_example(net))
    return {
        "parameters": _count(net, trained=False),
        "trained_parameters": _count(net, trained=True),
        "forward_gflop": counter.get_total_flops() / 1e9,
    }


def _example(net: ImageClassifier) -> torch.Tensor:
    example = net.example_input_array
    assert isinstance(example, torch.Tensor), "every classifier has one"
    return example.to(net.mean)


def _count(net: nn.Module, *, trained: bool) -> int:
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad or not trained)
