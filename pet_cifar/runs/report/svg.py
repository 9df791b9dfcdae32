"""Draws charts as SVG that lies within a page and takes its colors from the page's style sheet."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree as ET

from pet_cifar.names import printable

COLORS = 6
"""The number of colors; see ``--s0`` to ``--s5`` in ``page.html.jinja``."""
MOST_STYLES = 2 * COLORS
"""The number of series that can be told apart."""
SHAPES = ("circle", "square", "diamond", "up", "down", "cross")

Point = tuple[float, float]
Attributes = Mapping[str, str | float]


@dataclass(frozen=True)
class Style:
    """How a series looks: a color and a shape of its own, and after `COLORS` series dashed lines and hollow marks.

    Attributes:
        number: The place of the series among all.
    """

    number: int

    @property
    def css(self) -> str:
        """The classes of its marks and lines."""
        return f"c{self.number % COLORS}" + (" again" if self.number >= COLORS else "")

    @property
    def shape(self) -> str:
        """The shape of its marks."""
        return SHAPES[self.number % COLORS]


class Svg:
    """A drawing. Every text and attribute is escaped when it is written out.

    Args:
        width: Its width in its own units, of which one is about a pixel.
        height: Its height in the same units.
        label: What it shows, for those who cannot see it.
    """

    def __init__(self, width: float, height: float, label: str) -> None:
        self.width, self.height = width, height
        self.root = ET.Element("svg", {"viewBox": f"0 0 {_text(width)} {_text(height)}", "role": "img"})
        self.root.set("aria-label", printable(label))
        self.root.set("style", f"max-width: {_text(1.2 * width)}px")

    def add(self, tag: str, attributes: Attributes, title: str = "") -> ET.Element:
        """Adds an element.

        Args:
            tag: Its name.
            attributes: Its attributes; numbers are rounded to a tenth.
            title: What a pointer over it is told.
        """
        element = ET.SubElement(self.root, tag, {name: _text(value) for name, value in attributes.items()})
        if title:
            ET.SubElement(element, "title").text = printable(title)
        return element

    def line(self, start: Point, end: Point, css: str, title: str = "") -> None:
        """Adds a straight line."""
        self.add("line", {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1], "class": css}, title)

    def path(self, points: Iterable[Point], css: str, title: str = "") -> None:
        """Adds a line through points."""
        self.add("polyline", {"points": " ".join(f"{_text(x)},{_text(y)}" for x, y in points), "class": css}, title)

    def box(self, corner: Point, size: Point, css: str, title: str = "", opacity: float = 1.0) -> None:
        """Adds a filled rectangle."""
        box: dict[str, str | float] = {
            "x": corner[0],
            "y": corner[1],
            "width": size[0],
            "height": size[1],
            "class": css,
        }
        if opacity < 1:
            box["fill-opacity"] = f"{opacity:.3f}"
        self.add("rect", box, title)

    def text(self, place: Point, words: str, css: str = "", anchor: str = "start", title: str = "") -> None:
        """Adds a line of text.

        Args:
            place: Where it begins, has its middle or ends, on its base line.
            words: The text.
            css: Its classes.
            anchor: ``start``, ``middle`` or ``end``.
            title: What a pointer over it is told, such as the whole of a shortened name.
        """
        element = self.add("text", {"x": place[0], "y": place[1], "class": css, "text-anchor": anchor})
        element.text = printable(words)
        if title:
            ET.SubElement(element, "title").text = printable(title)

    def mark(self, place: Point, style: Style, title: str = "", size: float = 4.5) -> None:
        """Adds a mark of a series."""
        x, y = place
        css = f"mark {style.css}"
        if style.shape == "circle":
            self.add("circle", {"cx": x, "cy": y, "r": size, "class": css}, title)
        else:
            self.add("polygon", {"points": _corners(x, y, size, style.shape), "class": css}, title)

    def __str__(self) -> str:
        return ET.tostring(self.root, encoding="unicode")


def _corners(x: float, y: float, size: float, shape: str) -> str:
    arm = size / 2.6
    outlines = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "up": [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
        "down": [(0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
    }
    if shape in outlines:
        points = [(size * a, size * b) for a, b in outlines[shape]]
    else:  # A cross with arms.
        edge = 1.15 * size
        points = [(-arm, -edge), (arm, -edge), (arm, -arm), (edge, -arm), (edge, arm), (arm, arm)]
        points += [(-a, -b) for a, b in points]
    return " ".join(f"{_text(x + a)},{_text(y + b)}" for a, b in points)


class Tick(NamedTuple):
    """A value on an axis, and what is written there."""

    value: float
    text: str


@dataclass(frozen=True)
class Scale:
    """Where the values of an axis lie.

    Attributes:
        low, high: The smallest and the largest value.
        start, end: Where these two lie.
        is_log: Whether equal factors, and not equal differences, are equally far.
        is_percent: Whether the values are shares, which are written as percent.
        is_whole: Whether only whole numbers are written.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False
    is_percent: bool = False
    is_whole: bool = False

    def __call__(self, value: float) -> float:
        """Where a value lies; one beyond the ends lies at the end."""
        low, high, value = (math.log(one) if self.is_log else one for one in (self.low, self.high, value))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[Tick]:
        """Round values between the ends, at most about so many."""
        values = _log_ticks(self.low, self.high, most) if self.is_log else _ticks(self.low, self.high, most)
        values = [value for value in values if not self.is_whole or float(value).is_integer()]
        step = min((b - a for a, b in itertools.pairwise(values)), default=1.0)
        if self.is_percent:
            digits = max(0, -math.floor(math.log10(100 * step) + 1e-9))
            return [Tick(value, f"{100 * value:.{digits}f} %") for value in values]
        return [Tick(value, short_number(value)) for value in values]


def scale_of(
    values: Sequence[float], start: float, end: float, *, limits: Point | None = None, log_from: float = math.inf
) -> Scale:
    """A scale that shows all values, with some room around them.

    Args:
        values: The values.
        start: Where the smallest lies.
        end: Where the largest lies.
        limits: What the scale does not go beyond, such as 0 and 1 for shares, which also makes it one of percents.
        log_from: The factor between the largest and the smallest value from which on the scale is logarithmic.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    is_log = low > 0 and high / low >= log_from
    if is_log:
        room = (high / low) ** 0.06
        return Scale(low / room, high * room, start, end, is_log=True)
    room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    low, high = low - room, high + room
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
        if high <= low:
            low, high = limits
    return Scale(low, high, start, end, is_percent=limits is not None)


def short_number(value: float) -> str:
    """A number in few letters, such as 12 k for 12,000."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


def _ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    for factors in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in values if low * 0.999 <= value <= high * 1.001]
        if len(inside) <= most + 1:
            return inside
    return inside[:: math.ceil(len(inside) / most)]


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
