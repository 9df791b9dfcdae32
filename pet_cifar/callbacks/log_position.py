"""Keeps in every checkpoint how far the run's logs went, so that a run can go on in the same files."""

import os
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.run_loggers import RunEvents, RunMetrics, drawn_files
from pet_cifar.callbacks.run_record import RunRecord


class LogPosition(Callback):
    """Writes ``logs`` into every checkpoint: the rows of ``metrics.csv`` and the bytes of each file of TensorBoard.

    A run that goes on in its own directory drops what came after them, and then makes it again.

    Args:
        goes_on: Whether the run goes on in its own directory.
    """

    def __init__(self, goes_on: bool = False) -> None:
        self.goes_on = goes_on

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tells the callbacks that note the start of a run whether it is this run's start."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, Board | RunRecord):
                callback.goes_on = self.goes_on

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes what the loggers still hold, and notes how far they are."""
        if not trainer.is_global_zero:
            return
        logs: dict[str, Any] = {}
        for logger in trainer.loggers:
            if isinstance(logger, RunMetrics):
                logger.save()
                logs["rows"] = logger.experiment.count
            elif isinstance(logger, RunEvents):
                run = Path(logger.log_dir)
                logs["bytes"] = {str(path.relative_to(run)): path.stat().st_size for path in drawn_files(run)}
        checkpoint["logs"] = logs

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lets checkpoint callbacks know their files again where the run directory was moved, or is named otherwise."""
        if not self.goes_on:
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        states = checkpoint.get("callbacks", {})
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and isinstance(state := states.get(callback.state_key), dict):
                states[callback.state_key] = _moved(state, str(callback.dirpath))


def _moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """The state of a checkpoint callback, with its files in another folder."""
    before = str(state.get("dirpath"))
    if before == folder:
        return state

    def moved(path: str) -> str:
        return str(Path(folder) / os.path.relpath(path, before)) if path else path

    paths = {name: moved(str(state[name])) for name in state if name.endswith("_path")}
    models = {moved(path): score for path, score in state.get("best_k_models", {}).items()}
    return {**state, **paths, "best_k_models": models, "dirpath": folder}
