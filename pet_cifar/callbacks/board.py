"""The run's page in TensorBoard: one writer, one budget in bytes and one collection of scores for all pictures."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import summary as messages

from pet_cifar.callbacks.images.drawing import encode
from pet_cifar.callbacks.predictions import Collector, Scores
from pet_cifar.errors import InputError

log = logging.getLogger(__name__)
MEGABYTE = 1_000_000
RARER = 10
"""How many times more rarely pictures are drawn where a net trains on kept features: its epochs take a second."""


class Board(Callback):
    """Writes what the picture callbacks draw, as long as it fits, and says what was spent.

    Scalars are never dropped. From half of the budget on only every second picture is drawn, from three quarters on
    every fourth, and so on; what does not fit any more is left out. Where a net trains on kept features of its frozen
    part, whose epochs take about a second, ten epochs count as one. Only rank zero writes.

    Args:
        max_megabytes: what a run's pictures may take together, in 10^6 bytes; 0 is no pictures at all, null is 50, or
            for a checkpoint what its run had.

    Attributes:
        step: of training, that everything is written for.
        scored_step: of training, that ``scores`` belong to.
        scores: of the last validation or test, on all processes; None before the first.
    """

    def __init__(self, max_megabytes: float | None = None) -> None:
        if max_megabytes is not None and not max_megabytes >= 0:
            raise InputError(f"Board's max_megabytes is {max_megabytes}; it is 0 (no pictures) or more")
        self._follows_checkpoint = max_megabytes is None
        self.max_megabytes = 50.0 if max_megabytes is None else max_megabytes
        self.step = self.scored_step = 0
        self.scores: Scores | None = None
        self._collector = Collector()
        self._logger: TensorBoardLogger | None = None
        self._spent: int | None = None
        self._drawn = 0
        self._told: set[str] = set()
        self._collects = False
        self._rarer = 1
        self._step_of_checkpoint: int | None = None

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the TensorBoard logger, and says so where there is none."""
        self._collector = Collector()
        self.scores = None
        self.scored_step = 0
        self._step_of_checkpoint = None
        # without such a picture, gathering the probabilities of all processes would be for nothing
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self._collects = any(getattr(callback, "shows_scores", False) for callback in callbacks)
        found = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not found and stage != "predict" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._tell("no pictures are drawn: they need a TensorBoardLogger, and this run has none")
        if not found or found[0] is not self._logger:
            self._spent = None
        self._logger = found[0] if found else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks how long epochs will be."""
        self._rarer = RARER if getattr(getattr(trainer, "datamodule", None), "extractor", None) else 1

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remembers the step that a checkpoint was saved at: a test of it knows no other."""
        self._step_of_checkpoint = checkpoint["global_step"]

    def state_dict(self) -> dict[str, Any]:
        """The budget, for a test of the checkpoint."""
        return {"max_megabytes": self.max_megabytes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps to the run's budget, unless another was given."""
        if self._follows_checkpoint:
            self.max_megabytes = state_dict["max_megabytes"]

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keeps the batch's probabilities."""
        if self._collects and self._logger and not trainer.sanity_checking:
            self._collector.add(outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings the probabilities of all processes together, before anything is drawn of them."""
        if not self._collects or not self._logger or trainer.sanity_checking:
            return
        self.scores = self._usable(self._collector.collect())
        self.scored_step = trainer.global_step
        if trainer.state.fn != "fit" and self._step_of_checkpoint is not None:
            self.scored_step = self._step_of_checkpoint

    def _usable(self, scores: Scores | None) -> Scores | None:
        """Without the pictures whose probabilities are not numbers, of which it tells."""
        if scores is None:
            return None
        usable = scores.probabilities.isfinite().all(1)
        if usable.all():
            return scores
        self._tell(
            f"{int((~usable).sum())} of {len(usable)} pictures have probabilities that are not numbers: they are left "
            "out of the pictures; a smaller learning rate helps against it"
        )
        return Scores(*(part[usable] for part in scores)) if usable.any() else None

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_test_epoch_end = on_validation_epoch_end

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says what was spent."""
        if self._spent and self._drawn and stage == "fit":
            _say(log.info, f"TensorBoard's pictures take {self.megabytes:.1f} of at most {self.max_megabytes:g} MB")
        self._collector = Collector()
        self.scores = None

    # What pictures ask

    @property
    def is_open(self) -> bool:
        """Whether there is a TensorBoard to draw for."""
        return self._logger is not None

    @property
    def directory(self) -> Path:
        """The run directory."""
        assert self._logger is not None
        return Path(self._logger.log_dir)

    @property
    def megabytes(self) -> float:
        """What the run's pictures take so far, in 10^6 bytes."""
        return self._bytes() / MEGABYTE

    def is_due(self, every_n_epochs: int, epochs: int) -> bool:
        """Whether to draw after so many epochs; more rarely the less is left."""
        every_n_epochs *= self._rarer
        if not self.is_open or every_n_epochs == 0 or epochs % every_n_epochs:
            return False
        left = 1 - self.megabytes / self.max_megabytes if self.max_megabytes else 0.0
        if left <= 0:
            return False
        thinning: int = 2 ** math.floor(-math.log2(left))
        if thinning > 1:
            self._tell(
                f"TensorBoard's pictures take {self.megabytes:.1f} of at most {self.max_megabytes:g} MB: from now on "
                "pictures are drawn more rarely; give the callback Board a larger max_megabytes for all of them"
            )
        turn = epochs // every_n_epochs
        return turn % thinning == 0

    def image(self, tag: str, picture: NDArray[np.uint8]) -> None:
        """Writes one picture, uint8, shape (H, W) or (H, W, 3)."""
        height, width = picture.shape[:2]
        channels = 1 if picture.ndim == 2 else 3
        content = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encode(picture))
        self.summary(Summary(value=[Summary.Value(tag=tag, image=content)]))

    def text(self, tag: str, markdown: str) -> None:
        """Writes a card of the Text tab."""
        self.summary(messages.text(tag, markdown))  # type: ignore[no-untyped-call]

    def pr_curve(self, tag: str, truth: NDArray[np.bool_], probability: NDArray[np.float32]) -> None:
        """Writes a precision-recall curve of one class against the rest; both of shape (n,)."""
        self.summary(messages.pr_curve(tag, truth, probability, 51))  # type: ignore[no-untyped-call]

    def layout(self, charts: dict[str, dict[str, list[Any]]]) -> None:
        """Writes what the Custom Scalars tab shows, whatever was spent."""
        self.write(messages.custom_scalars(charts))  # type: ignore[no-untyped-call]

    def summary(self, summary: Any) -> None:
        """Writes any of TensorBoard's messages but scalars."""
        if self.spend(summary.ByteSize()):
            self.write(summary)

    def write(self, summary: Any) -> None:
        """Writes a message whatever was spent."""
        # add_image and its like go the same way; between a fit and a test of one Trainer the file is closed
        self.writer._get_file_writer().add_summary(summary, self.step)

    def spend(self, count: int) -> bool:
        """Takes ``count`` bytes out of the budget; False where they are not there."""
        if self._bytes() + count > self.max_megabytes * MEGABYTE:
            if self.max_megabytes:
                self._tell(
                    f"TensorBoard's pictures take {self.megabytes:.1f} of at most {self.max_megabytes:g} MB: a picture "
                    "was left out; give the callback Board a larger max_megabytes for all of them"
                )
            return False
        self._spent = self._bytes() + count
        self._drawn += 1
        return True

    def scalar(self, tag: str, value: float) -> None:
        """Writes one number, whatever was spent."""
        self.writer.add_scalar(tag, value, self.step)

    @property
    def writer(self) -> Any:
        """TensorBoard's own writer, on rank zero."""
        assert self._logger is not None
        return self._logger.experiment

    def _bytes(self) -> int:
        if self._spent is None:  # a test goes on spending what the training left
            files = self.directory.rglob("*") if self.directory.is_dir() else []
            kinds = ("events.out.tfevents.", "tensors.tsv", "metadata.tsv", "sprite.png")
            self._spent = sum(file.stat().st_size for file in files if file.name.startswith(kinds))
        return self._spent

    def _tell(self, line: str) -> None:
        """Says a line once, however often its figures change."""
        kind = line.rpartition(": ")[2]
        if kind not in self._told:
            self._told.add(kind)
            _say(log.warning, line)


@rank_zero_only
def _say(say: Callable[[str], None], line: str) -> None:
    say(line)


def board_of(trainer: Trainer) -> Board:
    """The trainer's `Board`; one with the default budget is added where the user gave none."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, Board):
            return callback
    board = Board()
    callbacks.append(board)
    return board
