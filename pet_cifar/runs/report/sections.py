"""The parts of a report that are drawings: which there are, what they leave out, and how to read them."""

from collections.abc import Sequence
from typing import NamedTuple

from pet_cifar.runs.comparison import Comparison
from pet_cifar.runs.misleading import reasons_against
from pet_cifar.runs.report import charts, matrices
from pet_cifar.runs.report.charts import MOST_BARS, MOST_CLASSES, Series, Styled, percent
from pet_cifar.runs.report.svg import Style, Svg

MOST_PAIRS = 12
"""The number of differences in the chart of differences."""
MOST_MATRICES = 4
"""The number of experiments whose confusion matrices are drawn."""


class Figure(NamedTuple):
    """A drawing and the sentence below it."""

    svg: Svg
    caption: str


class Section(NamedTuple):
    """One part of the page with drawings.

    Attributes:
        title: Its heading.
        text: How to read it, and what is left out.
        figures: The drawings.
        legend: The names and looks that are explained above them.
        is_small: Whether the drawings are small ones that stand side by side.
    """

    title: str
    text: str
    figures: list[Figure]
    legend: list[tuple[str, Style]]
    is_small: bool = False


def sections_of(shown: Sequence[Styled]) -> list[Section]:
    """The sections that have something to show, in the order of the page.

    Args:
        shown: The experiments, the most accurate first; as many as can be told apart.
    """
    found = (_curves(shown), _costs(shown), _classes(shown), _confusions(shown), _reliability(shown))
    return [one for one in found if one.figures]


def overview(found: Comparison, shown: Sequence[Styled]) -> list[Figure]:
    """The charts that belong to the verdicts: the accuracies, and the differences of the pairs."""
    kinds = {one.noise: len(one.runs) for one, _ in shown}
    text = f"Test accuracy with its 95 % interval over the {' or the '.join(kinds)}, as the table says."
    if max(kinds.values()) > 1:
        text += " Small dots are seeds."
    own = Figure(charts.accuracies(shown), text)
    pairs = [verdict for verdict in found.verdicts if verdict.difference is not None]
    of_pairs = charts.differences(pairs[:MOST_PAIRS])
    if of_pairs is None:
        return [own]
    more = f" {len(pairs) - MOST_PAIRS} more pairs are in the list." if len(pairs) > MOST_PAIRS else ""
    text = (
        "Difference of two accuracies in points with the 95 % interval of this pair alone. A star marks those that are "
        "better, with all pairs and all looks after further seeds counted."
    )
    return [own, Figure(of_pairs, text + more)]


def comparable(shown: Sequence[Styled]) -> list[Styled]:
    """The experiments that can be compared with the first picture by picture, and itself."""
    first = shown[0]
    others = shown[1:]
    return [first, *(one for one in others if not reasons_against(first.experiment.runs[0], one.experiment.runs[0]))]


def _legend(shown: Sequence[Styled]) -> list[tuple[str, Style]]:
    return [(one.name, style) for one, style in shown]


def _curves(shown: Sequence[Styled]) -> Section:
    if len(shown) == 1:
        one = shown[0].experiment
        lines = [("validation", Style(0), one, "val"), ("training", Style(1), one, "train")]
    else:
        lines = [(one.name, style, one, "val") for one, style in shown]
    figures = []
    for metric, words in (("loss", "loss"), ("acc", "accuracy")):
        series = [
            Series(name, style, [run.curves[key] for run in one.runs if (key := f"{split}/{metric}") in run.curves])
            for name, style, one, split in lines
        ]
        words = words if len(shown) == 1 else f"validation {words}"
        if svg := charts.curves(series, words, is_share=metric == "acc"):
            figures.append(Figure(svg, words))
    text = "Thick lines are the mean of the seeds, and thin lines the seeds."
    if len(shown) > charts.MOST_WITH_SEEDS:
        text = "Each line is the mean of the seeds."
    elif all(len(one.runs) == 1 for one, _ in shown):
        text = "Each line is one run."
    return Section("Training", text, figures, [(name, style) for name, style, *_ in lines])


def _costs(shown: Sequence[Styled]) -> Section:
    figures = []
    plans = (("training seconds", ("train_seconds",)), ("parameters", ("net", "parameters")))
    for words, keys in plans if len(shown) > 1 else ():
        if svg := charts.accuracy_against(shown, keys, words):
            unknown = sum(1 for one, _ in shown if one.recorded(*keys) is None)
            more = f"; not known of {unknown} experiment{'s' if unknown > 1 else ''}" if unknown else ""
            figures.append(Figure(svg, f"test accuracy against {words}{more}"))
    text = "The bars are the 95 % intervals. Seconds on other hardware cannot be compared."
    return Section("Accuracy and its cost", text, figures, _legend(shown))


def _classes(shown: Sequence[Styled]) -> Section:
    same = comparable(shown)
    bars = same[:MOST_BARS]
    classes = charts.classes_for_bars([one for one, _ in bars])
    total = len(same[0].experiment.runs[0].class_names)
    text = "A thin line is the 95 % interval over the pictures of the class."
    if len(classes) < min(total, MOST_CLASSES):
        text += f" {total - len(classes)} of {total} classes have no test pictures."
    elif len(classes) < total:
        which = "those on which the experiments differ most" if len(bars) > 1 else "the worst"
        text += f" {len(classes)} of {total} classes are shown: {which}."
    if len(same) > MOST_BARS:
        text += f" The {MOST_BARS} most accurate of {len(same)} experiments are shown."
    figures = [Figure(charts.class_bars(bars, classes), "test accuracy of each class")]
    return Section("Classes", text + _others(shown), figures, _legend(bars))


def _confusions(shown: Sequence[Styled]) -> Section:
    same = comparable(shown)
    best, figures = same[0].experiment, []
    for one, _ in same[:MOST_MATRICES]:
        if svg := matrices.matrix(one):
            figures.append(Figure(svg, f"{one.name}, in percent"))
        if one is not best and (svg := matrices.difference(best, one)):
            figures.append(Figure(svg, f"{best.name} less {one.name}, in points"))
    count = len(best.runs[0].class_names)
    text = "Rows are the true classes and columns the predicted ones; the shares of a row add up to 100 %."
    if count > matrices.MOST_NUMBERS:
        text += f" Each dot is one of {count} x {count} cells, in the order of the classes."
    if len(same) > 1:
        text += (
            " A difference is blue where the first has more, which is good on the diagonal, and orange where it has "
            "less, which is good elsewhere."
        )
    if len(same) > MOST_MATRICES:
        text += f" The {MOST_MATRICES} most accurate of {len(same)} experiments are shown."
    return Section("Confusions", text + _others(shown), figures, [], is_small=True)


def _reliability(shown: Sequence[Styled]) -> Section:
    figures = [
        Figure(
            charts.reliability(one, style), f"{one.name}: calibration error {percent(charts.calibration_error(one))}"
        )
        for one, style in shown
    ]
    text = (
        "How often predictions of some confidence are right: on the dashed line as often as they say, below it less "
        "often. Gray bars are how many predictions there are."
    )
    if any(len(one.runs) > 1 for one, _ in shown):
        text += " The predictions of all seeds are drawn together."
    return Section("Reliability", text, figures, [], is_small=True)


def _others(shown: Sequence[Styled]) -> str:
    count = len(shown) - len(comparable(shown))
    if not count:
        return ""
    return f" {count} with other classes or test pictures than the first {'is' if count == 1 else 'are'} left out."
