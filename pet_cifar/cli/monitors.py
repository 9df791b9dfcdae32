"""Whether a callback or a schedule waits for a value that the run will log."""

from collections.abc import Iterable, Sequence
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from pet_cifar.callbacks import ThroughputMonitor
from pet_cifar.callbacks.throughput_monitor import LOGGED
from pet_cifar.data import ImageDataModule
from pet_cifar.errors import InputError, did_you_mean
from pet_cifar.training import ImageClassifier
from pet_cifar.training.metrics import ClassScores, StageMetrics


def logged_by_fit(model: ImageClassifier, data: ImageDataModule, *, validates: bool, measures: bool) -> list[str]:
    """The names of the values that a fit logs every epoch.

    Args:
        model: The net.
        data: The data module, whose classes have an accuracy each.
        validates: Whether the run has a validation.
        measures: Whether the run has a `ThroughputMonitor`.
    """
    stages = [model.train_metrics, model.val_metrics] if validates else [model.train_metrics]
    names = [name for stage in stages for name in _names(stage, data.class_names)]
    return names + list(LOGGED) if measures else names


def _names(metrics: StageMetrics, class_names: Iterable[str]) -> list[str]:
    names = ["loss"]
    for name, metric in metrics.metrics.items():
        names += (
            ["f1", "balanced_acc", *(f"acc_{one}" for one in class_names)]
            if isinstance(metric, ClassScores)
            else [name]
        )
    return [f"{metrics.stage}/{name}" for name in names]


def check_monitors(
    callbacks: Sequence[Callback], model: ImageClassifier, data: ImageDataModule, *, validates: bool, schedule: Any
) -> None:
    """Refuses a callback that waits for a value which nothing logs; Lightning says so only after the first epoch.

    Args:
        callbacks: The callbacks of the run.
        model: The net.
        data: The data module.
        validates: Whether the run has a validation.
        schedule: The class and arguments of ``--lr_scheduler``, if one was chosen.

    Raises:
        InputError: A callback or the schedule monitors another name.
    """
    measures = any(isinstance(one, ThroughputMonitor) for one in callbacks)
    known = logged_by_fit(model, data, validates=validates, measures=measures)
    ours = all(type(one).__module__.split(".")[0] in ("pet_cifar", "lightning") for one in (model, *callbacks))
    if not ours:  # A class of the user's may log anything.
        return
    for callback in callbacks:
        # Lightning counts these two for checkpoints alone.
        counters = ("epoch", "step") if isinstance(callback, ModelCheckpoint) else ()
        check_monitor("trainer.callbacks", getattr(callback, "monitor", None), [*known, *counters])
    if schedule:
        check_monitor("lr_scheduler", (schedule.get("init_args") or {}).get("monitor"), known)


def check_monitor(option: str, monitor: object, known: list[str]) -> None:
    """Refuses the name of a value that nothing logs.

    Args:
        option: The option that the class was chosen with, such as ``trainer.callbacks``.
        monitor: The name; None waits for none.
        known: The names that are logged.

    Raises:
        InputError: The name is not among them.
    """
    if isinstance(monitor, str) and monitor not in known:
        near = did_you_mean(monitor, known)
        some = [name for name in known if "/acc_" not in name]
        raise InputError(f"--{option}.monitor {monitor}: the run logs no such value; it logs {', '.join(some)}{near}")
