"""The exercise from its runs to its page, on synthetic pictures and on nothing at all, and as a reader sees it."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pet_cifar.cli.config_files import shipped_configs
from pet_cifar.cli.exercise import make_planned
from pet_cifar.cli.main import main
from pet_cifar.cli.processes import Processes
from pet_cifar.runs.exercise.make import make
from pet_cifar.runs.exercise.plan import QUICK, Length, Mode
from tests.cli.commands import refused, status_of
from tests.conftest import write_cats_dogs, write_cifar10_folders
from tests.end_to_end.browser import browser as browser

NARROW = ("--model.widths", "[8]", "--trainer.max_epochs", "1")
TINY = Mode(
    "tiny",
    {
        "cats_dogs_cnn": Length(epochs=2, per_class=2000),
        "cifar10_plain": Length(epochs=1, seeds=2),
        "cifar10_inception": Length(epochs=1, options=NARROW),
        "cifar10_residual": Length(epochs=1, options=NARROW),
    },
    options=(*QUICK.options, "--trainer.enable_progress_bar", "false"),
)
SECTIONS = (
    *("The pictures of cats and dogs", "A small CNN", "VGG16 at 200 pixels", "VGG16 at 500 pixels"),
    *("The pictures of CIFAR-10", "plain net", "inception blocks", "residual blocks"),
    *("Cats and dogs: which", "CIFAR-10: which", "What may be concluded", "How this was made"),
)


def in_this_process(self: Processes, words: Sequence[str], log: Path, *others: object) -> int:
    """Runs a command where everything is imported already."""
    main(list(words))
    return 0


def make_tiny(folder: Path) -> list[str]:
    """Makes the exercise in the working directory, and gives the lines of what is missing."""
    return make(
        TINY,
        root="data",
        weights=None,
        folder=folder / "runs",
        output=folder / "exercise.html",
        configs=shipped_configs(),
        command="pet-cifar exercise --mode tiny",
        say=lambda line: None,
        make_runs=make_planned,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A page of four nets on synthetic pictures without VGG16's weights, and what is missing on it."""
    home, folder = Path.cwd(), tmp_path_factory.mktemp("exercise")
    write_cats_dogs(folder / "data")
    write_cifar10_folders(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pet_cifar.models.vgg16._imagenet", _no_weights)
        patch.setattr(Processes, "run", in_this_process)
        os.chdir(folder)
        try:
            missing = make_tiny(folder)
        finally:
            os.chdir(home)
    return folder, missing


def _no_weights() -> None:
    from pet_cifar.errors import InputError

    raise InputError("cannot download VGG16's ImageNet weights; give a file: --model.weights PATH")


def headings(html: str) -> list[str]:
    return re.findall(r"<h2>\d+\. (.*?)</h2>", html)


# On a machine of two cores Lightning advises more workers for every loader; ours are threads.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_item_of_the_exercise_is_there_in_its_order(made: tuple[Path, list[str]]) -> None:
    folder, missing = made
    html = (folder / "exercise.html").read_text()
    assert all(part in heading for part, heading in zip(SECTIONS, headings(html), strict=True))
    for told in (
        "same number as the 4,737,473 that Keras printed",
        "same number as the 1,442,954 that Keras printed",
        "all 32 maps of 198 x 198",
        "all 64 maps of 97 x 97",
        "the 32 filters of 3 x 3",
        "Is a larger size an augmentation?",
        "73.64 %",
        "74.80 %",
        "the full mode shows the net",
    ):
        assert told in html, told
    assert "pet-cifar exercise --mode tiny" in html
    # The weights, and the four nets that need them.
    assert len(missing) == 5
    assert "--weights FILE" in missing[0]
    assert "--weights FILE" in html


def test_the_page_is_one_small_file_with_words_for_every_picture(made: tuple[Path, list[str]]) -> None:
    html = (made[0] / "exercise.html").read_text()
    assert len(html) < 8_000_000
    sources = re.findall(r'<img src="([^"]*?)[;,"][^>]*? alt="([^"]*)"', html)
    assert len(sources) > 15
    assert all(source == "data:image/webp" and alt for source, alt in sources)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)


def test_what_was_made_is_found_again(made: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, missing = made
    monkeypatch.chdir(folder)
    monkeypatch.setattr("pet_cifar.models.vgg16._imagenet", _no_weights)
    monkeypatch.setattr(Processes, "run", None)
    before = (folder / "exercise.html").read_text()
    assert make_tiny(folder) == missing
    assert (folder / "exercise.html").read_text() == before


def test_nothing_at_hand_still_makes_a_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_cifar.data.files.download._PAUSE", 0)
    assert status_of("exercise", "--data.root", "nowhere", "--output", "out/page.html") == 1
    html = Path("out/page.html").read_text()
    assert all(part in heading for part, heading in zip(SECTIONS, headings(html), strict=True))
    assert "4,718,624" in html  # The nets are listed without any run.
    assert "they overlap" in html
    errors = capsys.readouterr().err
    for lack in ("pictures of cats and dogs", "pictures of CIFAR-10", "--weights FILE"):
        assert any(lack in line for line in errors.splitlines() if line.startswith("missing: "))
        assert lack in html


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--mode", "fast"], ["--mode", "'fast'", "quick, full"]),
        (["--output", "page.pdf"], ["--output page.pdf"]),
        (["--runs", "a_file"], ["--runs a_file"]),
        (["--weights", "none.safetensors"], ["--weights none.safetensors"]),
        (["--weights", "none"], ["--weights none"]),
        (["--weights", "a_file"], ["a_file"]),
        (["--modes", "full"], ["--mode"]),
    ],
)
def test_a_wrong_option_is_told_in_one_line(
    words: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a_file").write_text("nothing")
    line = refused(capsys, "exercise", *words)
    assert all(word in line for word in told)


@pytest.mark.parametrize(("width", "theme"), [(1200, "light"), (1200, "dark"), (360, "light")])
def test_a_reader_sees_all_of_it(browser: Any, made: tuple[Path, list[str]], width: int, theme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda one: asked.append(one.url))
    address = (made[0] / "exercise.html").as_uri()
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.locator("img").evaluate_all("images => images.map(one => one.naturalWidth)")
    assert min(sizes) > 50
    wide = "elements => elements.filter(one => one.getBoundingClientRect().right > innerWidth + 1).length"
    assert page.locator("h1, h2, h3, p, li, figure, img, svg").evaluate_all(wide) == 0
    page.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
