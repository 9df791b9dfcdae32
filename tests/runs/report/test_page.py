import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pet_cifar.runs.comparison import Comparison, compare
from pet_cifar.runs.comparison_table import SHOWN_COLUMNS, cells
from pet_cifar.runs.report.page import MOST_LINES, render
from pet_cifar.runs.report.svg import MOST_STYLES
from pet_cifar.runs.tested_run import read_run
from tests.runs.report.synthetic import comparison
from tests.runs.run_folders import answers, make_run

HOSTILE = "<img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The tags of a page, which must be closed in their order, with the text of each and the addresses it asks for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.cells: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)
        if self.open and self.open[-1] in ("th", "td"):
            self.cells[-1] += data


def page_of(found: Comparison, missing: tuple[str, ...] = ()) -> tuple[str, Page]:
    html = render(found, [], missing, "report", "pet-cifar compare logs --output report.html")
    return html, Page(html)


def test_the_page_begins_with_what_may_be_concluded_and_holds_every_section(tmp_path: Path) -> None:
    found = comparison(tmp_path)
    html, page = page_of(found, ("the pictures are elsewhere",))
    assert page.headings == [
        *("Comparison of 2 experiments", "What may be concluded", "What could mislead", "Table", "Training"),
        *("Accuracy and its cost", "Classes", "Confusions", "Reliability", "Pictures on which they disagree"),
        *("Options that differ", "Runs"),
    ]
    assert html.index(escape(found.verdicts[0].words)) < html.index("<table>")
    assert "the pictures are elsewhere." in html
    assert "pet-cifar compare logs --output report.html" in html


def test_the_table_has_every_column_of_every_experiment(tmp_path: Path) -> None:
    found = comparison(tmp_path)
    _, page = page_of(found)
    assert {column.head for column in SHOWN_COLUMNS} <= set(page.cells)
    for one in found.experiments:
        assert set(cells(one, SHOWN_COLUMNS)) <= set(page.cells)
    assert "[8]" not in page.cells
    assert {"model.init_args.lr", "0", "1"} <= set(page.cells)


def test_heads_of_tables_say_what_they_are_of(tmp_path: Path) -> None:
    _, page = page_of(comparison(tmp_path))
    assert page.tags.count("th") == sum(name == "scope" for name, _ in page.attributes)
    drawings = [value for name, value in page.attributes if name == "aria-label"]
    assert len(drawings) >= page.tags.count("figure")


def test_nothing_outside_the_page_is_asked_for(tmp_path: Path) -> None:
    html, page = page_of(comparison(tmp_path))
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href") and not value.startswith("data:")]
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_names_from_elsewhere_are_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / f"<b>bold{HOSTILE.replace('/', '')}" / "version_0", answers(0.7, 1, 60, 3), names=(
        HOSTILE, '"><script>x</script>', "\x1b[31mred\u202e"), options={HOSTILE: HOSTILE})  # fmt: skip
    other = make_run(tmp_path / "plain" / "version_0", answers(0.9, 2, 60, 3), names=(
        HOSTILE, '"><script>x</script>', "\x1b[31mred\u202e"), options={"lr": "{{ 7 * 7 }}"})  # fmt: skip
    html, page = page_of(compare([read_run(run), read_run(other)]), (HOSTILE,))
    assert not {"b", "script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", html)
    assert "{{ 7 * 7 }}" in html


def test_many_experiments_and_classes_stay_readable_and_small(tmp_path: Path) -> None:
    count = MOST_STYLES + 2
    found = comparison(tmp_path, [f"net_{n}" for n in range(count)], 1, [f"class {n}" for n in range(100)], 300)
    html, page = page_of(found)
    assert len(html) < 1_000_000
    text = " ".join(html.split())
    assert "2 experiments with lower accuracy are in the tables alone" in text
    assert f"{len(found.verdicts) - MOST_LINES} more verdicts" in text
    assert "20 of 100 classes are shown" in text
    assert f"The 4 most accurate of {MOST_STYLES} experiments are shown." in text
    assert {one.name for one in found.experiments} <= set(page.cells)


def test_a_single_run_has_a_report_card(tmp_path: Path) -> None:
    html, page = page_of(comparison(tmp_path, ("net",), 1))
    assert page.headings[:2] == ["Report card of net", "What could mislead"]
    assert "Its surest mistakes" in page.headings
    assert not {"What may be concluded", "Accuracy and its cost", "Options that differ"} & set(page.headings)
    assert re.search(r"\d&nbsp;% are right", html)
    assert re.search(r"\.scroll \{[^}]*gradient", html)
    assert "a 95 % interval over the test pictures" in " ".join(html.split())


def test_runs_of_other_classes_stand_apart(tmp_path: Path) -> None:
    three = make_run(tmp_path / "three" / "version_0", answers(0.9, 1, 300, 3), names=("cat", "dog", "cow"))
    two = make_run(tmp_path / "two" / "version_0", answers(0.8, 1, 300, 2), test="others")
    html, _ = page_of(compare([read_run(three), read_run(two)]))
    assert "not comparable" in html
    assert "1 with other classes or test pictures than the first is left out" in html


@pytest.mark.parametrize("lacking", ["metrics.csv", "run.json", "config.yaml", "test/metrics.json", "test/scored.json"])
def test_a_run_of_an_earlier_version_has_a_page(lacking: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "old" / "version_0", answers(0.8, 1, 60))
    (run / lacking).unlink()
    _, page = page_of(compare([read_run(run)]))
    assert ("Training" in page.headings) == (lacking != "metrics.csv")


def test_a_class_without_pictures_and_a_net_of_one_answer_have_a_page(tmp_path: Path) -> None:
    sure = np.tile([1.0, 0.0, 0.0], (2, 1))
    run = make_run(tmp_path / "odd" / "version_0", sure, names=("cat", "dog", "cow"))
    html, _ = page_of(compare([read_run(run)]))
    assert "1 of 3 classes have no test pictures" in html
