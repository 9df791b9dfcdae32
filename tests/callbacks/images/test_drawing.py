import io

import numpy as np
import pytest
from PIL import Image

from pet_cifar.callbacks.images import drawing
from tests.callbacks.small_runs import holds


def noise(height: int, width: int, seed: int = 0) -> drawing.PixelArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_encoding_loses_nothing_and_keeps_gray_small() -> None:
    color = noise(20, 30)
    assert (np.asarray(Image.open(io.BytesIO(drawing.encode(color)))) == color).all()
    gray = np.repeat(color[..., :1], 3, 2)
    image = Image.open(io.BytesIO(drawing.encode(gray)))
    assert image.mode == "L"
    assert (np.asarray(image) == gray[..., 0]).all()


def test_pictures_are_scaled_to_their_cell() -> None:
    small = noise(10, 8)
    large = drawing.scale_to(small, 35)
    assert large.shape == (30, 24, 3)
    assert (large[::3, ::3] == small).all()
    reduced = drawing.scale_to(noise(64, 32), 16)
    assert reduced.shape == (16, 8, 3)
    assert reduced.std() < 40  # The values are means over areas.
    assert drawing.scale_to(noise(500, 3), 16).shape == (16, 1, 3)


def test_a_grid_shows_every_picture_whole_and_nothing_is_cut_off() -> None:
    rows = [[noise(16, 16, 10 * row + column) for column in range(3)] for row in range(2)]
    sheet = drawing.grid(
        "a title that is much longer than these three small pictures are wide",
        rows,
        side=16,
        subtitle="below",
        row_labels=["a", "a class with a very long name indeed, longer than there is room"],
        column_labels=["x", "y", "z"],
        captions=[[["one", "two"]] * 3] * 2,
    )
    for row in rows:
        for picture in row:
            assert holds(sheet, picture)
    border = np.concatenate([sheet[:2].reshape(-1, 3), sheet[-2:].reshape(-1, 3), sheet[:, -2:].reshape(-1, 3)])
    assert (border == 255).all()
    assert drawing.font(16).getlength("a title that is much longer than these three") < sheet.shape[1]


def test_long_texts_keep_their_ends() -> None:
    short = drawing.shorten("PetImages/Cat/very_long_name_0012.jpg", 120, 12)
    assert short.startswith("Pet")
    assert short.endswith(".jpg")
    assert drawing.font(12).getlength(short) <= 120
    assert drawing.shorten("short", 120, 12) == "short"


@pytest.mark.parametrize("count", [2, 10, 20, 60])
def test_a_confusion_matrix_is_shaded_by_the_share_of_its_row(count: int) -> None:
    counts = np.zeros((count, count), np.int64)
    np.fill_diagonal(counts, 50)
    empty = drawing.confusion_matrix("t", np.zeros_like(counts), [f"class {i}" for i in range(count)])
    right = drawing.confusion_matrix("t", counts, [f"class {i}" for i in range(count)])
    wrong = drawing.confusion_matrix("t", counts[::-1], [f"class {i}" for i in range(count)])

    def colored(sheet: drawing.PixelArray, color: tuple[int, int, int]) -> int:
        return int((np.abs(sheet.astype(int) - color).max(2) < 3).sum())

    area = 12 * 12 if count == 60 else 30 * 30
    assert colored(empty, drawing.BLUE) == colored(empty, drawing.ORANGE) == 0
    assert colored(right, drawing.BLUE) > 0.4 * count * area
    assert colored(right, drawing.ORANGE) == 0
    assert colored(wrong, drawing.ORANGE) > 0.4 * (count - 1) * area
    assert max(right.shape[:2]) <= 1300
    assert (right[:, -1] == 255).all()


def test_a_reliability_diagram_of_an_honest_net_has_no_gap() -> None:
    edges = np.linspace(0, 1, 11)
    middle = (edges[1:] + edges[:-1]) / 2
    counts = np.full(10, 7)

    def gap(accuracy: np.ndarray) -> int:
        sheet = drawing.reliability_diagram("t", edges, counts, middle, accuracy, "s").astype(int)
        return int((np.abs(sheet - drawing.ORANGE).max(2) < 3).sum())

    assert gap(middle) < gap(np.clip(middle + 0.2, 0, 1)) / 2
    drawing.reliability_diagram("t", edges, np.zeros(10, np.int64), np.zeros(10), np.zeros(10))
