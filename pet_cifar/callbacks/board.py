"""The run's page in TensorBoard: one writer, one budget in bytes and one set of predictions for all pictures."""

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

from pet_cifar.callbacks.drawing_time import LARGEST_SHARE, DrawingTime
from pet_cifar.callbacks.images.drawing import encode
from pet_cifar.callbacks.predictions import PredictionCollector, Predictions
from pet_cifar.errors import InputError
from pet_cifar.names import lines_without_codes

log = logging.getLogger(__name__)
MEGABYTE = 1_000_000


class Board(Callback):
    """Writes what the image callbacks draw as long as it fits into the budget, and logs how much was spent.

    Scalars are always written. Once half of the budget is spent, only every second picture is drawn, after three
    quarters every fourth, and so on; what no longer fits is left out. Only rank zero writes.

    Args:
        max_megabytes: The most that all pictures of a run may take together, in 10^6 bytes. 0 draws no pictures. Null
            is 50, or for a checkpoint what its run had.

    Attributes:
        step: The training step that everything is written for.
        predictions: The predictions of the last validation or test on all processes; None before the first.
        predicted_step: The training step that ``predictions`` belong to.
        time: Counts the seconds of the run and of its drawing.
        goes_on: Whether the run goes on in its own directory, which holds what is drawn and written at the start.
    """

    def __init__(self, max_megabytes: float | None = None) -> None:
        if max_megabytes is not None and not max_megabytes >= 0:
            raise InputError(f"Board's max_megabytes is {max_megabytes}; it is 0 (no pictures) or more")
        self._follows_checkpoint = max_megabytes is None
        self.max_megabytes = 50.0 if max_megabytes is None else max_megabytes
        self.step = self.predicted_step = 0
        self.predictions: Predictions | None = None
        self._collector = PredictionCollector()
        self._logger: TensorBoardLogger | None = None
        self._bytes_spent: int | None = None
        self._num_written = 0
        self._warned: set[str] = set()
        self._collects = False
        self.time = DrawingTime()
        self._step_of_checkpoint: int | None = None
        self.goes_on = False

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the TensorBoard logger, and warns where there is none."""
        self._collector = PredictionCollector()
        self.predictions = None
        self.predicted_step = 0
        self._step_of_checkpoint = None
        self.time = DrawingTime()
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        # Where nothing shows predictions, there is no need to gather them from all processes.
        self._collects = any(getattr(callback, "shows_predictions", False) for callback in callbacks)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not loggers and stage != "predict" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._warn_once("no pictures are drawn: they need a TensorBoardLogger, and this run has none")
        if not loggers or loggers[0] is not self._logger:
            self._bytes_spent = None
        self._logger = loggers[0] if loggers else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the run."""
        self.time.start()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remembers the step that the checkpoint was saved at, because a test knows no other."""
        self._step_of_checkpoint = checkpoint["global_step"]

    def state_dict(self) -> dict[str, Any]:
        """Keeps the budget for a test of the checkpoint, and the time of drawing for a run that goes on."""
        return {"max_megabytes": self.max_megabytes, "time": self.time.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the budget of the checkpoint's run, unless the user has set another."""
        if self._follows_checkpoint:
            self.max_megabytes = state_dict["max_megabytes"]
        if "time" in state_dict:  # Checkpoints of earlier versions have none.
            self.time.load_state_dict(state_dict["time"])

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keeps the batch's probabilities."""
        if self._collects and self._logger and not trainer.sanity_checking:
            self._collector.add(outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gathers the predictions of all processes before the image callbacks draw them."""
        if not self._collects or not self._logger or trainer.sanity_checking:
            return
        self.predictions = self._without_nans(self._collector.collect())
        self.predicted_step = trainer.global_step
        if trainer.state.fn != "fit" and self._step_of_checkpoint is not None:
            self.predicted_step = self._step_of_checkpoint

    def _without_nans(self, predictions: Predictions | None) -> Predictions | None:
        """Leaves out pictures whose probabilities are not numbers, and warns about them."""
        if predictions is None:
            return None
        usable = predictions.probabilities.isfinite().all(1)
        if usable.all():
            return predictions
        self._warn_once(
            f"{int((~usable).sum())} of {len(usable)} pictures have probabilities that are not numbers: they are left "
            "out of the drawings; a smaller learning rate helps against it"
        )
        columns = (None if column is None else column[usable] for column in predictions)
        return Predictions(*columns) if usable.any() else None  # type: ignore[arg-type]

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_test_epoch_end = on_validation_epoch_end

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Logs how much of the budget was spent, and how often drawing had to wait."""
        self.time.stop()
        if stage == "fit" and self.time.num_left_out and self._num_written:
            aim = f"to keep to {100 * LARGEST_SHARE:g} %"
            if self.time.share > LARGEST_SHARE:
                aim = f"since the first and the last ones alone take more than {100 * LARGEST_SHARE:g} % of a short run"
            _log_on_rank_zero(
                log.info,
                f"TensorBoard's pictures took {100 * self.time.share:.1f} % of the time; {self.time.num_left_out} of "
                f"{self.time.num_drawn + self.time.num_left_out} drawings were left out {aim}; give a callback "
                "every_n_epochs for all of its own",
            )
        if self._bytes_spent and self._num_written and stage == "fit":
            _log_on_rank_zero(
                log.info, f"TensorBoard's pictures take {self.megabytes:.1f} of at most {self.max_megabytes:g} MB"
            )
        self._collector = PredictionCollector()
        self.predictions = None

    # What image callbacks use

    @property
    def is_open(self) -> bool:
        """Whether the run has a TensorBoard logger."""
        return self._logger is not None

    @property
    def directory(self) -> Path:
        """The run directory."""
        assert self._logger is not None
        return Path(self._logger.log_dir)

    @property
    def megabytes(self) -> float:
        """What the run's pictures take so far, in 10^6 bytes."""
        return self._count_bytes() / MEGABYTE

    def is_due(self, every_n_epochs: int, epochs: int) -> bool:
        """Whether to draw after ``epochs`` epochs; the less of the budget is left, the more rarely it is True."""
        if not self.is_open or every_n_epochs == 0 or epochs % every_n_epochs:
            return False
        share_left = 1 - self.megabytes / self.max_megabytes if self.max_megabytes else 0.0
        if share_left <= 0:
            return False
        thinning: int = 2 ** math.floor(-math.log2(share_left))
        if thinning > 1:
            self._warn_once(
                f"TensorBoard's pictures take {self.megabytes:.1f} of at most {self.max_megabytes:g} MB: from now on "
                "pictures are drawn more rarely; give the callback Board a larger max_megabytes for all of them"
            )
        return epochs // every_n_epochs % thinning == 0

    def image(self, tag: str, picture: NDArray[np.uint8]) -> None:
        """Writes one picture, uint8, shape (H, W) or (H, W, 3)."""
        height, width = picture.shape[:2]
        channels = 1 if picture.ndim == 2 else 3
        content = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encode(picture))
        self.add(Summary(value=[Summary.Value(tag=tag, image=content)]))

    def text(self, tag: str, markdown: str) -> None:
        """Writes a card of the Text tab; a name in it may be a stranger's."""
        self.add(messages.text(tag, lines_without_codes(markdown)))  # type: ignore[no-untyped-call]

    def pr_curve(self, tag: str, truth: NDArray[np.bool_], probability: NDArray[np.float32]) -> None:
        """Writes the precision-recall curve of one class against the rest; both arrays have the shape (n,)."""
        self.add(messages.pr_curve(tag, truth, probability, 51))  # type: ignore[no-untyped-call]

    def add(self, message: Any) -> None:
        """Writes one of TensorBoard's messages if it fits into the budget."""
        if self.spend(message.ByteSize()):
            self.write(message)

    def spend(self, count: int) -> bool:
        """Takes ``count`` bytes out of the budget; returns False where they are not left."""
        if self._count_bytes() + count > self.max_megabytes * MEGABYTE:
            if self.max_megabytes:
                self._warn_once(
                    f"TensorBoard's pictures take {self.megabytes:.1f} of at most {self.max_megabytes:g} MB: a picture "
                    "was left out; give the callback Board a larger max_megabytes for all of them"
                )
            return False
        self._bytes_spent = self._count_bytes() + count
        self._num_written += 1
        return True

    def write(self, message: Any) -> None:
        """Writes one of TensorBoard's messages without looking at the budget."""
        # SummaryWriter's own add_image does the same, and opens the file again where it was closed after a fit.
        self.writer._get_file_writer().add_summary(message, self.step)

    def layout(self, charts: dict[str, dict[str, list[Any]]]) -> None:
        """Writes what the Custom Scalars tab shows, without looking at the budget."""
        self.write(messages.custom_scalars(charts))  # type: ignore[no-untyped-call]

    def scalar(self, tag: str, value: float) -> None:
        """Writes one number, without looking at the budget."""
        self.writer.add_scalar(tag, value, self.step)

    @property
    def writer(self) -> Any:
        """TensorBoard's own writer, on rank zero."""
        assert self._logger is not None
        return self._logger.experiment

    def _count_bytes(self) -> int:
        if self._bytes_spent is None:  # A test goes on spending what the training left, so the files are counted.
            files = self.directory.rglob("*") if self.directory.is_dir() else []
            prefixes = ("events.out.tfevents.", "tensors.tsv", "metadata.tsv", "sprite.png")
            self._bytes_spent = sum(file.stat().st_size for file in files if file.name.startswith(prefixes))
        return self._bytes_spent

    def _warn_once(self, line: str) -> None:
        """Logs a warning once, however often the figures in its first part change."""
        kind = line.rpartition(": ")[2]
        if kind not in self._warned:
            self._warned.add(kind)
            _log_on_rank_zero(log.warning, line)


@rank_zero_only
def _log_on_rank_zero(write: Callable[[str], None], line: str) -> None:
    write(line)


def board_of(trainer: Trainer) -> Board:
    """The trainer's `Board`; where the user gave none, one with the default budget is added."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, Board):
            return callback
    board = Board()
    callbacks.append(board)
    return board
