"""What pages of this package share: how their template is filled in, their style sheet, and the samples of legends."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment

from pet_cifar.names import printable
from pet_cifar.runs.report.svg import COLORS, Style, Svg

FILE = "page.html.jinja"


def render_template(package: str, **values: Any) -> str:
    """Fills in the template of a page; its ``style`` and ``swatch`` are there by themselves.

    Names come from elsewhere. Autoescape keeps them text, and `printable` keeps control codes out of them.

    Args:
        package: The package that has the template `FILE`.
        values: What the template asks for.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_plain)
    sheet = files("pet_cifar.runs.report").joinpath("style.css.jinja").read_text(encoding="utf-8")
    style = environment.from_string(sheet).render(colors=range(COLORS))
    source = files(package).joinpath(FILE).read_text(encoding="utf-8")
    return environment.from_string(source).render(style=style, swatch=swatch, **values)


def _plain(value: Any) -> Any:
    return printable(value) if type(value) is str else value


def swatch(style: Style) -> Svg:
    """A sample of a series' line and mark for the legend."""
    sheet = Svg(26, 12, "")
    sheet.line((0, 6), (26, 6), f"line {style.css}")
    sheet.mark((13, 6), style, size=4)
    return sheet
