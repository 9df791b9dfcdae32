import base64
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

from pet_cifar.runs.comparison import Comparison
from pet_cifar.runs.report import matrices
from tests.runs.report.synthetic import comparison


def of_classes(folder: Path, classes: int) -> Comparison:
    return comparison(folder, ("a", "b"), 2, [f"class {number}" for number in range(classes)], count=2 * classes)


def test_the_shares_of_a_row_are_those_of_all_runs(tmp_path: Path) -> None:
    first, _ = of_classes(tmp_path, 3).experiments
    found = matrices.shares(first)
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(np.diag(found), np.mean([run.class_accuracies for run in first.runs], axis=0))


def test_few_classes_have_numbers_and_a_difference_has_signs(tmp_path: Path) -> None:
    first, second = of_classes(tmp_path, 3).experiments
    sheet = matrices.difference(first, second)
    assert sheet is not None
    found = matrices.shares(first) - matrices.shares(second)
    shown = [one.text for one in ET.fromstring(str(sheet)).iter("text") if one.get("class") == "cell"]
    assert shown == [f"{100 * value:+.0f}" for value in found.ravel() if abs(value) >= 0.005]
    assert any(text.startswith("-") for text in shown if text)


def test_many_classes_are_one_small_picture(tmp_path: Path) -> None:
    first, second = of_classes(tmp_path, 100).experiments
    for sheet, values in (
        (matrices.matrix(first), matrices.shares(first)),
        (matrices.difference(first, second), matrices.shares(first) - matrices.shares(second)),
    ):
        assert sheet is not None
        assert len(str(sheet)) < 40_000
        (image,) = ET.fromstring(str(sheet)).iter("image")
        with Image.open(BytesIO(base64.b64decode(image.attrib["href"].partition(",")[2]))) as picture:
            pixels = np.asarray(picture)
        assert pixels.shape == (100, 100, 4)
        np.testing.assert_array_equal(pixels[..., 3] > 0, values != 0)
        assert (pixels[values < 0][:, :3] == matrices.NEGATIVE).all()


def test_too_many_classes_have_a_list_of_mistakes_alone(tmp_path: Path) -> None:
    first, second = of_classes(tmp_path, 201).experiments
    assert matrices.matrix(first) is None
    found = matrices.mistakes([first, second], 5)
    assert len(found) == 5
    assert all(one.label != one.predicted for one in found)
    worst = [max(one.shares) for one in found]
    assert worst == sorted(worst, reverse=True)


def test_a_net_without_mistakes_has_no_list_of_them(tmp_path: Path) -> None:
    (one,) = comparison(tmp_path, ("a",), 1).experiments
    perfect = replace(one, runs=tuple(replace(run, predicted=run.labels) for run in one.runs))
    assert matrices.mistakes([perfect], 5) == []
