"""Commands in processes of their own, and how long those that are left will take."""

from pathlib import Path

import pytest

from pet_cifar.cli.processes import Processes, TimeLeft, last_error
from tests.training.test_budget import Clock


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of Python, which prints its device, its words and an error."""
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $MORE $*"\necho "pet-cifar: error: no such net" >&2\nexit 2'
    )
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))


@pytest.mark.usefixtures("shell")
def test_a_command_leaves_its_status_and_all_that_it_printed(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "own.log"
    processes = Processes()
    assert processes.run(["fit", "--model", "a b"], log, device="3", extra={"MORE": "more"}) == 2
    assert processes.run(["test"], log) == 2
    lines = log.read_text().splitlines()
    assert lines[:2] == ["$ pet-cifar fit --model 'a b'", "3 more -m pet_cifar fit --model a b"]
    assert "$ pet-cifar test" in lines
    assert last_error(log) == "no such net"


def test_a_program_that_prints_no_error_is_told_by_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("epoch 3\nSegmentation fault\n\n")
    assert last_error(log) == "Segmentation fault"


def test_nothing_begins_after_a_stop(tmp_path: Path) -> None:
    processes = Processes()
    processes.stop()
    assert processes.run(["--version"], tmp_path / "log") != 0


def test_the_time_that_is_left_is_that_of_like_runs() -> None:
    clock = Clock()
    left = TimeLeft(["plain", "residual", "plain", "residual", "plain"], clock=clock)
    assert left.left() is None
    began = left.start()
    clock.now += 100
    assert left.done("plain", began) == 100
    assert left.left() == 400  # Nothing else is known of the other config.
    began = left.start()
    clock.now += 10
    left.done("residual", began)
    assert left.left() == 100 + 10 + 100
    began = left.start()
    clock.now += 1
    left.done("plain", began, counts=False)  # It failed.
    assert left.left() == 110
    assert "2 left" in left.words()


def test_several_devices_share_the_time_and_a_budget_foretells_the_first_run() -> None:
    left = TimeLeft(["plain"] * 4, lanes=2, expected=60, clock=Clock())
    assert left.left() == 120
    assert TimeLeft([]).left() == 0
