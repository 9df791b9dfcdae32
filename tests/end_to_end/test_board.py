"""TensorBoard as a user sees it: a real run, the real server, a real browser."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from pet_cifar.cli.main import main
from pet_cifar.cli.tensorboard import run_board
from tests.cli.kills import apart
from tests.end_to_end.browser import browser as browser

DIGITS = str(Path(__file__).parents[2] / "configs" / "digits_residual.yaml")
# The path is made absolute here, before a test goes to a directory of its own.
SCREENSHOTS = Path(os.environ["PET_CIFAR_SCREENSHOTS"]).absolute() if "PET_CIFAR_SCREENSHOTS" in os.environ else None
# No test of a tab asks for anything that the theme changes, so that the dark one is only opened to be photographed.
# test_images looks at our pictures in both.
THEMES = ("light",) if SCREENSHOTS is None else ("light", "dark")
MANY_STEPS = 30
"""The steps of the picture `MANY_TAG`. TensorBoard keeps ten unless it is told otherwise."""
MANY_TAG = "sample_pictures/many"


class Server:
    """``pet-cifar board`` in a process of its own."""

    def __init__(self, *runs: Path, home: Path | None = None) -> None:
        command = [sys.executable, "-m", "pet_cifar", "board", *map(str, runs), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=home)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"at (http://127\.0\.0\.1:\d+/)", line)
        if found is None:
            self.process.kill()
        assert found, line
        self.url = found[1]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return str(answer.read().decode())

    def images(self) -> list[str]:
        """The tags of all pictures, as TensorBoard's page asks for them."""
        runs = json.loads(self.get("data/plugin/images/tags"))
        return sorted({tag for tags in runs.values() for tag in tags})

    def stop(self) -> int:
        """Stops the server as Ctrl-C does, and returns its exit status."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=30)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()


def names_of_runs(*runs: Path) -> list[str]:
    """The runs that ``pet-cifar board`` shows; it serves them in a fork of this process, where all is imported."""
    reading, writing = os.pipe()

    def serve() -> None:
        os.dup2(writing, 1)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        run_board([*map(str, runs), "--port", "0"])

    board = multiprocessing.get_context("fork").Process(target=serve)
    board.start()
    os.close(writing)
    try:
        with os.fdopen(reading) as printed:
            found = re.search(r"at (http://127\.0\.0\.1:\d+/)", printed.readline())
            assert found
            with urllib.request.urlopen(found[1] + "data/runs", timeout=30) as answer:
                names: list[str] = json.loads(answer.read())
            assert board.pid is not None
            os.kill(board.pid, signal.SIGINT)
            board.join(30)
        assert board.exitcode == 0
        return names
    finally:
        board.kill()


@pytest.fixture(scope="module", autouse=True)
def _children_hear_ctrl_c() -> Iterator[None]:
    """Lets the servers hear SIGINT.

    A shell without job control starts background jobs with SIGINT ignored. Where the tests are such a job, their
    children would inherit that, and a server would never stop.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Trains and tests two runs with every picture that there is."""
    home = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("runs"))
    try:
        epochs = os.environ.get("PET_CIFAR_BOARD_EPOCHS", "2")
        for options in (["--model.lr", "0.005"], ["--model.lr", "0.02"]):
            extra = ["--trainer.callbacks+", "GradCAM", "--trainer.callbacks+", "Embeddings", *options]
            main(
                ["fit", "--config", DIGITS, "--trainer.max_epochs", epochs, "--trainer.log_every_n_steps", "5", *extra]
            )
            main(["test", "--run", "lightning_logs/digits_residual"])
        runs = sorted(Path("lightning_logs/digits_residual").absolute().iterdir())
        with SummaryWriter(runs[0]) as writer:
            for step in range(MANY_STEPS):
                writer.add_image(MANY_TAG, torch.rand(3, 4, 4), step)
        return runs
    finally:
        os.chdir(home)


@pytest.fixture(scope="module")
def server(runs: list[Path]) -> Iterator[Server]:
    # The path is relative, because the page shows it.
    server = Server(Path("lightning_logs/digits_residual"), home=runs[0].parents[2])
    yield server
    assert server.stop() == 0


def test_every_step_of_a_picture_is_kept(server: Server) -> None:
    images = server.get(f"data/plugin/images/images?run=version_0&tag={MANY_TAG}&sample=0")
    assert images.count('"step"') == MANY_STEPS


@pytest.mark.filterwarnings("ignore")  # They are those of TensorBoard's own packages.
def test_runs_of_the_same_name_are_all_shown(runs: list[Path], tmp_path: Path) -> None:
    copies = [tmp_path / name / "digits" / "version_0" for name in "ab"]
    for copy in copies:
        shutil.copytree(runs[0], copy)
    assert len(names_of_runs(*copies)) == 2


@pytest.mark.filterwarnings("ignore")  # They are those of TensorBoard's own packages.
def test_several_runs_and_no_others(runs: list[Path], tmp_path: Path) -> None:
    third = tmp_path / "digits" / "version_7"
    shutil.copytree(runs[0], third)
    assert sorted(names_of_runs(runs[0], third)) == ["digits_residual_version_0", "digits_version_7"]


def test_a_signal_that_another_thread_receives_ends_the_waiting() -> None:
    script = """
