"""The base of all image callbacks: it decides when they draw, and keeps them from changing the run."""

import logging
import re
from abc import abstractmethod
from contextlib import nullcontext
from typing import ClassVar, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.callbacks.board import Board, board_of
from pet_cifar.callbacks.images.inspection import untouched
from pet_cifar.data.datamodule import ImageDataModule, image_data_of
from pet_cifar.data.scored import name_of_results
from pet_cifar.errors import InputError
from pet_cifar.training.classifier import ImageClassifier

log = logging.getLogger(__name__)
EvalSplit = Literal["val", "test"]
_SPLIT_NAMES: dict[EvalSplit, str] = {"val": "validation", "test": "test"}


class ImageCallback(Callback):
    """Draws at the start, every few epochs and at the end of training, on rank zero only.

    Unless it is told after how many epochs, it leaves out drawings that would take more than a twentieth of the time.

    A subclass adds ``draw``; the command line finds it by itself once the package imports it. A subclass that shows
    predictions does not draw at the start, where there are none, but also draws after ``validate`` and ``test``.

    Args:
        every_n_epochs: The number of epochs between two drawings, however long they take; 0 draws only at the start
            and at the end. Null draws every `usual_epochs` epochs where there is time for it.
    """

    by_default: ClassVar[bool] = True
    """Whether the command line adds the callback without being asked."""
    shows_predictions: ClassVar[bool] = False
    """Whether ``draw`` needs ``board.predictions``."""
    draws_at_start: ClassVar[bool] = True
    """Whether to draw the untrained net; a callback that shows predictions never does."""

    usual_epochs: ClassVar[int] = 1
    """The number of epochs between two drawings where nobody says how many."""

    def __init__(self, every_n_epochs: int | None = None) -> None:
        if every_n_epochs is not None and every_n_epochs < 0:
            raise InputError(
                f"{self._possessive} every_n_epochs is {every_n_epochs}; it is 1 or more, or 0 for start and end"
            )
        self.every_n_epochs = every_n_epochs
        self._last_step = -1
        self._when_predicted = ""

    @abstractmethod
    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Draws on ``board``; it is called on rank zero with the net in evaluation mode, without gradients.

        Args:
            module: The net, on its device.
            data: The data module that the net is trained or tested on.
            board: Takes what is drawn.
            split: The split that ``board.predictions`` belong to.
            when: The time for titles, such as ``after 3 epochs``; it is empty outside of training.
        """

    def prepare(self, module: ImageClassifier, data: ImageDataModule) -> None:
        """Refuses nets and options that cannot be drawn; it is called before training, on all processes."""

    def _check_at_least_one(self, **options: int) -> None:
        for name, value in options.items():
            if value < 1:
                raise InputError(f"{self._possessive} {name} is {value}; it is 1 or more")

    @property
    def _possessive(self) -> str:
        name = type(self).__name__
        return f"{name}'" if name.endswith("s") else f"{name}'s"

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses nets and data that are not of this package."""
        self._last_step = -1
        if stage != "fit" and (stage == "predict" or not self.shows_predictions):
            return
        data = image_data_of(trainer)
        if not isinstance(pl_module, ImageClassifier) or data is None:
            # A trainer that is given loaders has a data module of None, or none at all.
            given = getattr(trainer, "datamodule", None)
            raise InputError(
                f"{type(self).__name__} shows what an ImageClassifier makes of an ImageDataModule's pictures, not a "
                f"{type(pl_module).__name__} with {type(given).__name__ if given else 'loaders'}; "
                "give the trainer both, or leave the callback out"
            )
        board_of(trainer)
        if stage == "fit":
            self.prepare(pl_module, data)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the net as it is before this training."""
        if self.draws_at_start and not self.shows_predictions and not board_of(trainer).goes_on:
            when = "at the start" if trainer.global_step == 0 else _after(trainer.current_epoch)
            self._draw(trainer, pl_module, "val", when)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, if it is time to."""
        if not self.shows_predictions and self._is_due(trainer):
            self._draw(trainer, pl_module, "val", _after(trainer.current_epoch + 1))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the new predictions, if it is time to."""
        if not self.shows_predictions or trainer.sanity_checking:
            return
        if trainer.state.fn == "validate":
            self._draw(trainer, pl_module, "val", "")
        elif self._is_due(trainer):
            self._draw(trainer, pl_module, "val", _during(trainer))
        else:  # These may turn out to be the last, which on_train_end draws.
            self._when_predicted = _during(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the trained net or the last predictions, unless that has just been done."""
        board = board_of(trainer)
        if self.shows_predictions and board.predicted_step != self._last_step:
            self._draw(trainer, pl_module, "val", self._when_predicted)
        elif not self.shows_predictions and trainer.global_step != self._last_step:
            self._draw(trainer, pl_module, "val", _after(trainer.current_epoch))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the predictions of a test, unless it is one of other data or of a part of the pictures."""
        if self.shows_predictions and name_of_results(trainer, "test") == "test":
            self._draw(trainer, pl_module, "test", "")

    def _is_due(self, trainer: Trainer) -> bool:
        board, epochs = board_of(trainer), trainer.current_epoch + 1
        if self.every_n_epochs is not None:
            return board.is_due(self.every_n_epochs, epochs)
        return board.is_due(self.usual_epochs, epochs) and board.time.affords(type(self).__name__)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, split: EvalSplit, when: str) -> None:
        board = board_of(trainer)
        if not trainer.is_global_zero or not board.is_open or not board.max_megabytes:
            return
        if self.shows_predictions and board.predictions is None:
            return
        data = image_data_of(trainer)
        assert isinstance(pl_module, ImageClassifier), "setup refuses all others"
        assert data is not None, "setup refuses all others"
        board.step = board.predicted_step if self.shows_predictions else trainer.global_step
        # What was asked for every few epochs does not count, so that the others still have their share.
        time = board.time.measured(type(self).__name__) if not self.every_n_epochs else nullcontext()
        with time, untouched(pl_module), trainer.precision_plugin.forward_context():
            self.draw(pl_module, data, board, split, when)
        self._last_step = board.step


def _after(epochs: int) -> str:
    return f"after {epochs} epoch{'s' if epochs != 1 else ''}"


def _during(trainer: Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}, step {trainer.global_step:,}"


def title_of(what: str, split: EvalSplit, when: str) -> str:
    """Builds a title such as ``confusion matrix, validation, epoch 3, step 1,053``."""
    return ", ".join(filter(None, (what, _SPLIT_NAMES[split], when)))


def escape(text: str) -> str:
    """Escapes text so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~])", r"\\\1", text)


@rank_zero_only
def warn(line: str) -> None:
    """Logs a warning on rank zero."""
    log.warning(line)
