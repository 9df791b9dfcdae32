"""What all pictures of a run have in common: when they are drawn, and that they change nothing."""

import logging
from abc import abstractmethod
from typing import Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.callbacks.board import Board, board_of
from pet_cifar.callbacks.probe import untouched
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError
from pet_cifar.models.classifier import ImageClassifier

log = logging.getLogger(__name__)
Drawn = Literal["val", "test"]


class Picture(Callback):
    """Drawn at the start, every ``every_n_epochs`` epochs and at the end of training, on rank zero only.

    A picture adds ``draw``. One that shows scores draws nothing at the start, where there are none, and is drawn
    after a validation or a test of its own as well.

    Args:
        every_n_epochs: 1 or more; 0 draws only at the start and at the end.
    """

    shows_scores = False

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 0:
            raise InputError(
                f"{type(self).__name__}'s every_n_epochs is {every_n_epochs}; it is 1 or more, or 0 for start and end"
            )
        self.every_n_epochs = every_n_epochs
        self._last_step = -1

    @abstractmethod
    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, part: Drawn, when: str) -> None:
        """Draws on ``board``; called on rank zero with the net in evaluation, without gradients.

        Args:
            module: the net, on its device.
            data: the pictures.
            board: takes what is drawn.
            part: whose scores ``board.scores`` are.
            when: such as ``after 3 epochs``, for titles; empty where no training is going on.
        """

    def prepare(self, module: ImageClassifier, data: ImageDataModule) -> None:
        """Refuses what cannot be drawn; called before training, on all processes."""

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses nets and data that have nothing to show."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, ImageClassifier) or not isinstance(data, ImageDataModule):
            raise InputError(
                f"{type(self).__name__} shows what an ImageClassifier makes of an ImageDataModule's pictures, not a "
                f"{type(pl_module).__name__} with {type(data).__name__ if data else 'loaders'}; "
                "give the trainer both, or leave the callback out"
            )
        self._last_step = -1
        board_of(trainer)
        if stage == "fit":
            self.prepare(pl_module, data)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the untrained net, or the one that training goes on with."""
        if not self.shows_scores:
            self._draw(trainer, pl_module, "val", "at the start" if trainer.global_step == 0 else _when(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws every few epochs."""
        epochs = trainer.current_epoch + 1
        if board_of(trainer).is_due(self.every_n_epochs, epochs):
            self._draw(trainer, pl_module, "val", f"after {epochs} epochs")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the trained net."""
        if trainer.global_step != self._last_step:
            self._draw(trainer, pl_module, "val", _when(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the scores of a validation outside of training."""
        if self.shows_scores and trainer.state.fn == "validate":
            self._draw(trainer, pl_module, "val", "")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the scores of a test."""
        if self.shows_scores:
            self._draw(trainer, pl_module, "test", "")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, part: Drawn, when: str) -> None:
        board = board_of(trainer)
        if not trainer.is_global_zero or not board.is_open or not board.max_megabytes:
            return
        if self.shows_scores and board.scores is None:
            return
        assert isinstance(pl_module, ImageClassifier)
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        board.step = trainer.global_step or board.step
        with untouched(pl_module), trainer.precision_plugin.forward_context():
            self.draw(pl_module, data, board, part, when)
        self._last_step = trainer.global_step


def _when(trainer: Trainer) -> str:
    return f"after {trainer.current_epoch} epochs"


@rank_zero_only
def tell(line: str) -> None:
    """Says one line, on rank zero."""
    log.warning(line)
