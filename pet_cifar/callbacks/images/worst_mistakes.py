"""Shows where the net is most certain and wrong, which finds hard pictures and wrong labels."""

import torch

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, escape, title_of
from pet_cifar.callbacks.images.drawing import channels_last, grid, in_rows
from pet_cifar.callbacks.images.inspection import pictures_of
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.names import printable
from pet_cifar.training.classifier import ImageClassifier

ACROSS = 4


class WorstMistakes(ImageCallback):
    """Draws the pictures of validation and test whose wrong class got the highest probability.

    Each is shown with its label, the predicted class, its probability and the file's name. The Text tab has the whole
    paths.

    Args:
        most: The largest number of pictures.
        every_n_epochs: The number of epochs between two drawings; 0 draws only at the end.
            Null is 5 where drawing takes at most a twentieth of the time.
        side: The side of a picture in the drawing, in pixels; larger ones are reduced.
    """

    shows_predictions = True

    usual_epochs = 5

    def __init__(self, most: int = 12, every_n_epochs: int | None = None, side: int = 128) -> None:
        super().__init__(every_n_epochs)
        self._check_at_least_one(most=most, side=side)
        self.most = most
        self.side = side

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Draws ``mistakes/<split>``, and lists the files there in the Text tab."""
        predictions = board.predictions
        assert predictions is not None
        wrong = (predictions.predicted != predictions.label).nonzero().squeeze(1)
        worst = wrong[torch.argsort(predictions.confidence[wrong], descending=True, stable=True)][: self.most]
        title = title_of("most confident mistakes", split, when)
        if not len(worst):
            board.text(f"mistakes/{split}", f"{title}: no mistake in {len(predictions.row):,} pictures")
            return
        captions, lines = [], []
        for index in worst.tolist():
            file = printable(data.splits[split][int(predictions.row[index])].path)
            label = data.class_names[int(predictions.label[index])]
            predicted = data.class_names[int(predictions.predicted[index])]
            percent = f"{100 * float(predictions.confidence[index]):.1f} %"
            captions.append([f"is {label}", f"said {predicted} {percent}", file.rpartition("/")[2]])
            lines.append(f"| {escape(file)} | {escape(label)} | {escape(predicted)} | {percent} |")
        images = pictures_of(data, split, predictions.row[worst].numpy())
        sheet = grid(
            title,
            in_rows([channels_last(image.numpy()) for image in images], ACROSS),
            side=self.side,
            subtitle=f"{len(worst)} of {len(wrong):,} wrong in {len(predictions.row):,} pictures",
            captions=in_rows(captions, ACROSS),
            gap=8,
        )
        board.image(f"mistakes/{split}", sheet)
        heading = f"{title}; files below {escape(str(data.root))}"
        table = f"{heading}\n\n| file | label | prediction | probability |\n| --- | --- | --- | --- |"
        board.text(f"mistakes/{split}", "\n".join([table, *lines]))
