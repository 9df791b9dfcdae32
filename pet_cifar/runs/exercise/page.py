"""Writes the exercise as one page for a browser and for paper, which asks for nothing outside itself."""

from pathlib import Path

from markupsafe import Markup, escape

from pet_cifar.errors import disk_errors
from pet_cifar.runs.exercise.judgment import in_short, judgment_of
from pet_cifar.runs.exercise.plan import FULL
from pet_cifar.runs.exercise.sections import Exercise, sections_of
from pet_cifar.runs.report.template import render_template


def write(ex: Exercise, output: Path, command: str) -> None:
    """Writes the page.

    Args:
        ex: What there is to write about; ``missing`` gets a line for each thing that the page lacks.
        output: The file.
        command: The command that makes the page again.

    Raises:
        InputError: The file cannot be written.
    """
    html = render(ex, command)
    with disk_errors(output, "; give another --output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(html, encoding="utf-8", errors="backslashreplace")


def render(ex: Exercise, command: str) -> str:
    """The page."""
    sections = [*sections_of(ex), *judgment_of(ex)]
    return render_template(
        "pet_cifar.runs.exercise",
        sections=sections,
        short=in_short(ex),
        missing=list(dict.fromkeys(ex.missing)),
        mode=ex.mode.name,
        is_full=ex.mode.name == FULL.name,
        runs=sum(one.run is not None for one in ex.made),
        planned=len(ex.made),
        command=command,
        lines=_lines,
    )


def _lines(text: str) -> Markup:
    """A text of several lines, which a page may show as it is."""
    return escape(text)
