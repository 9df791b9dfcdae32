"""Keeps the state that a run goes on from."""

import shlex
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from pet_cifar.data.files.names import printable


class LastCheckpoint(ModelCheckpoint):
    """Saves ``last.ckpt`` after every epoch, and on Ctrl-C or an error where there is one process.

    It is a callback of its own, because one callback for the best and the last would overwrite the best on Ctrl-C. Of
    several processes one may fail while the others wait for its gradients, and then saving would never end.
    """

    def __init__(self) -> None:
        super().__init__(
            filename="last", save_on_exception=True, save_on_train_epoch_end=True, enable_version_counter=False
        )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves where there is only one process."""
        if trainer.world_size == 1:
            _validate_again(trainer)
            super().on_exception(trainer, pl_module, exception)
            if self._last_checkpoint_saved:
                print(
                    f"go on with: pet-cifar fit --ckpt_path {printable(shlex.quote(self._last_checkpoint_saved))}",
                    flush=True,
                )


def _validate_again(trainer: Trainer) -> None:
    """Lets a run that goes on from here make the validation that it was interrupted before or within.

    Lightning 2.6 would otherwise end the epoch without one. It goes back to a validation whose first batch has begun.
    """
    loop = trainer.fit_loop.epoch_loop
    batches: Any = loop.batch_progress
    epochs: Any = trainer.fit_loop.epoch_progress
    is_trained = batches.is_last_batch and batches.current.processed >= trainer.num_training_batches
    if not is_trained or epochs.current.processed >= epochs.current.started or not trainer.enable_validation:
        return
    progress: Any
    for progress in (batches.current, batches.total):
        progress.completed = progress.processed
    validated = loop.val_loop.batch_progress
    for progress in (validated.current, validated.total):
        progress.ready = progress.started = 1
        progress.processed = progress.completed = 0
    validated.is_last_batch = False
