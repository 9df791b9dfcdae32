"""Keeps the state that a run goes on from."""

import shlex

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


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
            super().on_exception(trainer, pl_module, exception)
            if self.best_model_path:
                print(f"go on with: pet-cifar fit --ckpt_path {shlex.quote(self.best_model_path)}", flush=True)
