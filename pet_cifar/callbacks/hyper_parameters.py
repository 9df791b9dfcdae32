"""What distinguishes runs, and what came of it: TensorBoard's HParams tab."""

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

WORDS = ("net", "data", "augment", "optimizer", "schedule", "precision", "options")
NUMBERS = ("image_size", "batch_size", "lr", "weight_decay", "epochs", "seed", "processes")
FIRST = ("net", "optimizer", "lr", "batch_size", "epochs")
METRICS = {
    "hparams/best_val_acc": "best val/acc",
    "test/acc": "test/acc",
    "hparams/parameters": "parameters",
    "hparams/train_seconds": "training seconds",
}
COMMON = {"num_classes", "num_channels", "image_size", "optimizer", "lr", "weight_decay", "schedule"}


class HyperParameters(Callback):
    """Puts every run into the same table: hyper-parameters against best ``val/acc``, ``test/acc``, size and time.

    All runs declare the same columns: TensorBoard takes them from the first run that it finds, and would hide what
    only others have. What is a net's own, such as ``dropout``, stands together in the column ``options``.
    """

    def __init__(self) -> None:
        self._best: float | None = None
        self._seconds = 0.0
        self._since = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the board, and keeps Lightning from writing a table of its own with an ``hp_metric`` of -1."""
        board_of(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger._default_hp_metric = False

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has behind it."""
        return {"best": self._best, "seconds": self._total()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self._best, self._seconds = state_dict["best"], state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the columns and this run's hyper-parameters."""
        self._since = time.perf_counter()
        if trainer.global_step == 0:
            self._best, self._seconds = None, 0.0
        board = board_of(trainer)
        if not trainer.is_global_zero or not board.is_open:
            return
        board.step = trainer.global_step
        # not part of the budget: a few hundred bytes, without which the table would miss a run
        for message in (experiment(), session_start(hyper_parameters(trainer, pl_module))):
            board.write(message)
        board.scalar("hparams/parameters", sum(parameter.numel() for parameter in pl_module.parameters()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the best accuracy so far."""
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
        """Writes the seconds so far."""
        board = board_of(trainer)
        if trainer.is_global_zero and board.is_open:
            board.step = trainer.global_step
            board.scalar("hparams/train_seconds", self._total())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Marks the run as finished."""
        board = board_of(trainer)
        if trainer.is_global_zero and board.is_open:
            board.write(session_end())
        # idle time until somebody saves or goes on is not training
        self._seconds, self._since = self._total(), 0.0

    def _total(self) -> float:
        return self._seconds + (time.perf_counter() - self._since if self._since else 0.0)


def hyper_parameters(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """The values of the columns `WORDS` and `NUMBERS` for one run; a column without a value is left out."""
    # as the net was made: one with pretrained weights forgets their file afterwards
    own: dict[str, Any] = dict(module.hparams_initial)
    if "configure_optimizers" in vars(module):  # the command line's --optimizer
        optimizer = trainer.optimizers[0]
        own |= {
            "optimizer": type(optimizer).__name__,
            "schedule": None,
            **{key: optimizer.defaults.get(key) for key in ("lr", "weight_decay")},
        }
    else:
        own["lr"] = getattr(module, "lr", own.get("lr"))  # a search may have found another
    data = getattr(trainer, "datamodule", None)
    options = {key: value for key, value in own.items() if key not in COMMON and value is not None}
    augment = getattr(data, "augment", None)
    values = {
        "net": type(module).__name__,
        "data": type(data).__name__ if data else "loaders",
        "batch_size": getattr(data, "batch_size", None),
        "augment": _changed(augment) if augment else "none",
        "epochs": trainer.max_epochs,
        # Lightning's seed_everything leaves it there
        "seed": int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None,
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "options": ", ".join(f"{key} {value}" for key, value in sorted(options.items())),
        **{key: own.get(key) for key in COMMON},
    }
    return {key: values[key] for key in (*WORDS, *NUMBERS) if values.get(key) is not None}


def _changed(settings: Any) -> str:
    """The dataclass's fields that are not at their default."""
    own = {field.name: (getattr(settings, field.name), field.default) for field in fields(settings)}
    return ", ".join(f"{name} {value}" for name, (value, default) in own.items() if value != default) or "none"


# TensorBoard's own functions for these messages import TensorFlow.


def experiment() -> Any:
    """The message that declares the table's columns, the same for every run."""
    # of those that differ TensorBoard shows five at once, and leaves the others to be ticked
    columns = [
        api_pb2.HParamInfo(name=name, type=kind, differs=name in FIRST)
        for names, kind in ((WORDS, api_pb2.DATA_TYPE_STRING), (NUMBERS, api_pb2.DATA_TYPE_FLOAT64))
        for name in names
    ]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name) for tag, name in METRICS.items()]
    content = api_pb2.Experiment(hparam_infos=columns, metric_infos=metrics)
    return _message(metadata.EXPERIMENT_TAG, HParamsPluginData(experiment=content))


def session_start(values: Mapping[str, str | float]) -> Any:
    """The message that gives one run's values."""
    content = SessionStartInfo(start_time_secs=time.time())
    for name, value in values.items():
        if isinstance(value, str):
            content.hparams[name].string_value = value
        else:
            content.hparams[name].number_value = value
    return _message(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=content))


def session_end() -> Any:
    """The message that a run came to its end."""
    content = SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    return _message(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=content))


def _message(tag: str, content: Any) -> Any:
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content))])
