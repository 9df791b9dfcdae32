"""Writes what an examination found: an offline page with pictures, and two tables."""

import base64
import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment
from numpy.typing import NDArray
from PIL import Image

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.files.parallel import map_in_threads
from pet_cifar.data.manifest import ImageRecord
from pet_cifar.data.pixels.decode import DecodeError, decode
from pet_cifar.doctor.examination import Examination, Line, summarize
from pet_cifar.doctor.shortcuts import Shortcut
from pet_cifar.errors import disk_errors
from pet_cifar.hardware import cores
from pet_cifar.names import as_cell, printable

SIDE = 160
"""The longer side in pixels of a picture on the page."""
BINS = 24
"""The bars of each class in a histogram."""


@dataclass(frozen=True)
class Finding:
    """One picture with what was found in it.

    Attributes:
        row: Its row in the examination.
        kind: What was found.
        detail: A figure, or the path of another picture.
        is_proposed: Whether it is proposed to be left out.
    """

    row: int
    kind: str
    detail: str
    is_proposed: bool = False


@dataclass(frozen=True)
class Section:
    """One part of the page: a title, a sentence, and pictures in groups.

    Attributes:
        title, text: What is shown, and what it means.
        groups: The findings that belong together; most groups have one.
        left: How many groups are not shown.
    """

    title: str
    text: str
    groups: Sequence[Sequence[Finding]]
    left: int


def findings_of(found: Examination) -> Iterator[Finding]:
    """Every picture in which something was found, the most important first; a picture may come several times."""
    errors = found.label_errors
    if errors is not None:
        # An upper limit says nothing of how many are wrong, and then nothing is proposed.
        likely = 0 if errors.is_upper_limit else round(errors.share * len(found.records))
        for place, row in enumerate(errors.suspects.tolist()):
            name = found.class_names[errors.predicted[row]]
            yield Finding(row, "suspect label", f"{name}? ({errors.margin[row]:.2f})", place < likely)
    for row in found.blank.tolist():
        yield Finding(row, "blank", "", True)
    for group in found.groups:
        for row in group:
            other = next(one for one in group if one != row)
            yield Finding(row, "near duplicate", found.records[other].path)
    for kind, rows in (("odd shape", found.odd), ("small", found.small)):
        for row in rows.tolist():
            record = found.records[row]
            yield Finding(row, kind, f"{record.width} x {record.height}")


def write(found: Examination, data: ImageDataModule, folder: Path, most: int) -> None:
    """Writes ``index.html``, ``findings.csv`` and ``exclude.csv`` into a new folder.

    Args:
        found: What was found.
        data: The data module, which reads the pictures again.
        folder: The folder, which is made.
        most: How many groups of pictures each section of the page shows.

    Raises:
        InputError: The folder cannot be written.
    """
    all_findings = list(findings_of(found))
    sections = list(_sections(found, all_findings, most))
    shown = sorted({finding.row for section in sections for group in section.groups for finding in group})
    read = partial(_thumbnail, data)
    images = map_in_threads(lambda row: read(found.records[row]), shown, cores(), "drawing the page")
    thumbnails = dict(zip(shown, images, strict=True))
    source = files("pet_cifar.doctor").joinpath("page.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    html = page.render(
        found=found,
        proposed=proposed_rows(all_findings),
        lines=list(summarize(found)),
        sections=sections,
        thumbnails=thumbnails,
        paths=[printable(record.path) for record in found.records],
        shortcuts=[(shortcut, _histogram(found, shortcut)) for shortcut in found.shortcuts],
        source=printable(str(data.folder)),
        colors=COLORS,
    )
    with disk_errors(folder, "; give another --output"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").write_text(html, encoding="utf-8", errors="backslashreplace")
        with (folder / "findings.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "split", "finding", "detail"))
            for finding in all_findings:
                record = found.records[finding.row]
                cells = (record.path, record.label, found.splits[finding.row], finding.kind, finding.detail)
                writer.writerow(map(as_cell, cells))
        with (folder / "exclude.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "reason"))
            for finding in {finding.row: finding for finding in reversed(all_findings) if finding.is_proposed}.values():
                writer.writerow(map(as_cell, (found.records[finding.row].path, f"{finding.kind} {finding.detail}")))


def proposed_rows(findings: Iterable[Finding]) -> set[int]:
    """The pictures that are proposed to be left out, for any reason."""
    return {finding.row for finding in findings if finding.is_proposed}


def table(lines: Sequence[Line]) -> str:
    """The summary as text, one finding a line and its advice below."""
    width = max(len(line.finding) for line in lines)
    return "\n".join(
        f"{line.finding:<{width}}  {line.figure}" + (f"\n{'':<{width}}  -> {line.advice}" if line.advice else "")
        for line in lines
    )


def _sections(found: Examination, findings: Sequence[Finding], most: int) -> Iterator[Section]:
    texts = {
        "suspect label": "The other pictures say another class, the most certain first. The number is the score of the "
        "label less that of the other class: -2 is certain, 0 is undecided. A head that was solved from all other "
        "groups of pictures scores each one.",
        "near duplicate": "The pictures of a row show the same, perhaps mirrored, cropped or compressed. On two sides "
        "of a split they make a test score too good.",
        "blank": "There is hardly any contrast in these pictures.",
        "odd shape": "These pictures are squashed to a square, in which their subject is hard to know.",
        "small": "These pictures have few pixels, and are enlarged.",
    }
    for kind, text in texts.items():
        own = [finding for finding in findings if finding.kind == kind]
        if not own:
            continue
        if kind == "near duplicate":
            by_row = {finding.row: finding for finding in own}
            # A group with two labels says more than one of copies.
            ordered = sorted(found.groups, key=lambda group: len({found.records[row].label for row in group}) == 1)
            groups = [[by_row[row] for row in group] for group in ordered]
        else:
            groups = [[finding] for finding in own]
        yield Section(f"{kind}s" if kind != "small" else "small pictures", text, groups[:most], len(groups[most:]))


COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#555555")
"""Colors that people with any color vision tell apart (Okabe and Ito, 2008)."""


def _histogram(found: Examination, shortcut: Shortcut) -> list[list[float]]:
    """The heights of a measure's bars for each class, of 0 to 1; the outermost percent at each end is cut off."""
    low, high = np.percentile(shortcut.values, [1, 99])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    clipped = np.clip(shortcut.values, edges[0], edges[-1])
    shares = [
        np.histogram(clipped[found.labels == label], edges)[0] / max(1, int((found.labels == label).sum()))
        for label in range(min(len(found.class_names), len(COLORS)))
    ]
    top = max(float(share.max()) for share in shares) or 1.0
    return [(share / top).tolist() for share in shares]


def _thumbnail(data: ImageDataModule, record: ImageRecord) -> str:
    """A picture as a data URI; one in an array is taken as the data module reads it."""
    file = data.folder / record.path
    try:
        pixels: NDArray[np.uint8] = decode(file.read_bytes(), None, 3) if file.is_file() else data.read(record)
    except DecodeError:  # The file has changed since it was checked.
        pixels = np.zeros((3, 8, 8), np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.thumbnail((SIDE, SIDE))
    return as_data_uri(image)


def as_data_uri(image: Image.Image) -> str:
    """A picture as JPEG within the address of an ``img``, so that a page needs no file beside it."""
    stream = BytesIO()
    image.save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
