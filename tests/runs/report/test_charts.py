import math
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from pet_cifar.runs.comparison import Comparison, compare
from pet_cifar.runs.curves import Curve
from pet_cifar.runs.report import charts
from pet_cifar.runs.report.charts import Series, Styled
from pet_cifar.runs.report.svg import Style, Svg
from pet_cifar.runs.tested_run import read_run
from tests.runs.report.synthetic import comparison
from tests.runs.run_folders import answers, make_run


def styled(found: Comparison) -> list[Styled]:
    return [Styled(one, Style(number)) for number, one in enumerate(found.experiments)]


def elements(sheet: Svg | None, css: str) -> list[ET.Element]:
    """The elements that have a class."""
    assert sheet is not None
    return [one for one in ET.fromstring(str(sheet)).iter() if css in one.get("class", "").split()]


def test_each_experiment_has_its_interval_and_a_dot_for_each_seed(tmp_path: Path) -> None:
    found = comparison(tmp_path, ("a", "b", "c"), seeds=3)
    sheet = charts.accuracies(styled(found))
    assert len(elements(sheet, "whisker")) == len(elements(sheet, "mark")) == 3
    assert len(elements(sheet, "dot")) == 9
    lengths = [float(one.attrib["x2"]) - float(one.attrib["x1"]) for one in elements(sheet, "whisker")]
    widths = [one.accuracy.high - one.accuracy.low for one in found.experiments]
    assert np.argsort(lengths).tolist() == np.argsort(widths).tolist()
    assert "c " in sheet.root.attrib["aria-label"]


def test_a_difference_is_marked_where_it_is_one(tmp_path: Path) -> None:
    found = comparison(tmp_path, ("a", "b"), seeds=3)
    sheet = charts.differences(found.verdicts)
    assert found.verdicts[0].is_better
    assert len(elements(sheet, "better")) == 1
    assert any((one.text or "").endswith("*") for one in elements(sheet, "value"))
    assert charts.differences([]) is None


def test_no_line_crosses_the_names_of_a_difference(tmp_path: Path) -> None:
    sheet = charts.differences(comparison(tmp_path, ("a", "b", "c")).verdicts)
    plates, names = elements(sheet, "plate"), elements(sheet, "name")
    assert len(plates) == len(names) == 3
    for plate, name in zip(plates, names, strict=True):
        top, height = float(plate.attrib["y"]), float(plate.attrib["height"])
        assert top + 12 <= float(name.attrib["y"]) <= top + height - 4


def test_curves_have_a_line_for_each_seed_and_their_mean() -> None:
    seeds = [Curve([1, 2, 3], [3.0, 2.0, 1.0]), Curve([1, 2], [1.0, math.inf]), Curve([1, 2, 3], [2.0, 2.0, 2.0])]
    sheet = charts.curves([Series("net", Style(0), seeds)], "loss", is_share=False)
    assert len(elements(sheet, "seed")) == 3
    (mean,) = elements(sheet, "line")
    # One seed has nothing but its first epoch that could be averaged.
    assert len(mean.attrib["points"].split()) == 1
    assert charts.curves([Series("net", Style(0), [])], "loss", is_share=False) is None


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    long = Curve(list(range(1, 5001)), [1 / epoch for epoch in range(1, 5001)])
    sheet = charts.curves([Series("net", Style(0), [long])], "loss", is_share=False)
    (line,) = elements(sheet, "line")
    points = line.attrib["points"].split()
    assert len(points) == charts.MOST_POINTS
    (mark,) = elements(sheet, "mark")
    assert float(points[-1].partition(",")[0]) == float(mark.attrib["cx"])


def test_an_experiment_of_unknown_cost_is_left_out(tmp_path: Path) -> None:
    found = comparison(tmp_path, ("a", "b"))
    run = tmp_path / "b" / "version_0"
    (run / "run.json").write_text("{}")
    only_a = compare([read_run(tmp_path / "a" / "version_0"), read_run(run)])
    keys = ("train_seconds",)
    assert len(elements(charts.accuracy_against(styled(found), keys, "training seconds"), "mark")) == 2
    assert len(elements(charts.accuracy_against(styled(only_a), keys, "training seconds"), "mark")) == 1
    assert charts.accuracy_against(styled(only_a)[1:], keys, "training seconds") is None


def test_the_calibration_error_is_the_one_of_the_test(digits_run: Path) -> None:
    run = read_run(digits_run)
    (one,) = compare([run]).experiments
    # The table of predictions has six digits.
    assert charts.calibration_error(one) == pytest.approx(run.metrics["test/calibration_error"], abs=1e-5)
    sheet = charts.reliability(one, Style(0))
    counts = [one.findtext("title") or "" for one in elements(sheet, "histogram")]
    assert sum(int(text.split()[0].replace(",", "")) for text in counts) == len(run.paths)


def test_the_classes_with_the_largest_differences_have_bars(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(40)]
    right = answers(1.5, 0, 800, 40)
    worse = right.copy()
    rows = np.flatnonzero(np.arange(800) % 40 == 17)[:10]
    worse[rows] = np.roll(worse[rows], 1, axis=1)
    runs = [make_run(tmp_path / name / "version_0", one, names=names, options={"lr": name})
            for name, one in (("a", right), ("b", worse))]  # fmt: skip
    found = compare([read_run(run) for run in runs])
    classes = charts.classes_for_bars(found.experiments)
    assert classes[0] == 17
    assert len(classes) == charts.MOST_CLASSES
    sheet = charts.class_bars(styled(found), classes)
    widths = [float(one.attrib["width"]) for one in elements(sheet, "fill")]
    assert widths[1] == pytest.approx(widths[0] / 2, abs=0.1)
    assert len(widths) == 2 * charts.MOST_CLASSES
