"""Draws grids of small pictures, confusion matrices and diagrams as arrays, always dark on white."""

import functools
import io
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PixelArray = NDArray[np.uint8]
"""An array of uint8, shape (H, W) or (H, W, 3)."""

Item = TypeVar("Item")
INK = (30, 30, 30)
FAINT = (120, 120, 120)
RULE = (205, 205, 205)
BLUE = (31, 98, 163)
ORANGE = (221, 107, 32)
MARGIN = 8
# These sizes are in pixels. TensorBoard's cards show a picture at about half its width.
TITLE, TEXT, SMALL = 20, 16, 13


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Loads Pillow's own font at a size of ``size`` pixels."""
    return ImageFont.load_default(size)


def encode(picture: PixelArray) -> bytes:
    """Encodes a picture as PNG, which is gray where the picture has no colors."""
    if picture.ndim == 3 and (picture[..., :1] == picture).all():
        picture = picture[..., 0]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG")
    return file.getvalue()


def channels_last(picture: PixelArray) -> PixelArray:
    """Turns a picture of shape (C, H, W) with one or three channels into one of shape (H, W, 3)."""
    return np.broadcast_to(picture.transpose(1, 2, 0), (*picture.shape[1:], 3))


def scale_to(picture: PixelArray, side: int) -> PixelArray:
    """Scales a picture to at most ``side`` pixels: down by the mean over areas, up by a whole factor, as blocks."""
    longest = max(picture.shape[:2])
    if longest > side:
        height, width = (max(1, round(length * side / longest)) for length in picture.shape[:2])
        return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BOX))
    factor = side // longest
    return picture.repeat(factor, 0).repeat(factor, 1)


def shorten(text: str, width: int, size: int) -> str:
    """Shortens a text to at most ``width`` pixels; its beginning and end stay, with an ellipsis between them."""
    if font(size).getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if font(size).getlength(short) <= width:
            return short
    return text[:1]


