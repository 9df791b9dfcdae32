"""What alone tells the classes apart is found, whichever of the measures it is, and chance is not taken for it."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pet_cifar.data.manifest import OK, ImageRecord
from pet_cifar.doctor.shortcuts import find_shortcuts, measures_of

COUNT = 120
LABELS = np.arange(COUNT) % 2


def plain() -> tuple[list[ImageRecord], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    sides, sizes = rng.integers(200, 400, (COUNT, 2)).tolist(), rng.integers(5000, 9000, COUNT).tolist()
    records = [
        ImageRecord(f"{row}.jpg", "a", "", size, 0, 0, width, height, "RGB", "", OK)
        for row, ((width, height), size) in enumerate(zip(sides, sizes, strict=True))
    ]
    return records, rng.integers(0, 256, (COUNT, 3, 32, 32)).astype(np.uint8)


def warned(records: list[ImageRecord], pictures: NDArray[np.uint8]) -> set[str]:
    return {one.measure for one in find_shortcuts(measures_of(records, pictures), LABELS) if one.is_warned}


def test_pictures_that_are_alike_have_no_shortcut() -> None:
    assert warned(*plain()) == set()


@pytest.mark.parametrize(
    ("changes", "measure"),
    [
        ({"bytes": 30_000}, "file size (bytes)"),
        ({"width": 1000}, "width (pixels)"),
        ({"height": 1000}, "height (pixels)"),
        ({"path": "x.png", "mode": "RGBA"}, "format and mode"),
    ],
)
def test_a_file_that_tells_its_class_is_found(changes: dict[str, int | str], measure: str) -> None:
    records, pictures = plain()
    changed = [replace(one, **changes) if label else one for one, label in zip(records, LABELS, strict=True)]  # type: ignore[arg-type]
    assert measure in warned(changed, pictures)


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        (lambda one: one // 2, "brightness (0 to 255)"),
        (lambda one: 100 + one // 8, "contrast (0 to 255)"),
        (lambda one: one[:1].repeat(3, 0), "colorfulness (0 to 255)"),
        (lambda one: np.pad(one[:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1))), "brightness of the border"),
        (lambda one: np.pad(one[:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1))), "contrast of the border"),
    ],
)
def test_a_picture_that_tells_its_class_is_found(change: object, measure: str) -> None:
    assert callable(change)
    records, pictures = plain()
    changed = np.stack([change(one) if label else one for one, label in zip(pictures, LABELS, strict=True)])
    assert measure in warned(records, changed.astype(np.uint8))


def test_the_best_comes_first_with_its_interval() -> None:
    records, pictures = plain()
    changed = [
        replace(one, width=1000 + row) if label else one
        for row, (one, label) in enumerate(zip(records, LABELS, strict=True))
    ]
    first, *others = find_shortcuts(measures_of(changed, pictures), LABELS)
    assert first.measure in ("width (pixels)", "width / height")
    assert first.low <= first.balanced_accuracy <= first.high
    assert all(first.balanced_accuracy >= other.balanced_accuracy for other in others)
    assert len(others) == 10


def test_a_class_of_one_picture_gives_none() -> None:
    records, pictures = plain()
    labels = np.zeros(COUNT, np.int64)
    labels[0] = 1
    assert find_shortcuts(measures_of(records, pictures), labels) == []
