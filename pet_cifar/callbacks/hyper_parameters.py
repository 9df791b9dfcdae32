"""Fills TensorBoard's HParams tab, which compares the hyper-parameters and results of all runs."""

import os
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from pet_cifar.callbacks.board import board_of
from pet_cifar.data.datamodule import image_data_of
from pet_cifar.names import without_codes

TEXT_COLUMNS = ("net", "data", "augment", "optimizer", "schedule", "precision", "options")
NUMBER_COLUMNS = ("image_size", "batch_size", "lr", "weight_decay", "epochs", "seed", "processes")
SHOWN_COLUMNS = ("net", "optimizer", "lr", "batch_size", "epochs")
"""The columns that are shown at first. TensorBoard shows five, whatever number is asked for."""
METRICS = {
    "hparams/best_val_acc": "best val/acc",
    "test/acc": "test/acc",
    "hparams/parameters": "parameters",
    "hparams/train_seconds": "training seconds",
}
SHARED_OPTIONS = {"num_classes", "num_channels", "image_size", "optimizer", "lr", "weight_decay", "schedule"}
"""The options that every net has; all others stand together in the column ``options``."""


class HyperParameters(Callback):
    """Puts every run into one table: its hyper-parameters, best ``val/acc``, ``test/acc``, parameters and seconds.

    All runs declare the same columns, because TensorBoard takes them from the first run that it finds and hides what
    only others have. Options that not every net has, such as ``dropout``, stand together in the column ``options``.
    """

    def __init__(self) -> None:
        self._best: float | None = None
        self._seconds = 0.0
        self._since = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Adds a board, and keeps Lightning from writing a table of its own with an ``hp_metric`` of -1."""
        board_of(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger._default_hp_metric = False

    def state_dict(self) -> dict[str, Any]:
        """Keeps the best accuracy and the seconds for a run that goes on."""
        return {"best": self._best, "seconds": self._total()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the best accuracy and the seconds of the checkpoint."""
        self._best, self._seconds = state_dict["best"], state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the columns and the hyper-parameters of this run."""
        self._since = time.perf_counter()
        if trainer.global_step == 0:
            self._best, self._seconds = None, 0.0
        board = board_of(trainer)
        if not trainer.is_global_zero or not board.is_open or board.goes_on:
            return
        board.step = trainer.global_step
        # These few hundred bytes are written whatever the budget is, because without them the table misses the run.
        for message in (experiment(), session_start(hyper_parameters(trainer, pl_module))):
            board.write(message)
        board.scalar("hparams/parameters", sum(parameter.numel() for parameter in pl_module.parameters()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the best validation accuracy so far."""
        accuracy = trainer.callback_metrics.get("val/acc")
        if trainer.sanity_checking or trainer.state.fn != "fit" or accuracy is None:
            return
        value = accuracy.item()
        self._best = value if self._best is None else max(self._best, value)
        board = board_of(trainer)
        if trainer.is_global_zero and board.is_open:
            board.step = trainer.global_step
            board.scalar("hparams/best_val_acc", self._best)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the training seconds so far."""
        board = board_of(trainer)
        if trainer.is_global_zero and board.is_open:
            board.step = trainer.global_step
            board.scalar("hparams/train_seconds", self._total())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Marks the run as finished."""
        board = board_of(trainer)
        if trainer.is_global_zero and board.is_open:
            board.write(session_end())
        # The time until somebody saves or goes on is not training.
        self._seconds, self._since = self._total(), 0.0

    def _total(self) -> float:
        return self._seconds + (time.perf_counter() - self._since if self._since else 0.0)


def hyper_parameters(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """The values of `TEXT_COLUMNS` and `NUMBER_COLUMNS` for one run; a column without a value is left out."""
    # These are the options that the net was made with; a pretrained one later forgets the file of its weights.
    own: dict[str, Any] = dict(module.hparams_initial)
    if "configure_optimizers" in vars(module):  # The command line's --optimizer has replaced it.
        optimizer = trainer.optimizers[0]
        own |= {
            "optimizer": type(optimizer).__name__,
            "schedule": None,
            **{key: optimizer.defaults.get(key) for key in ("lr", "weight_decay")},
        }
    else:
        own["lr"] = getattr(module, "lr", own.get("lr"))  # A search may have found another rate.
    data = image_data_of(trainer)
    options = {key: value for key, value in own.items() if key not in SHARED_OPTIONS and value is not None}
    values = {
        "net": type(module).__name__,
        "data": type(data).__name__ if data else "loaders",
        "batch_size": data.batch_size if data else None,
        "augment": _changed_fields(data.augment) if data and data.augment else "none",
        "epochs": trainer.max_epochs,
        # Lightning's seed_everything leaves the seed there.
        "seed": int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None,
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "options": ", ".join(f"{key} {value}" for key, value in sorted(options.items())),
        **{key: own.get(key) for key in SHARED_OPTIONS},
    }
    return {key: values[key] for key in (*TEXT_COLUMNS, *NUMBER_COLUMNS) if values.get(key) is not None}


def _changed_fields(settings: Any) -> str:
    """The fields of a dataclass that are not at their default."""
    own = {field.name: (getattr(settings, field.name), field.default) for field in fields(settings)}
    return ", ".join(f"{name} {value}" for name, (value, default) in own.items() if value != default) or "none"


# These messages are built here, because TensorBoard's own functions for them import TensorFlow.


def experiment() -> Any:
    """Builds the message that declares the table's columns; it is the same for every run."""
    # TensorBoard shows five columns, first of all those that are said to differ; the user can tick the others.
    columns = [
        api_pb2.HParamInfo(name=name, type=kind, differs=name in SHOWN_COLUMNS)
        for names, kind in ((TEXT_COLUMNS, api_pb2.DATA_TYPE_STRING), (NUMBER_COLUMNS, api_pb2.DATA_TYPE_FLOAT64))
        for name in names
    ]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name) for tag, name in METRICS.items()]
    content = api_pb2.Experiment(hparam_infos=columns, metric_infos=metrics)
    return _message(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=content))


def session_start(values: Mapping[str, str | float]) -> Any:
    """Builds the message that gives one run's values."""
    content = SessionStartInfo(start_time_secs=time.time())
    for name, value in values.items():
        if isinstance(value, str):
            content.hparams[name].string_value = without_codes(value)
        else:
            content.hparams[name].number_value = value
    return _message(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=content))


def session_end() -> Any:
    """Builds the message that a run has ended."""
    content = SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    return _message(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=content))


def _message(tag: str, content: Any) -> Any:
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content))])
