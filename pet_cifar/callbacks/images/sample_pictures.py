"""Shows what the net is given to learn from."""

from typing import Any

from lightning import LightningModule, Trainer

from pet_cifar.callbacks.board import Board, board_of
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback
from pet_cifar.callbacks.images.drawing import PixelArray, channels_last, grid, in_rows
from pet_cifar.callbacks.images.inspection import balanced_rows, pictures_of
from pet_cifar.data.datamodule import ImageDataModule, image_data_of
from pet_cifar.data.loader import Batch, FeatureBatch
from pet_cifar.training.classifier import ImageClassifier

ACROSS = 8
MOST_CLASSES = 25
"""The number of classes, from the first on, that fit on a sheet."""


class SamplePictures(ImageCallback):
    """Draws training pictures of every class, and the first batch with the augmentation that the net sees.

    Args:
        per_class: The number of pictures of each class.
        batch: The number of pictures of the first batch.
        side: The side of a picture in the drawing, in pixels; larger ones are reduced.
    """

    def __init__(self, per_class: int = 8, batch: int = 24, side: int = 64) -> None:
        super().__init__(every_n_epochs=0)
        self._check_at_least_one(per_class=per_class, batch=batch, side=side)
        self.per_class = per_class
        self.batch = batch
        self.side = side
        self._batch: Batch | FeatureBatch | None = None
        self._view = 0
        self._batch_is_drawn = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepares for the first batch of a run."""
        super().setup(trainer, pl_module, stage)
        self._batch_is_drawn = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draws the first batch, before mixing or anything else changes it."""
        data = image_data_of(trainer)
        is_later = board_of(trainer).goes_on and trainer.global_step > 0
        if self._batch_is_drawn or data is None or is_later:
            return
        self._batch_is_drawn = True
        self._batch, self._view = batch, data.view_of(trainer.current_epoch)
        self._draw(trainer, pl_module, "val", "")
        self._batch = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws nothing, because the pictures have not changed."""

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Draws ``sample_pictures`` at the start and ``training_batch`` with the first batch."""
        if self._batch is None:
            board.image("sample_pictures", sample_sheet(data, self.per_class, self.side))
        else:
            board.image("training_batch", self._first_batch(data, self._batch))

    def _first_batch(self, data: ImageDataModule, batch: Batch | FeatureBatch) -> PixelArray:
        if isinstance(batch, FeatureBatch):  # The pictures that the features were computed from are made anew.
            receiver = "the net's frozen part"
            image = data.view("train", batch.row[: self.batch].cpu().numpy(), self._view)
        else:
            receiver, image = "the net", batch.image[: self.batch]
        images = (image.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
        captions = [[data.class_names[label]] for label in batch.label[: self.batch].tolist()]
        return grid(
            f"the first training batch, as {receiver} receives it",
            in_rows([channels_last(one) for one in images], ACROSS),
            side=self.side,
            subtitle=f"{len(images)} of {len(batch.label)} pictures, {'' if data.augment else 'not '}augmented",
            captions=in_rows(captions, ACROSS),
        )


def sample_sheet(data: ImageDataModule, per_class: int = 8, side: int = 64) -> PixelArray:
    """Draws training pictures of every class as they are, one class in each row.

    Args:
        data: The data module, set up for training.
        per_class: The number of pictures of each class.
        side: The side of a picture in the drawing, in pixels.
    """
    labels = data.labels("train")
    names = data.class_names[:MOST_CLASSES]
    rows = balanced_rows(labels, per_class * data.num_classes, data.split_seed)
    by_class = [rows[labels[rows] == number][:per_class] for number in range(len(names))]
    shown = "" if len(names) == data.num_classes else f"{len(names)} of "
    return grid(
        "training pictures as they are",
        [[channels_last(image.numpy()) for image in pictures_of(data, "train", own)] for own in by_class],
        side=side,
        subtitle=f"{len(labels):,} in {shown}{data.num_classes} classes, {data.image_size} x {data.image_size}",
        row_labels=names,
    )
