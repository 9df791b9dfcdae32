"""How often a run draws, by a clock that a test moves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning import Callback

from pet_cifar.callbacks import Board, drawing_time
from pet_cifar.callbacks.drawing_time import LARGEST_SHARE, DrawingTime
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback
from pet_cifar.data import ImageDataModule
from pet_cifar.models import ResidualCNN
from pet_cifar.training import ImageClassifier
from tests.callbacks.small_runs import digits, run

STEPS = 3


class Clock:
    """Stands until somebody moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(drawing_time, "monotonic", found)
    return found


class Steps(Callback):
    """Lets every step take a second."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, *_: Any) -> None:
        self.clock.now += 1


class Slow(ImageCallback):
    """Takes so many seconds for a drawing."""

    by_default = False

    def __init__(self, clock: Clock, seconds: float, every_n_epochs: int | None = None) -> None:
        super().__init__(every_n_epochs)
        self.clock, self.seconds = clock, seconds
        self.drawn: list[str] = []

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        self.clock.now += self.seconds
        self.drawn.append(when)
        board.image("slow", torch.zeros(2, 2, dtype=torch.uint8).numpy())


def train(clock: Clock, *pictures: ImageCallback, epochs: int) -> Board:
    board = Board()
    run(ResidualCNN(image_size=8, widths=[4]), digits(8), [board, Steps(clock), *pictures], epochs=epochs)
    return board


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # An epoch takes 3 s, of which a twenty-fifth is 0.12 s.
        (0.01, ["at the start", *(f"after {n} epoch{'s' if n > 1 else ''}" for n in range(1, 13))]),
        # The start, one more and the end are 1.2 s, which are a twenty-fifth of 30 s and so of ten epochs.
        (0.4, ["at the start", "after 10 epochs", "after 12 epochs"]),
        (2.0, ["at the start", "after 12 epochs"]),
    ],
)
def test_a_run_draws_as_often_as_a_twenty_fifth_of_its_time_allows(
    seconds: float, expected: list[str], clock: Clock
) -> None:
    slow = Slow(clock, seconds)
    board = train(clock, slow, epochs=12)
    assert slow.drawn == expected
    assert board.time.num_drawn == len(expected)
    # What the last epoch leaves out, the end makes.
    assert board.time.num_left_out == 12 - sum(when.startswith("after") for when in expected[:-1]) - (seconds < 0.1)
    assert board.time.drawn == pytest.approx(len(expected) * seconds)
    assert board.time.seconds == pytest.approx(12 * STEPS + len(expected) * seconds)
    if len(expected) > 2:
        assert board.time.share <= LARGEST_SHARE


def test_what_is_asked_for_is_drawn_however_long_it_takes(clock: Clock) -> None:
    asked, usual = Slow(clock, 9.0, every_n_epochs=1), Slow(clock, 0.01)
    board = train(clock, asked, usual, epochs=3)
    assert len(asked.drawn) == len(usual.drawn) == 4
    assert board.time.drawn == pytest.approx(0.04)


def test_one_line_tells_of_drawings_that_were_left_out(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines(act: Callable[[], object]) -> list[str]:
        caplog.clear()
        with caplog.at_level("INFO", "pet_cifar"):
            act()
        return [record.message for record in caplog.records if "every_n_epochs" in record.message]

    assert lines(lambda: train(clock, Slow(clock, 0.001), epochs=2)) == []
    (line,) = lines(lambda: train(clock, Slow(clock, 2.0), epochs=3))
    assert "3 of 5 drawings" in line


def test_a_run_that_goes_on_goes_on_counting(clock: Clock) -> None:
    before, after = DrawingTime(), DrawingTime()
    before.start()
    with before.measured("maps"):
        clock.now += 1
    clock.now += 79
    state = before.state_dict()
    clock.now += 1000  # Between the kill and the resume nothing is trained.
    after.load_state_dict(state)
    assert after.state_dict() == state
    after.start()
    clock.now += 1
    assert (after.drawn, after.seconds) == (1, 81)
    assert after.affords("maps")
    before.drawn = after.drawn = 2
    assert not after.affords("maps")
