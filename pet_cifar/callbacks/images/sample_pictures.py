"""What the net is given to learn from."""

from typing import Any

from lightning import LightningModule, Trainer

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import Drawn, ImageCallback
from pet_cifar.callbacks.images.drawing import channels_last, grid, in_rows
from pet_cifar.callbacks.images.inspection import balanced_rows, take
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.training.classifier import ImageClassifier

ACROSS = 8


class SamplePictures(ImageCallback):
    """Draws training pictures of every class, and the first batch that the net receives, augmented as it is.

    Args:
        per_class: pictures of each class.
        batch: pictures of the first batch.
        side: of a picture in the drawing, in pixels; larger ones are reduced.
    """

    def __init__(self, per_class: int = 8, batch: int = 24, side: int = 64) -> None:
        super().__init__(every_n_epochs=0)
        self._at_least_one(per_class=per_class, batch=batch, side=side)
        self.per_class = per_class
        self.batch = batch
        self.side = side
        self._batch: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts anew."""
        super().setup(trainer, pl_module, stage)
        self._batch = None
        self._done = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draws the first batch, before it is changed by anything."""
        if not self._done:
            self._done = True
            self._batch = batch
            if batch.features:
                data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
                rows = batch.row[: self.batch].cpu().numpy()
                self._batch = batch._replace(image=data.view("train", rows, data.view_of(trainer.current_epoch)))
            self._draw(trainer, pl_module, "val", "")
            self._batch = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws nothing: the pictures are the same."""

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: Drawn, when: str) -> None:
        """Draws ``sample_pictures`` at the start and ``training_batch`` with the first batch."""
        labels = data.labels("train")
        if self._batch is None:
            # more classes than fit on a sheet are not all shown
            names = data.class_names[:25]
            rows = balanced_rows(labels, self.per_class * data.num_classes, data.split_seed)
            by_class = [rows[labels[rows] == number][: self.per_class] for number in range(len(names))]
            shown = "" if len(names) == data.num_classes else f"{len(names)} of "
            sheet = grid(
                "training pictures as they are",
                [[channels_last(one.numpy()) for one in take(data, "train", own)] for own in by_class],
                side=self.side,
                subtitle=f"{len(labels):,} in {shown}{data.num_classes} classes, {data.image_size} x {data.image_size}",
                row_labels=names,
            )
            board.image("sample_pictures", sheet)
            return
        images = (self._batch.image[: self.batch].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
        pictures = [channels_last(one) for one in images]
        captions = [[data.class_names[label]] for label in self._batch.label[: self.batch].tolist()]
        changed = "augmented" if data.augment else "not augmented"
        seen = "the net's frozen part" if self._batch.features else "the net"
        sheet = grid(
            f"the first training batch, as {seen} receives it",
            in_rows(pictures, ACROSS),
            side=self.side,
            subtitle=f"{len(pictures)} of {len(self._batch.label)} pictures, {changed}",
            captions=in_rows(captions, ACROSS),
        )
        board.image("training_batch", sheet)
