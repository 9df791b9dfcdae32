"""What a page of the exercise is made of; each kind of block has its part in ``page.html.jinja``."""

from dataclasses import dataclass
from typing import ClassVar

from pet_cifar.runs.report.sections import Figure
from pet_cifar.runs.report.svg import Style


@dataclass(frozen=True)
class Text:
    """A paragraph, or a heading within a section."""

    kind: ClassVar[str] = "text"
    text: str
    is_heading: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its head."""

    kind: ClassVar[str] = "table"
    caption: str
    heads: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Image:
    """A picture.

    Attributes:
        uri: The picture within its own address.
        alt: What it shows, for those who cannot see it.
        caption: The line below it.
        width: The width in pixels that it has at most.
        is_pixelated: Whether its pixels are to be seen as squares.
    """

    uri: str
    alt: str
    caption: str
    width: int
    is_pixelated: bool = False


@dataclass(frozen=True)
class Images:
    """Pictures, one below the other or, where they are small, side by side."""

    kind: ClassVar[str] = "images"
    images: list[Image]
    are_small: bool = False


@dataclass(frozen=True)
class Charts:
    """Drawings with the legend above them."""

    kind: ClassVar[str] = "charts"
    figures: list[Figure]
    legend: list[tuple[str, Style]]


@dataclass(frozen=True)
class Code:
    """Lines in letters of one width."""

    kind: ClassVar[str] = "code"
    title: str
    text: str


@dataclass(frozen=True)
class Line:
    """A line with a word before it that says what it is.

    Attributes:
        tag: The word.
        text: The line.
        css: ``better``, ``serious`` or nothing.
    """

    tag: str
    text: str
    css: str = ""


@dataclass(frozen=True)
class Lines:
    """Lines, each with a word before it."""

    kind: ClassVar[str] = "lines"
    lines: list[Line]


Block = Text | Table | Images | Charts | Code | Lines


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    title: str
    blocks: list[Block]
