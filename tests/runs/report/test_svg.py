import itertools
import re
from importlib.resources import files
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from numpy.typing import NDArray

from pet_cifar.runs.report.svg import COLORS, MOST_STYLES, Scale, Style, Svg, scale_of, short_number

HOSTILE = "</svg><script>alert(1)</script>\x1b[31m\"'&"


def test_a_drawing_holds_every_name_as_text() -> None:
    sheet = Svg(10, 10, HOSTILE)
    sheet.text((1, 2), HOSTILE, title=HOSTILE)
    sheet.line((0, 0), (1, 1), "axis", HOSTILE)
    sheet.mark((5, 5), Style(1), HOSTILE)
    root = ET.fromstring(str(sheet))
    assert {element.tag for element in root.iter()} == {"svg", "text", "title", "line", "polygon"}
    assert "\x1b" not in str(sheet)
    plain = HOSTILE.replace("\x1b", "\\x1b")
    assert root.attrib["aria-label"] == plain
    assert [element.text for element in root.iter("text")] == [plain]


@pytest.mark.parametrize(
    ("low", "high", "is_log", "texts"),
    [
        (0.0, 1.0, False, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (0.1, 2.5, True, ["0.1", "0.2", "0.5", "1", "2"]),
        (1e4, 1e7, True, ["10 k", "100 k", "1 M", "10 M"]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, is_log: bool, texts: list[str]) -> None:
    scale = Scale(low, high, 0, 100, is_log)
    assert [tick.text for tick in scale.ticks()] == texts
    places = [scale(tick.value) for tick in scale.ticks()]
    assert places == sorted(places)
    assert 0 <= places[0] < places[-1] <= 100


@pytest.mark.parametrize("values", [[], [0.5], [0.0, 0.0], [1.0, 1.0], [-3.0, 5.0], [1e-9, 1e9]])
def test_any_values_have_a_scale_with_two_ends(values: list[float]) -> None:
    scale = scale_of(values, 0, 100, log_from=8)
    assert scale.low < scale.high
    assert scale.ticks()
    assert all(0 <= scale(value) <= 100 for value in values)


def test_shares_stay_within_0_and_1() -> None:
    scale = scale_of([0.4, 1.08], 0, 100, limits=(0, 1))
    assert scale.high == 1
    assert scale(1.08) == 100
    assert {len(tick.text) for tick in scale_of([0.9912, 0.9968], 0, 100, limits=(0, 1)).ticks()} == {len("99.1 %")}


def test_epochs_are_whole() -> None:
    assert [tick.text for tick in Scale(0.5, 1.5, 0, 100, is_whole=True).ticks()] == ["1"]


def test_numbers_are_short() -> None:
    assert [short_number(value) for value in (0.25, 12, 1500, 2_340_000)] == ["0.25", "12", "1.5 k", "2.34 M"]


def test_every_series_has_a_look_of_its_own() -> None:
    looks = {(Style(number).css, Style(number).shape) for number in range(MOST_STYLES)}
    assert len(looks) == MOST_STYLES
    assert len({Style(number).shape for number in range(COLORS)}) == COLORS


# What a person sees who lacks one kind of cones (Machado et al., "A physiologically-based model for simulation of color
# vision deficiency", 2009), as matrices on linear RGB.
VISION = {
    "usual": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(color: str) -> NDArray[np.float64]:
    parts = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear RGB as Oklab (Ottosson, 2020), in which equal distances look about equally large."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
             [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    axes = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.asarray(np.array(axes) @ np.cbrt(np.array(cones) @ rgb.clip(0, 1)))


def contrast(first: str, second: str) -> float:
    """The contrast of two colors after WCAG 2."""
    light = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) + 0.05 for color in (first, second))
    return light[1] / light[0]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_any_eye_tells_the_colors_apart(theme: str) -> None:
    style = files("pet_cifar.runs.report").joinpath("style.css.jinja").read_text(encoding="utf-8")
    found = re.findall(r"--(s\d|paper): (#\w+)", style)
    half = len(found) // 2
    colors = dict(found[:half] if theme == "light" else found[half:])
    paper = "#ffffff" if colors["paper"] == "#fff" else colors["paper"]
    series = [color for name, color in colors.items() if name != "paper"]
    assert len(series) == COLORS
    assert min(contrast(color, paper) for color in series) > 3
    for name, matrix in VISION.items():
        seen = [oklab(np.array(matrix) @ linear(color)) for color in series]
        nearest = min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2))
        assert nearest > 0.1, name