import signal, threading, time
from pet_cifar.cli.tensorboard import wait

def interrupt():
    time.sleep(1)  # By then the main thread waits.
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    wait()
except KeyboardInterrupt:
    print("ended")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "ended\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no directory nowhere"),
        (["."], "holds no TensorBoard files; train something first"),
        ([], "there is no directory lightning_logs"),
        (["--prot", "6006"], "unrecognized arguments: --prot; did you mean --port?"),
        (["--port", "x"], "invalid int value: 'x'"),
        ([str(Path(__file__).parent), "--port", "70000"], "--port 70000: a port is from 0 to 65535"),
    ],
)
def test_wrong_use_is_answered_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["board", *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.filterwarnings("ignore")  # They are those of TensorBoard's own packages.
def test_a_taken_port_is_answered_in_one_line(server: Server, runs: list[Path]) -> None:
    port = server.url.rstrip("/").rpartition(":")[2]
    status, said = apart(["board", str(runs[0]), "--port", port])
    assert status == 2
    assert "give another --port" in said.splitlines()[-1]


# The browser


class Look(Protocol):
    """Opens TensorBoard's page at a tab and, at the end, leaves a screenshot of that name."""

    def __call__(
        self, tab: str, theme: str, name: str, width: int = 1200, whole: bool = False
    ) -> AbstractContextManager[Any]: ...


@pytest.fixture
def look(browser: Any, server: Server, tmp_path: Path) -> Look:
    @contextmanager
    def opened(tab: str, theme: str, name: str, width: int = 1200, whole: bool = False) -> Iterator[Any]:
        directory = tmp_path if SCREENSHOTS is None else SCREENSHOTS
        directory.mkdir(parents=True, exist_ok=True)
        page = browser.new_page(viewport={"width": width, "height": 760}, color_scheme=theme)
        page.set_default_timeout(60_000)
        try:
            page.goto(f"{server.url}#{tab}")
            yield page
            page.screenshot(path=directory / f"{name}_{theme}.png", full_page=whole)
        finally:
            page.close()

    return opened


def drawn_pictures(page: Any) -> list[list[int]]:
    """Lists width and height of every picture on the page that has been decoded."""
    script = "images => images.filter(one => one.complete).map(one => [one.naturalWidth, one.naturalHeight])"
    # The tags that match the filter come first, and all others below.
    matches = page.locator("tf-category-paginated-view").first
    sizes: list[list[int]] = matches.locator("tf-image-loader img").evaluate_all(script)
    return [size for size in sizes if min(size) > 50]


def curves(page: Any, card: str) -> int:
    """Counts the curves on the page that have more than one point."""
    script = "paths => paths.filter(one => (one.getAttribute('d') || '').includes('L')).length"
    return int(page.locator(f"{card} path.line").evaluate_all(script))


def wait_until(page: Any, condition: Any) -> None:
    for _ in range(120):
        if condition():
            return
        page.wait_for_timeout(500)
    raise AssertionError("it did not come within a minute")


def look_at_images(look: Look, tags: Sequence[str], theme: str, name: str) -> None:
    with look(f"images&tagFilter=^({'|'.join(tags)})$", theme, f"images_{name}") as page:
        for tag in tags:
            page.get_by_text(f"tag: {tag}").first.wait_for()
        wait_until(page, lambda: len(drawn_pictures(page)) == 2 * len(tags))
        page.get_by_text("Show actual image size").click()
        page.wait_for_timeout(300)


# Every picture brings its own white sheet, so one shows what the dark theme makes of all.
DOCUMENTED = ("feature_maps/backbone.0", "predictions/confusion_matrix/val")
CARDS = 12
"""The number of cards that TensorBoard shows on one page of a group."""


@pytest.mark.parametrize(("tag", "theme"), [*((tag, "light") for tag in DOCUMENTED), (DOCUMENTED[-1], "dark")])
def test_images(look: Look, tag: str, theme: str) -> None:
    look_at_images(look, [tag], theme, tag.removeprefix("predictions/").replace("/", "_"))


def test_an_image_of_every_other_group(look: Look, server: Server) -> None:
    tag_of_group = {tag.partition("/")[0]: tag for tag in server.images() if tag != MANY_TAG}
    for tag in DOCUMENTED:
        del tag_of_group[tag.partition("/")[0]]
    tags, at_once = list(tag_of_group.values()), CARDS // 2
    for start in range(0, len(tags), at_once):
        look_at_images(look, tags[start : start + at_once], "light", f"others_{start}")


def test_the_images_tab_begins_with_what_the_net_sees_and_ends_with_calibration(look: Look) -> None:
    with look("images", "light", "images") as page:
        headings = page.locator("tf-category-paginated-view .category-name")
        headings.first.wait_for()
        groups = headings.all_inner_texts()
        assert groups[:4] == ["feature_maps", "first_layer_filters", "grad_cam", "mistakes"]
        assert groups[-1] == "uncertainty"


@pytest.mark.parametrize("theme", THEMES)
def test_scalars(look: Look, theme: str) -> None:
    with look("scalars&tagFilter=^val/acc$", theme, "scalars") as page:
        page.get_by_text("tag: val/acc").first.wait_for()
        wait_until(page, lambda: curves(page, "tf-scalar-card") >= 2)


@pytest.mark.parametrize("theme", THEMES)
def test_custom_scalars(look: Look, theme: str) -> None:
    with look("custom_scalars", theme, "custom_scalars") as page:
        page.get_by_text("learning rate").first.wait_for()
        wait_until(page, lambda: curves(page, "tf-custom-scalar-multi-line-chart-card") >= 8)


@pytest.mark.parametrize("theme", THEMES)
def test_hparams(look: Look, theme: str) -> None:
    with look("hparams", theme, "hparams", width=1600) as page:
        for text in ("best val/acc", "test/acc", "parameters", "training seconds", "net", "lr"):
            page.get_by_text(text, exact=True).first.wait_for(state="attached")
        wait_until(page, lambda: page.get_by_text("ResidualCNN", exact=True).count() >= 2)
        wait_until(page, lambda: page.get_by_text("78042", exact=False).count() >= 2)
        assert page.get_by_text("hp_metric").count() == 0
        # TensorBoard shows five hyper-parameters, and beside them the most important result without scrolling.
        right_edges = page.get_by_text("best val/acc", exact=True).evaluate_all(
            "found => found.map(one => one.getBoundingClientRect()).filter(box => box.width).map(box => box.right)"
        )
        assert max(right_edges) <= 1600


@pytest.mark.parametrize("theme", THEMES)
def test_pr_curves(look: Look, theme: str) -> None:
    with look("pr_curves&tagFilter=^pr/val_[0-3]$", theme, "pr_curves") as page:
        page.get_by_text("tag: pr/val_3").first.wait_for()
        wait_until(page, lambda: curves(page, "tf-pr-curve-card") >= 4)


@pytest.mark.parametrize("theme", THEMES)
def test_text(look: Look, theme: str) -> None:
    with look("text&tagFilter=^run/", theme, "text", whole=True) as page:
        for text in ("pet-cifar fit --config", "class_path: ", "split_seed 0", "total parameters", "torchmetrics"):
            page.locator("tf-text-loader").get_by_text(text).first.wait_for(state="attached")


@pytest.mark.parametrize("theme", THEMES)
def test_projector(look: Look, theme: str) -> None:
    with look("projector", theme, "projector") as page:
        frame = page.frame_locator("iframe").frame_locator("iframe")
        frame.get_by_text("Points: 180").first.wait_for(state="attached")
        frame.locator("canvas").first.wait_for()
        page.wait_for_timeout(3000)  # An animation brings the points to their places.
