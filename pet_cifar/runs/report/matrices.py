"""Confusion matrices and their differences, drawn for few classes and for many."""

import base64
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pet_cifar.callbacks.images.drawing import encode, shorten
from pet_cifar.names import printable
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.report.svg import Svg

MOST_NUMBERS = 12
"""The number of classes up to which each cell has its number."""
MOST_DRAWN = 200
"""The number of classes up to which a matrix is drawn; one of more would have cells smaller than a dot."""
SIDE, MARGIN, HEAD = 300.0, 62.0, 20.0
LETTERS = 13
"""The size by which names are shortened; letters have 11, but the fonts of some systems are wide."""
POSITIVE, NEGATIVE = (18, 102, 188), (217, 102, 10)
"""The colors of shares and of what is more, and of what is less; they are readable on light and on dark."""


class Mistake(NamedTuple):
    """Two classes that are taken for each other.

    Attributes:
        label, predicted: The true class and the one that it is taken for.
        shares: The share of the class's pictures on which each experiment makes the mistake.
    """

    label: str
    predicted: str
    shares: list[float]


def shares(one: Experiment) -> NDArray[np.float64]:
    """The share of each class's pictures (rows) that are taken for each class (columns), on the mean over the runs."""
    total = np.sum([run.confusions for run in one.runs], axis=0)
    return np.asarray(total / np.maximum(total.sum(1, keepdims=True), 1))


def matrix(one: Experiment) -> Svg | None:
    """The confusion matrix of an experiment; None for too many classes."""
    label = (
        f"Confusion matrix of {one.name}: rows are the true classes, columns the predicted ones, in percent of a row"
    )
    return _drawn(shares(one), one.runs[0].class_names, label, is_difference=False)


def difference(first: Experiment, second: Experiment) -> Svg | None:
    """The matrix of the first less that of the second, in points; None for too many classes."""
    label = f"Confusion matrix of {first.name} less that of {second.name}, in points"
    return _drawn(shares(first) - shares(second), first.runs[0].class_names, label, is_difference=True)


def mistakes(experiments: Sequence[Experiment], most: int) -> list[Mistake]:
    """The pairs of classes that are taken for each other most often, by the experiment that does so most."""
    names = experiments[0].runs[0].class_names
    found = np.array([shares(one) for one in experiments])
    found[:, np.arange(len(names)), np.arange(len(names))] = 0
    highest = found.max(0)
    order = np.argsort(-highest, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(names)) for place in order]
    return [
        Mistake(names[row], names[column], found[:, row, column].tolist())
        for row, column in places
        if highest[row, column] > 0
    ]


def _drawn(values: NDArray[np.float64], names: Sequence[str], label: str, *, is_difference: bool) -> Svg | None:
    if len(names) > MOST_DRAWN:
        return None
    # Where most pictures are right, only the scale of the mistakes tells them apart.
    top = float(np.abs(values).max()) or 1.0 if is_difference else 1.0
    if len(names) > MOST_NUMBERS:
        return _as_picture(values / top, label)
    sheet = Svg(SIDE + MARGIN, SIDE + HEAD + 4, label)
    cell = SIDE / len(names)
    for row, name in enumerate(names):
        middle = (row + 0.5) * cell
        sheet.text((MARGIN - 5, HEAD + middle + 4), shorten(name, int(MARGIN - 6), LETTERS), "small", "end", title=name)
        short = shorten(name, int(cell - 2), LETTERS)
        sheet.text((MARGIN + middle, HEAD - 6), short, "small", "middle", title=name)
        for column, other in enumerate(names):
            value = float(values[row, column])
            corner = (MARGIN + column * cell, HEAD + row * cell)
            words = f"{name} taken for {other}: {100 * value:{'+.2f' if is_difference else '.2f'}}"
            words += " points" if is_difference else " %"
            # The root of a share lets rare mistakes be seen, too.
            css = "less" if value < 0 else "more"
            sheet.box(corner, (cell - 1, cell - 1), css, words, opacity=0.8 * math.sqrt(abs(value) / top))
            shown = f"{100 * value:{'+.0f' if is_difference else '.0f'}}"
            if abs(value) >= 0.005:
                place = (corner[0] + cell / 2, corner[1] + cell / 2 + 4)
                sheet.text(place, shown, "cell", "middle")
    return sheet


def _as_picture(values: NDArray[np.float64], label: str) -> Svg:
    """A matrix of many classes as one picture of a pixel for each cell, transparent where nothing is."""
    pixels = np.zeros((*values.shape, 4), np.uint8)
    pixels[..., :3] = np.where(values[..., None] < 0, NEGATIVE, POSITIVE)
    pixels[..., 3] = np.round(255 * np.sqrt(np.abs(values)))
    sheet = Svg(SIDE, SIDE, label)
    sheet.add("rect", {"x": 0, "y": 0, "width": SIDE, "height": SIDE, "class": "frame"}, printable(label))
    address = f"data:image/png;base64,{base64.b64encode(encode(pixels)).decode()}"
    sheet.add("image", {"href": address, "x": 0, "y": 0, "width": SIDE, "height": SIDE, "class": "pixels"})
    return sheet
