"""The charts of a report: pure functions of experiments and verdicts."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pet_cifar.callbacks.images.calibration import bin_by_confidence
from pet_cifar.callbacks.images.drawing import shorten
from pet_cifar.runs.comparison import Verdict
from pet_cifar.runs.curves import Curve
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.report.svg import COLORS, Point, Scale, Style, Svg, scale_of
from pet_cifar.training.ridge import wilson_interval

WIDTH, HEIGHT = 380.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 42.0
NAMES = 118.0
"""The room for names at the left of a chart of rows."""
LETTERS = 14
"""The size by which names are shortened; letters have 12, but the fonts of some systems are wide."""
MOST_POINTS = 200
"""The number of points of a curve that are drawn."""
MOST_WITH_SEEDS = 6
"""The number of experiments up to which the curve of each seed is drawn, too."""
BINS = 15
"""The bins of a reliability diagram, as many as the calibration error of a test has."""
MOST_CLASSES = 20
"""The number of classes that have bars."""
MOST_BARS = 4
"""The number of experiments that have bars."""


class Styled(NamedTuple):
    """An experiment and how it looks, which is the same in every drawing of a page."""

    experiment: Experiment
    style: Style


class Series(NamedTuple):
    """The curves of one experiment, or of one split.

    Attributes:
        name: Its name.
        style: How it looks.
        curves: The curve of each run.
    """

    name: str
    style: Style
    curves: list[Curve]


def percent(share: float) -> str:
    """A share as percent with two digits."""
    return f"{100 * share:.2f} %"


def accuracies(shown: Sequence[Styled]) -> Svg:
    """The test accuracy of each experiment with its interval, and a dot for each seed."""
    experiments = [one for one, _ in shown]
    values = [value for one in experiments for value in (one.accuracy.low, one.accuracy.high)]
    values += [run.accuracy for one in experiments for run in one.runs]
    scale = scale_of(values, NAMES + 8, WIDTH - 74, limits=(0, 1))
    said = "; ".join(f"{one.name} {percent(one.accuracy.value)}" for one in experiments)
    sheet, rows = _rows(len(shown), scale, f"Test accuracy with 95 % intervals: {said}")
    for (one, style), y in zip(shown, rows, strict=True):
        found = one.accuracy
        words = f"{one.name}: {percent(found.value)}, 95 % interval {percent(found.low)} to {percent(found.high)}"
        _name(sheet, one.name, y)
        sheet.line((scale(found.low), y), (scale(found.high), y), f"whisker {style.css}", words)
        for run in one.runs if len(one.runs) > 1 else ():
            sheet.add("circle", {"cx": scale(run.accuracy), "cy": y - 8, "r": 2, "class": f"dot {style.css}"}, run.name)
        sheet.mark((scale(found.value), y), style, words)
        sheet.text((WIDTH - 4, y + 4), percent(found.value), "value", "end")
    return sheet


def differences(verdicts: Sequence[Verdict]) -> Svg | None:
    """The difference of each pair with its interval; None where no pair can be compared."""
    pairs = [(one, one.difference) for one in verdicts if one.difference is not None]
    if not pairs:
        return None
    # A factor of 100 makes points of shares.
    edges = [100 * edge for _, found in pairs for edge in (found.low, found.high, 0.0)]
    scale = scale_of(edges, 16, WIDTH - 86)
    said = "; ".join(f"{one.first} minus {one.second} {100 * found.mean:.2f} points" for one, found in pairs)
    sheet, rows = _rows(len(pairs), scale, f"Differences of accuracy with 95 % intervals: {said}", height=42)
    sheet.line((scale(0), TOP), (scale(0), rows[-1] + 21), "axis")
    for (one, found), y in zip(pairs, rows, strict=True):
        css = "better" if one.is_better else "unclear"
        shown = f"{100 * found.mean:+.2f}{' *' if one.is_better else ''}"
        half = int(WIDTH - 60) // 2
        names = f"{shorten(one.first, half, LETTERS)} less {shorten(one.second, half, LETTERS)}"
        # The label hides the zero line and the grid, which would cross its letters.
        sheet.box((0, y - 26), (WIDTH, 25), "plate")
        sheet.text((16, y - 6), names, "name", title=f"{one.first} less {one.second}")
        sheet.line((scale(100 * found.low), y + 8), (scale(100 * found.high), y + 8), f"whisker {css}", one.words)
        sheet.mark((scale(100 * found.mean), y + 8), Style(0 if one.is_better else COLORS), one.words)
        sheet.text((WIDTH - 4, y + 12), shown, "value", "end")
    return sheet


def curves(series: Sequence[Series], words: str, *, is_share: bool) -> Svg | None:
    """A metric by epoch: a line for each seed, and their mean; None where no run has the metric.

    Args:
        series: The curves.
        words: What the metric is called.
        is_share: Whether it is a share, such as an accuracy.
    """
    known = [one._replace(curves=[_finite(curve) for curve in one.curves if curve.epochs]) for one in series]
    known = [one for one in known if any(curve.epochs for curve in one.curves)]
    if not known:
        return None
    values = [value for one in known for curve in one.curves for value in curve.values]
    epochs = [epoch for one in known for curve in one.curves for epoch in curve.epochs]
    x = Scale(min(0.5, *epochs), max(epochs) + 0.5, LEFT, WIDTH - RIGHT, is_whole=True)
    limits = (0.0, 1.0) if is_share else None
    y = scale_of(values, HEIGHT - BOTTOM, TOP, limits=limits, log_from=math.inf if is_share else 30)
    ends = "; ".join(f"{one.name} ends at {_mean_curve(one.curves).values[-1]:.4g}" for one in known)
    sheet = _plot(x, y, "epochs trained", f"{words} by epoch: {ends}")
    for one in known:
        many = len(one.curves) > 1
        if many and len(known) <= MOST_WITH_SEEDS:
            for curve in one.curves:
                sheet.path(_points(curve, x, y), f"seed {one.style.css}")
        mean = _points(_mean_curve(one.curves), x, y)
        sheet.path(mean, f"line {one.style.css}", one.name)
        sheet.mark(mean[-1], one.style, f"{one.name}{', mean of the seeds' if many else ''}", size=4)
    return sheet


def accuracy_against(shown: Sequence[Styled], keys: Sequence[str], words: str) -> Svg | None:
    """The test accuracy with its interval against a cost; None where no experiment's cost is known.

    Args:
        shown: The experiments.
        keys: Where the cost stands in a run's record.
        words: What it is called.
    """
    known = [(one, style, cost) for one, style in shown if (cost := one.recorded(*keys)) is not None]
    if not known:
        return None
    x = scale_of([cost for *_, cost in known], LEFT, WIDTH - RIGHT, log_from=8)
    edges = [edge for one, *_ in known for edge in (one.accuracy.low, one.accuracy.high)]
    y = scale_of(edges, HEIGHT - BOTTOM, TOP, limits=(0, 1))
    said = "; ".join(f"{one.name} {percent(one.accuracy.value)} at {cost:,.4g}" for one, _, cost in known)
    sheet = _plot(x, y, words + (" (logarithmic)" if x.is_log else ""), f"Test accuracy against {words}: {said}")
    for one, style, cost in known:
        found = one.accuracy
        title = f"{one.name}: {percent(found.value)} [{percent(found.low)}, {percent(found.high)}], {words} {cost:,.4g}"
        sheet.line((x(cost), y(found.low)), (x(cost), y(found.high)), f"whisker {style.css}", title)
        sheet.mark((x(cost), y(found.value)), style, title, size=5.5)
    return sheet


def calibration_error(one: Experiment) -> float:
    """The expected calibration error on the mean over the runs (Guo et al., arXiv 1706.04599, equation 3)."""
    errors = []
    for run in one.runs:
        chosen = run.probabilities[np.arange(len(run.predicted)), run.predicted]
        counts, confidence, accuracy = bin_by_confidence(chosen, run.right, np.linspace(0, 1, BINS + 1))
        errors.append(float((counts * np.abs(confidence - accuracy)).sum() / counts.sum()))
    return sum(errors) / len(errors)


def reliability(one: Experiment, style: Style) -> Svg:
    """How often the predictions of each confidence are right, of all seeds together, and how many there are."""
    side, left, foot = 230.0, 44.0, 34.0
    chosen = np.concatenate([run.probabilities[np.arange(len(run.predicted)), run.predicted] for run in one.runs])
    right = np.concatenate([run.right for run in one.runs])
    edges = np.linspace(0, 1, BINS + 1)
    counts, confidence, accuracy = bin_by_confidence(chosen, right, edges)
    x = Scale(0, 1, left, side - 8, is_percent=True)
    y = Scale(0, 1, side - foot, 8, is_percent=True)
    label = f"Reliability of {one.name}: calibration error {percent(calibration_error(one))}"
    sheet = Svg(side, side, label)
    _axes(sheet, x, y, "confidence", (left, 8, side - 8, side - foot))
    sheet.line((x(0), y(0)), (x(1), y(1)), "ideal", "confidence as often right as it says")
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        height = 36 * count / counts.sum()
        words = f"{count:,} predictions of {percent(low)} to {percent(high)}"
        sheet.box((x(low) + 0.5, y(0) - height), (x(high) - x(low) - 1, height), "histogram", words)
    filled = [number for number in range(BINS) if counts[number]]
    sheet.path([(x(confidence[n]), y(accuracy[n])) for n in filled], f"line {style.css}")
    for number in filled:
        count, share = int(counts[number]), float(accuracy[number])
        # The seeds were asked about the same pictures, so that these are no more independent than one seed's are.
        low, high = wilson_interval(share * count / len(one.runs), count / len(one.runs))
        place = x(confidence[number])
        words = f"confidence {percent(confidence[number])}, right {percent(share)} of {count:,}"
        sheet.line((place, y(low)), (place, y(high)), f"thin {style.css}", words)
        sheet.mark((place, y(share)), style, words, size=3.5)
    return sheet


def classes_for_bars(experiments: Sequence[Experiment]) -> list[int]:
    """The numbers of the classes that have bars: all, or those on which the experiments differ most.

    Of one experiment the worst classes count.
    """
    shares = np.array([_class_accuracies(one) for one in experiments])
    known = np.flatnonzero(~np.isnan(shares).any(0))
    if len(known) <= MOST_CLASSES:
        return [int(number) for number in known]
    shares = shares[:, known]
    order = np.argsort(-np.ptp(shares, axis=0) if len(shares) > 1 else shares[0], kind="stable")
    return [int(number) for number in known[order[:MOST_CLASSES]]]


def class_bars(shown: Sequence[Styled], classes: Sequence[int]) -> Svg:
    """The accuracy of each class as a bar for each experiment, with the interval over the pictures of the class."""
    thick, first = 8.0 if len(shown) > 1 else 12.0, shown[0].experiment.runs[0]
    scale = Scale(0, 1, NAMES + 8, WIDTH - RIGHT, is_percent=True)
    counts = np.bincount(first.labels, minlength=len(first.class_names))
    label = f"Accuracy of {len(classes)} classes for {', '.join(one.name for one, _ in shown)}"
    height = thick * len(shown) + 10
    sheet, rows = _rows(len(classes), scale, label, height=height)
    for number, middle in zip(classes, rows, strict=True):
        name = first.class_names[number]
        _name(sheet, name, middle)
        top = middle - thick * len(shown) / 2
        for place, (one, style) in enumerate(shown):
            share, count = float(_class_accuracies(one)[number]), int(counts[number])
            low, high = wilson_interval(share * count, count)
            y, words = top + place * thick, f"{one.name}, {name}: {percent(share)} of {count:,} pictures"
            sheet.box((scale(0), y), (scale(share) - scale(0), thick - 1.5), f"fill {style.css}", words)
            line = y + (thick - 1.5) / 2
            sheet.line((scale(low), line), (scale(high), line), "error", words)
    return sheet


def _class_accuracies(one: Experiment) -> NDArray[np.float64]:
    return np.asarray(np.mean([run.class_accuracies for run in one.runs], axis=0))


def _finite(curve: Curve) -> Curve:
    """The curve without infinite values, which a run that fell apart has."""
    kept = [(e, value) for e, value in zip(*curve, strict=True) if math.isfinite(value)]
    return Curve([epoch for epoch, _ in kept], [value for _, value in kept])


def _mean_curve(found: Sequence[Curve]) -> Curve:
    """The mean over the epochs that all curves have, or the longest curve where they share none."""
    tables = [dict(zip(*curve, strict=True)) for curve in found if curve.epochs]
    shared = sorted(set.intersection(*map(set, tables)))
    if not shared:
        return max(found, key=lambda curve: len(curve.epochs))
    return Curve(shared, [sum(table[epoch] for table in tables) / len(tables) for epoch in shared])


def _points(curve: Curve, x: Scale, y: Scale) -> list[Point]:
    last = len(curve.epochs) - 1
    chosen = np.unique(np.linspace(0, last, min(last + 1, MOST_POINTS)).round().astype(int)).tolist()
    return [(x(curve.epochs[n]), y(curve.values[n])) for n in chosen]


def _plot(x: Scale, y: Scale, words: str, label: str) -> Svg:
    sheet = Svg(WIDTH, HEIGHT, label)
    _axes(sheet, x, y, words, (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM))
    return sheet


def _axes(sheet: Svg, x: Scale, y: Scale, words: str, area: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = area
    for value, text in y.ticks():
        sheet.line((left, y(value)), (right, y(value)), "grid")
        sheet.text((left - 6, y(value) + 4), text, "tick", "end")
    for value, text in x.ticks():
        sheet.line((x(value), top), (x(value), bottom), "grid")
        sheet.text((x(value), bottom + 16), text, "tick", "middle")
    sheet.line((left, bottom), (right, bottom), "axis")
    sheet.text(((left + right) / 2, bottom + 32), words, "tick", "middle")


def _rows(count: int, scale: Scale, label: str, height: float = 28) -> tuple[Svg, list[float]]:
    """A chart of rows above an axis, and the middle of each row."""
    bottom = TOP + count * height
    sheet = Svg(WIDTH, bottom + 26, label)
    for value, text in scale.ticks(4):
        sheet.line((scale(value), TOP - 4), (scale(value), bottom), "grid")
        sheet.text((scale(value), bottom + 16), text, "tick", "middle")
    sheet.line((scale(scale.low), bottom), (scale(scale.high), bottom), "axis")
    return sheet, [TOP + (number + 0.5) * height for number in range(count)]


def _name(sheet: Svg, name: str, y: float) -> None:
    sheet.text((NAMES, y + 4), shorten(name, int(NAMES), LETTERS), "name", "end", title=name)
