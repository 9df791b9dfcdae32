"""What all pictures of a run have in common: when they are drawn, and that they change nothing."""

import logging
import re
from abc import abstractmethod
from typing import ClassVar, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.callbacks.board import Board, board_of
from pet_cifar.callbacks.images.inspection import untouched
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError
from pet_cifar.training.classifier import ImageClassifier

log = logging.getLogger(__name__)
Drawn = Literal["val", "test"]
_PARTS = {"val": "validation", "test": "test"}


class ImageCallback(Callback):
    """Drawn at the start, every ``every_n_epochs`` epochs and at the end of training, on rank zero only.

    A picture adds ``draw``; the command line finds it by itself. One that shows scores draws nothing at the start,
    where there are none, and is drawn after a validation or a test of its own as well.

    Args:
        every_n_epochs: 1 or more; 0 draws only at the start and at the end.
    """

    by_default: ClassVar[bool] = True
    """Whether the command line draws it without being asked."""
    shows_scores: ClassVar[bool] = False
    draws_at_start: ClassVar[bool] = True

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 0:
            raise InputError(f"{self._own} every_n_epochs is {every_n_epochs}; it is 1 or more, or 0 for start and end")
        self.every_n_epochs = every_n_epochs
        self._last_step = -1
        self._when = ""

    @abstractmethod
    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: Drawn, when: str) -> None:
        """Draws on ``board``; called on rank zero with the net in evaluation, without gradients.

        Args:
            module: the net, on its device.
            data: the pictures.
            board: takes what is drawn.
            split: whose scores ``board.scores`` are.
            when: such as ``after 3 epochs``, for titles; empty where no training is going on.
        """

    def prepare(self, module: ImageClassifier, data: ImageDataModule) -> None:
        """Refuses what cannot be drawn; called before training, on all processes."""

    def _at_least_one(self, **options: int) -> None:
        for name, value in options.items():
            if value < 1:
                raise InputError(f"{self._own} {name} is {value}; it is 1 or more")

    @property
    def _own(self) -> str:
        name = type(self).__name__
        return f"{name}'" if name.endswith("s") else f"{name}'s"

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses nets and data that have nothing to show."""
        self._last_step = -1
        if stage != "fit" and (stage == "predict" or not self.shows_scores):
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, ImageClassifier) or not isinstance(data, ImageDataModule):
            raise InputError(
                f"{type(self).__name__} shows what an ImageClassifier makes of an ImageDataModule's pictures, not a "
                f"{type(pl_module).__name__} with {type(data).__name__ if data else 'loaders'}; "
                "give the trainer both, or leave the callback out"
            )
        board_of(trainer)
        if stage == "fit":
            self.prepare(pl_module, data)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the untrained net, or the one that training goes on with."""
        if self.draws_at_start and not self.shows_scores:
            when = "at the start" if trainer.global_step == 0 else _after(trainer.current_epoch)
            self._draw(trainer, pl_module, "val", when)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws every few epochs."""
        epochs = trainer.current_epoch + 1
        if not self.shows_scores and board_of(trainer).is_due(self.every_n_epochs, epochs):
            self._draw(trainer, pl_module, "val", _after(epochs))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the scores, when there are new ones."""
        if not self.shows_scores or trainer.sanity_checking:
            return
        if trainer.state.fn == "validate":
            self._draw(trainer, pl_module, "val", "")
        elif board_of(trainer).is_due(self.every_n_epochs, trainer.current_epoch + 1):
            self._draw(trainer, pl_module, "val", _in(trainer))
        else:  # these may be the last
            self._when = _in(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the trained net, and the last scores."""
        board = board_of(trainer)
        if self.shows_scores and board.scored_step != self._last_step:
            self._draw(trainer, pl_module, "val", self._when)
        elif not self.shows_scores and trainer.global_step != self._last_step:
            self._draw(trainer, pl_module, "val", _after(trainer.current_epoch))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the scores of a test."""
        if self.shows_scores:
            self._draw(trainer, pl_module, "test", "")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, split: Drawn, when: str) -> None:
        board = board_of(trainer)
        if not trainer.is_global_zero or not board.is_open or not board.max_megabytes:
            return
        if self.shows_scores and board.scores is None:
            return
        assert isinstance(pl_module, ImageClassifier)
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        board.step = board.scored_step if self.shows_scores else trainer.global_step
        with untouched(pl_module), trainer.precision_plugin.forward_context():
            self.draw(pl_module, data, board, split, when)
        self._last_step = board.step


def _after(epochs: int) -> str:
    return f"after {epochs} epoch{'s' if epochs != 1 else ''}"


def _in(trainer: Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}, step {trainer.global_step:,}"


def title_of(what: str, split: Drawn, when: str) -> str:
    """Such as ``confusion matrix, validation, epoch 3, step 1,053``."""
    return ", ".join(filter(None, (what, _PARTS[split], when)))


def escape(text: str) -> str:
    """Text as Markdown shows it, whatever signs are in it."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~])", r"\\\1", text)


@rank_zero_only
def tell(line: str) -> None:
    """Says one line, on rank zero."""
    log.warning(line)