class Canvas:
    """A white sheet to draw on; all lengths are in pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self.draw = ImageDraw.Draw(self.image)

    def text(
        self,
        place: tuple[float, float],
        text: str,
        size: int = TEXT,
        anchor: str = "la",
        color: tuple[int, int, int] = INK,
        width: int | None = None,
    ) -> None:
        """Writes one line.

        Args:
            place: Where the line is, as (x, y).
            text: The line.
            size: The size of the font.
            anchor: Which point of the line is at ``place``, as Pillow's text anchors name it.
            color: The color of the line.
            width: The length that the line is shortened to; None leaves it as it is.
        """
        text = text if width is None else shorten(text, width, size)
        self.draw.text(place, text, color, font(size), anchor)

    def paste(self, place: tuple[int, int], picture: PixelArray) -> None:
        """Puts a picture on the sheet, with its upper left corner at ``place``."""
        self.image.paste(Image.fromarray(np.ascontiguousarray(picture)), place)

    def pixels(self) -> PixelArray:
        """Returns the sheet, uint8, shape (H, W, 3)."""
        return np.asarray(self.image)


def title_width(*lines: str) -> int:
    """The width that a sheet needs for its title and the lines below it."""
    first, *others = (line for line in lines if line)
    return int(max(font(TITLE).getlength(first), *(font(TEXT).getlength(line) for line in others), 0)) + 2 * MARGIN


def titled_canvas(width: int, height: int, title: str, subtitle: str = "") -> tuple[Canvas, int]:
    """Makes a sheet with a title and space for ``width`` x ``height`` below it; also returns where the space begins."""
    top = MARGIN + 26 + (20 if subtitle else 0) + 4
    canvas = Canvas(max(width + 2 * MARGIN, title_width(title, subtitle)), top + height + MARGIN)
    canvas.text((MARGIN, MARGIN), title, TITLE)
    if subtitle:
        canvas.text((MARGIN, MARGIN + 26), subtitle, TEXT, color=FAINT)
    return canvas, top


def in_rows(items: Sequence[Item], columns: int) -> list[Sequence[Item]]:
    """Divides items into rows of ``columns`` items; the last row may be shorter."""
    return [items[start : start + columns] for start in range(0, len(items), columns)]


def grid(
    title: str,
    rows: Sequence[Sequence[PixelArray]],
    *,
    side: int,
    subtitle: str = "",
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    captions: Sequence[Sequence[Sequence[str]]] = (),
    gap: int = 3,
) -> PixelArray:
    """Draws a table of small pictures.

    Args:
        title: The title of the table.
        rows: The pictures; each is scaled to at most ``side`` and centered in its cell.
        side: The side of a cell, in pixels.
        subtitle: The line below the title.
        row_labels: The labels on the left, one for each row.
        column_labels: The labels at the top, one for each column.
        captions: The lines below each picture; all pictures have the same number of lines.
        gap: The gap between cells, in pixels.

    Returns:
        uint8, shape (H, W, 3).
    """
    lines = max((len(texts) for row in captions for texts in row), default=0)
    left = int(max((font(TEXT).getlength(label) for label in row_labels), default=-8)) + 8
    left = min(left, 130)
    high = side + gap + 16 * lines + (6 if lines else 0)
    above = 20 if any(column_labels) else 0
    columns = max(len(row) for row in rows)
    canvas, top = titled_canvas(left + columns * (side + gap), above + len(rows) * high, title, subtitle)
    for column, label in enumerate(column_labels):
        middle = MARGIN + left + column * (side + gap) + side / 2
        canvas.text((middle, top), label, TEXT, "ma", FAINT, side)
    for index, row in enumerate(rows):
        y = top + above + index * high
        if row_labels:
            canvas.text((MARGIN, y + side / 2), row_labels[index], TEXT, "lm", width=left - 6)
        for column, picture in enumerate(row):
            x = MARGIN + left + column * (side + gap)
            small = scale_to(picture, side)
            canvas.paste((x + (side - small.shape[1]) // 2, y + (side - small.shape[0]) // 2), small)
            if captions:
                for line, text in enumerate(captions[index][column]):
                    color = INK if line == 0 else FAINT
                    canvas.text((x, y + side + 2 + 16 * line), text, SMALL, color=color, width=side)
    return canvas.pixels()


def confusion_matrix(title: str, counts: NDArray[np.int64], names: Sequence[str], subtitle: str = "") -> PixelArray:
    """Draws a confusion matrix: rows are labels, columns are predictions, and shades are shares of the row.

    Args:
        title: The title of the picture.
        counts: The number of pictures by label and prediction, shape (n, n).
        names: The names of the n classes.
        subtitle: The line below the title.

    Returns:
        uint8, shape (H, W, 3); for more than 25 classes it has no names and numbers.
    """
    count = len(names)
    if count > 25:
        return _large_confusion_matrix(title, counts, subtitle)
    wide, high = (110, 64) if count <= 4 else (68, 52) if count <= 12 else (44, 30)
    size = 20 if count <= 4 else 18 if count <= 12 else 10
    left = min(120, int(max(font(size).getlength(name) for name in names)) + 8)
    canvas, top = titled_canvas(left + 22 + count * wide, 48 + count * high, title, subtitle)
    x0, y0 = MARGIN + left + 22, top + 48
    canvas.text((x0 + count * wide / 2, top), "predicted", TEXT, "ma", FAINT)
    canvas.text((MARGIN, y0 - 6), "label", TEXT, "lb", FAINT)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row, name in enumerate(names):
        canvas.text((x0 - 6, y0 + (row + 0.5) * high), name, size, "rm", width=left + 12)
        canvas.text((x0 + (row + 0.5) * wide, y0 - 9), name, size, "ms", width=wide - 4)
        for column in range(count):
            share = float(shares[row, column])
            x, y = x0 + column * wide, y0 + row * high
            canvas.draw.rectangle((x, y, x + wide - 2, y + high - 2), _shade(share, BLUE if row == column else ORANGE))
            middle = x + wide / 2 - 1
            if not counts[row, column]:
                canvas.text((middle, y + high / 2), "0", size, "mm", RULE)
                continue
            color = (255, 255, 255) if share > 0.55 else INK
            canvas.text((middle, y + high / 2 - 3), f"{counts[row, column]:,}", size, "ms", color)
            canvas.text((middle, y + high / 2 + 1), f"{100 * share:.1f} %", min(size, 14), "mt", color)
    return canvas.pixels()


def _large_confusion_matrix(title: str, counts: NDArray[np.int64], subtitle: str) -> PixelArray:
    """Draws the matrix of many classes as colors only, with a side of at most about 1,000 pixels."""
    count = len(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    right = np.eye(count, dtype=bool)[..., None]
    strength = np.where(shares > 0, 0.06 + 0.94 * shares**0.5, 0)[..., None]
    colors = 250 + (np.where(right, BLUE, ORANGE) - 250) * strength
    cells = scale_to(colors.round().astype(np.uint8), max(1000 // count, 1) * count if count <= 1000 else 1000)
    canvas, top = titled_canvas(cells.shape[1], cells.shape[0] + 22, title, subtitle)
    canvas.text((MARGIN, top), f"{count} classes from above: label; from the left: predicted", TEXT, color=FAINT)
    canvas.paste((MARGIN, top + 22), cells)
    return canvas.pixels()


def _shade(share: float, color: tuple[int, int, int]) -> tuple[int, int, int]:
    # The square root makes small shares visible.
    strength = 0.06 + 0.94 * share**0.5 if share else 0.0
    red, green, blue = (round(250 + (channel - 250) * strength) for channel in color)
    return red, green, blue


def reliability_diagram(
    title: str, edges: NDArray[np.float64], counts: NDArray[np.int64], confidence: NDArray[np.float64],
    accuracy: NDArray[np.float64], subtitle: str = "",
) -> PixelArray:  # fmt: skip
    """Draws a reliability diagram (Guo et al., arXiv 1706.04599, figure 1) above the number of pictures in each bin.

    Args:
        title: The title of the picture.
        edges: The edges of the bins of confidence, from 0 to 1, shape (n + 1,).
        counts: The number of pictures in each bin, shape (n,).
        confidence: The mean confidence in each bin, shape (n,).
        accuracy: The share of right predictions in each bin, shape (n,).
        subtitle: The line below the title.

    Returns:
        uint8, shape (H, W, 3).
    """
    side, low, left = 320, 70, 58
    canvas, top = titled_canvas(left + side + 12, 16 + side + 14 + low + 40, title, subtitle)
    x0, y0 = MARGIN + left, top + 16
    bottom = y0 + side + 14 + low
    for tick in range(0, 101, 25):
        at = side * tick / 100
        for line in (
            (x0, y0 + side - at, x0 + side, y0 + side - at), (x0 + at, y0, x0 + at, y0 + side)
        ):  # fmt: skip
            canvas.draw.line(line, RULE)
        canvas.text((x0 - 5, y0 + side - at), f"{tick} %", SMALL, "rm", FAINT)
        canvas.text((x0 + at, bottom + 4), f"{tick} %", SMALL, "ma", FAINT)
    most = max(1, int(counts.max()))
    for low_edge, high_edge, number, mean, share in zip(
        edges[:-1], edges[1:], counts, confidence, accuracy, strict=True
    ):
        if not number:
            continue
        x1, x2 = x0 + side * low_edge + 1, x0 + side * high_edge - 1
        canvas.draw.rectangle((x1, y0 + side * (1 - share), x2, y0 + side), BLUE)
        # The orange frame is the gap between what the net claims and what is true.
        claimed, true = y0 + side * (1 - mean), y0 + side * (1 - share)
        canvas.draw.rectangle((x1, min(claimed, true), x2, max(claimed, true)), outline=ORANGE, width=2)
        canvas.draw.rectangle((x1, bottom - low * number / most, x2, bottom), FAINT)
    canvas.draw.line((x0, y0 + side, x0 + side, y0), INK)
    canvas.text((x0 + 8, y0 + 6), "on the line: as often", SMALL, "la", FAINT)
    canvas.text((x0 + 8, y0 + 22), "right as it claims", SMALL, "la", FAINT)
    canvas.text((x0, y0 - 3), "right (blue); gap to the confidence (orange)", SMALL, "lb")
    canvas.text((x0 - 5, bottom - low), f"{most:,}", SMALL, "rt", FAINT)
    canvas.text((x0 - 5, bottom), "pictures", SMALL, "rb", FAINT)
    canvas.text((x0 + side / 2, bottom + 22), "confidence: probability of the predicted class", SMALL, "ma")
    return canvas.pixels()
