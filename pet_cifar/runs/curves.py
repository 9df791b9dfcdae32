"""The training curves of a run, out of its ``metrics.csv``."""

import csv
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pet_cifar.data.files.regular import check_regular
from pet_cifar.errors import InputError, disk_errors

PANELS = (("loss", "loss"), ("acc", "accuracy"))
"""The metrics that are drawn for training and validation, with the words on their axes."""


class Curve(NamedTuple):
    """One metric by epoch.

    Attributes:
        epochs: How many epochs were trained when it was measured.
        values: Its values.
    """

    epochs: list[int]
    values: list[float]


def read_curves(metrics: Path) -> dict[str, Curve]:
    """Reads the metrics that were logged once an epoch.

    Args:
        metrics: The run's ``metrics.csv``. Where an epoch stands in it more than once, the last counts.

    Returns:
        The curves by the names of their metrics, such as ``val/loss``.

    Raises:
        InputError: The file is not there, or is damaged.
    """
    found: dict[str, dict[int, float]] = {}
    try:
        check_regular(metrics)
        with metrics.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name and name.startswith(("train/", "val/")) and not math.isnan(float(value)):
                        found.setdefault(name, {})[int(row["epoch"]) + 1] = float(value)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{metrics} cannot be read as the metrics of a run: {error}") from error
    return {name: Curve(*map(list, zip(*sorted(points.items()), strict=True))) for name, points in found.items()}


def check_matplotlib() -> None:
    """Refuses to work without matplotlib.

    Raises:
        InputError: It is not installed.
    """
    if find_spec("matplotlib") is None:
        raise InputError("the curves need matplotlib, which is not installed: pip install 'pet_cifar[draw]'")


def draw_curves(curves: dict[str, Curve], title: str, files: Sequence[Path]) -> None:
    """Draws loss and accuracy of training and validation side by side; a ring marks the best epoch of validation.

    Args:
        curves: What `read_curves` gives.
        title: The line above.
        files: Where the drawing goes; each file's ending says the format, such as ``.png`` or ``.svg``.

    Raises:
        InputError: There is nothing to draw, matplotlib is not installed, or a file cannot be written.
    """
    check_matplotlib()
    # This import takes half a second, and nothing else needs it. The figure belongs to no window.
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [panel for panel in PANELS if f"train/{panel[0]}" in curves or f"val/{panel[0]}" in curves]
    if not panels:
        raise InputError("the run has no curves: no epoch of it was logged")
    # A fixed salt and no date make the same file of the same run.
    with rc_context({"svg.hashsalt": "pet_cifar", "svg.fonttype": "none", "font.size": 11}):
        figure = Figure(figsize=(5.6 * len(panels), 4.0), layout="constrained")
        figure.suptitle(title, fontsize=12)
        for axes, (name, words) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for split, label, color in (("train", "training", "#1f62a3"), ("val", "validation", "#dd6b20")):
                if curve := curves.get(f"{split}/{name}"):
                    axes.plot(*curve, color=color, label=label, marker="o" if len(curve.epochs) < 30 else "", ms=3.5)
            if curve := curves.get(f"val/{name}"):
                best = (min if name == "loss" else max)(curve.values)
                at = curve.epochs[curve.values.index(best)]
                shown = f"best validation {best:.4f}, after {at} epoch{'s' if at != 1 else ''}"
                axes.plot([at], [best], "o", ms=11, mfc="none", mec="#dd6b20", label=shown)
            last = max(max(curve.epochs) for curve in curves.values())
            axes.set_xlim(0.5, last + 0.5)
            axes.set_xlabel("epochs trained")
            axes.set_ylabel(words)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(color="#dddddd")
            axes.legend(fontsize=9)
        for file in files:
            with disk_errors(file, "; give another --output"):
                figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix == ".svg" else None)
