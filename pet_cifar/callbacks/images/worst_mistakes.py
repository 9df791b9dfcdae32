"""Where the net is most certain and wrong: hard pictures, and wrong labels."""

import torch

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.images.base import Drawn, ImageCallback, escape, title_of
from pet_cifar.callbacks.images.drawing import channels_last, grid, in_rows
from pet_cifar.callbacks.images.inspection import take
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.training.classifier import ImageClassifier

ACROSS = 4


class WorstMistakes(ImageCallback):
    """Draws the wrong pictures of validation and test with the highest probability of the wrong class.

    Each with label, prediction, its probability and the file's name; whole paths are in the Text tab.

    Args:
        most: how many.
        every_n_epochs: 1 or more; 0 draws only at the end.
        side: of a picture in the drawing, in pixels; larger ones are reduced.
    """

    shows_scores = True

    def __init__(self, most: int = 12, every_n_epochs: int = 5, side: int = 128) -> None:
        super().__init__(every_n_epochs)
        self._at_least_one(most=most, side=side)
        self.most = most
        self.side = side

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: Drawn, when: str) -> None:
        """Draws ``worst_mistakes/<split>`` and lists the files."""
        scores = board.scores
        assert scores is not None
        wrong = (scores.prediction != scores.label).nonzero().squeeze(1)
        worst = wrong[torch.argsort(scores.confidence[wrong], descending=True, stable=True)][: self.most]
        title = title_of("most confident mistakes", split, when)
        if not len(worst):
            board.text(f"worst_mistakes/{split}", f"{title}: no mistake in {len(scores.row):,} pictures")
            return
        captions, lines = [], []
        for place in worst.tolist():
            file = data.splits[split][int(scores.row[place])].path
            label, said = (data.class_names[int(kind[place])] for kind in (scores.label, scores.prediction))
            share = 100 * float(scores.confidence[place])
            captions.append([f"is {label}", f"said {said} {share:.1f} %", file.rpartition("/")[2]])
            lines.append(f"| {escape(file)} | {escape(label)} | {escape(said)} | {share:.1f} % |")
        pictures = [channels_last(one.numpy()) for one in take(data, split, scores.row[worst].numpy())]
        sheet = grid(
            title,
            in_rows(pictures, ACROSS),
            side=self.side,
            subtitle=f"{len(worst)} of {len(wrong):,} wrong in {len(scores.row):,} pictures",
            captions=in_rows(captions, ACROSS),
            gap=8,
        )
        board.image(f"worst_mistakes/{split}", sheet)
        heading = f"{title}; files below {escape(str(data.root))}"
        table = f"{heading}\n\n| file | label | prediction | probability |\n| --- | --- | --- | --- |"
        board.text(f"worst_mistakes/{split}", "\n".join([table, *lines]))
