"""Lays out TensorBoard's Custom Scalars tab."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from pet_cifar.callbacks.board import board_of

LAYOUT: dict[str, dict[str, list[Any]]] = {
    "learning": {
        "accuracy": ["Multiline", ["^train/acc$", "^val/acc$"]],
        "loss": ["Multiline", ["^train/loss$", "^val/loss$"]],
        "learning rate": ["Multiline", ["^lr$"]],
    },
    "classes": {
        "accuracy of each class, validation": ["Multiline", ["^val/acc_"]],
        "calibration error, validation": ["Multiline", ["^val/calibration_error$"]],
    },
    "throughput": {
        "pictures per second": ["Multiline", ["^images_per_second$"]],
        "seconds an epoch": ["Multiline", ["^epoch_seconds$"]],
        "memory in GB": ["Multiline", ["^memory_gb$"]],
    },
}


class CustomScalars(Callback):
    """Lays out TensorBoard's Custom Scalars tab, so that training and validation share one chart."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Adds a board where the user gave none."""
        board_of(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the layout."""
        board = board_of(trainer)
        if trainer.is_global_zero and board.is_open and not board.goes_on:
            board.step = trainer.global_step
            board.layout(LAYOUT)
