"""The report of a comparison as a reader sees it, in a real browser."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pet_cifar.cli.main import main
from tests.end_to_end.browser import browser as browser
from tests.runs.conftest import digits_run as digits_run
from tests.runs.report.synthetic import two_runs

SCREENSHOTS = Path(os.environ["PET_CIFAR_SCREENSHOTS"]).absolute() if "PET_CIFAR_SCREENSHOTS" in os.environ else None


@pytest.fixture(scope="module")
def report(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs on digits, of which one has a name that is longer than a phone is wide."""
    folder = tmp_path_factory.mktemp("report")
    runs = two_runs(digits_run, folder, ("first", "another_experiment_with_a_name_that_is_longer_than_a_phone_is_wide"))
    output = folder / "report.html"
    main(["compare", *map(str, runs), "--output", str(output)])
    return output


@pytest.fixture(params=[(1200, "light"), (1200, "dark"), (360, "light")], ids=lambda one: f"{one[0]}-{one[1]}")
def page(browser: Any, report: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page in a window of some width and theme; nothing may be complained of, and nothing asked for."""
    width, theme = request.param
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda one: asked.append(one.url))
    try:
        page.goto(report.as_uri())
        yield page
        if SCREENSHOTS is not None:
            page.screenshot(path=SCREENSHOTS / f"report_{width}_{theme}.png", full_page=True)
    finally:
        page.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]


def test_the_page_asks_for_nothing_and_fits_any_window(page: Any) -> None:
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure svg").count() > 8
    assert page.locator(".pictures img").count() > 8
    # A picture that a policy keeps back has no size.
    sizes = page.locator(".pictures img").evaluate_all("images => images.map(one => one.naturalWidth)")
    assert min(sizes) > 50
    wide = """elements => elements.filter(one => one.getBoundingClientRect().right > innerWidth + 1).length"""
    assert page.locator("h1, h2, h3, p, li, figure, svg").evaluate_all(wide) == 0


def test_letters_and_lines_follow_the_theme(browser: Any, report: Path) -> None:
    seen = {}
    for theme in ("light", "dark"):
        page = browser.new_page(color_scheme=theme)
        page.goto(report.as_uri())
        script = "one => getComputedStyle(one)"
        paper = page.locator("body").evaluate(f"({script})(document.body).backgroundColor")
        seen[theme] = (
            paper,
            *(
                page.locator(css).first.evaluate(f"one => ({script})(one).{key}")
                for css, key in (("svg text", "fill"), ("svg .line", "stroke"), ("svg .mark", "fill"))
            ),
        )
        page.close()
    assert all(light != dark for light, dark in zip(*seen.values(), strict=True))


def test_paper_is_white_and_nothing_on_it_is_cut_off(browser: Any, report: Path) -> None:
    # An A4 page has 184 mm between the margins, which are 695 pixels.
    page = browser.new_page(viewport={"width": 695, "height": 1000}, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(report.as_uri())
    assert page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor") == "rgb(255, 255, 255)"
    wide = "elements => elements.filter(one => one.getBoundingClientRect().right > innerWidth + 1).length"
    assert page.locator("table, figure, p").evaluate_all(wide) == 0
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
