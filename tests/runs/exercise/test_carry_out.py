"""Runs of the exercise: made where they are missing, found again, gone on with, and told of where they fail."""

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pet_cifar.runs.exercise import carry_out
from pet_cifar.runs.exercise.carry_out import LAST, Made, make_all
from pet_cifar.runs.exercise.plan import QUICK, Planned, runs_of
from tests.runs.run_folders import answers, make_run

FOLDER = Path("runs")


def planned(root: str = "data") -> Planned:
    return runs_of(QUICK, root, "imagenet", {}, str(FOLDER))[0]


class Commands:
    """Stands in for ``pet-cifar``: ``fit`` leaves a run directory, and ``test`` its predictions.

    Args:
        state: The state in which a ``fit`` ends.
        status: The exit status of the verb ``fails``.
        fails: The verb that fails.
    """

    def __init__(self, state: str = "finished", status: int = 0, fails: str = "") -> None:
        self.state, self.status, self.fails = state, status, fails
        self.seen: list[list[str]] = []

    def __call__(self, words: Sequence[str], log: Path) -> int:
        self.seen.append(list(words))
        if words[0] == self.fails:
            log.write_text("some line\npet-cifar: error: --model.lr 0: give another\n")
            return self.status
        if words[0] == "fit":
            folder = FOLDER / "lightning_logs" / "cats_dogs_cnn"
            run = folder / f"version_{len(list(folder.glob('*')))}"
            make_run(run, answers(0.8, 1), epochs=2, state=self.state)
            record = json.loads((run / "run.json").read_text())
            (run / "run.json").write_text(json.dumps({**record, "command": f"pet-cifar {shlex.join(words)}"}))
            (run / "test" / "predictions.csv").rename(run / "predictions.csv")
            if self.state != "finished":
                (run / LAST).parent.mkdir()
                (run / LAST).touch()
        else:
            run = Path(words[words.index("--run") + 1])
            (run / "predictions.csv").rename(run / "test" / "predictions.csv")
        return 0


def make(commands: Commands, one: Planned | None = None) -> Made:
    said: list[str] = []
    (made,) = make_all([one or planned()], FOLDER, commands, clock=lambda: 0.0, say=said.append)
    assert all(line.startswith("[1/1] cats_dogs_cnn, seed 0: ") for line in said)
    assert (made.problem in said[-1]) if made.problem else ("%" in said[-1])
    return made


def test_a_run_is_trained_and_tested_once() -> None:
    commands = Commands()
    first = make(commands)
    assert [words[0] for words in commands.seen] == ["fit", "test"]
    assert first.run is not None
    again = make(commands)
    assert len(commands.seen) == 2
    assert again.run is not None
    assert again.run.directory == first.run.directory


def test_a_run_that_was_not_tested_is_only_tested() -> None:
    commands = Commands(fails="test", status=1)
    assert make(commands).run is None
    commands.fails = ""
    assert make(commands).run is not None
    assert [words[0] for words in commands.seen] == ["fit", "test", "test"]


def test_a_run_on_other_data_is_another_one() -> None:
    commands = Commands()
    make(commands)
    make(commands, planned("elsewhere"))
    assert [words[0] for words in commands.seen] == ["fit", "test"] * 2


def test_a_run_that_was_killed_goes_on_with_its_whole_curve() -> None:
    killed = Commands(state="unfinished")
    assert "stopped" in make(killed).problem
    before = FOLDER / "lightning_logs/cats_dogs_cnn/version_0"
    (before / "metrics.csv").write_text("epoch,val/acc\n0,0.25\n")
    commands = Commands()
    made = make(commands)
    assert commands.seen[0][-2:] == ["--ckpt_path", str(before / LAST)]
    assert made.curves is not None
    assert made.curves["val/acc"].epochs == [1, 2]
    # The run that went on has logged this epoch, too, and the later one counts.
    assert made.curves["val/acc"].values[0] == pytest.approx(0.5)
    (made.run.directory / "metrics.csv").write_text("epoch,val/acc\n1,0.75\n")  # type: ignore[union-attr]
    whole = make(commands).curves
    assert whole is not None
    assert whole["val/acc"].values == [0.25, 0.75]
    assert len(commands.seen) == 2


def test_why_a_run_failed_is_its_own_line() -> None:
    problem = make(Commands(fails="fit", status=2)).problem
    assert "--model.lr 0: give another" in problem
    assert "status 2" in problem


def test_a_failure_without_such_a_line_names_the_log() -> None:
    class Dies(Commands):
        def __call__(self, words: Sequence[str], log: Path) -> int:
            log.write_text("Killed\n")
            return -9

    problem = make(Dies()).problem
    assert "Killed" in problem
    assert str(FOLDER / "cats_dogs_cnn_seed0.log") in problem


def test_a_damaged_test_is_told_and_stops_nothing() -> None:
    commands = Commands()
    made = make(commands)
    assert made.run is not None
    (made.run.directory / "test" / "predictions.csv").write_text("nothing\n")
    problem = make(commands).problem
    assert "predictions.csv" in problem
    assert str(made.run.directory) in problem


@pytest.mark.parametrize("hangs", [False, True])
def test_an_interrupted_wait_stops_its_process(hangs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Process:
        def __init__(self, words: Sequence[str], **options: object) -> None:
            assert words[1:] == ["-m", "pet_cifar", "fit", "--config", "digits_residual"]

        def wait(self, timeout: float | None = None) -> int:
            done.append("wait")
            if timeout is None:
                raise KeyboardInterrupt
            if hangs:
                raise subprocess.TimeoutExpired("fit", timeout)
            return 0

        def terminate(self) -> None:
            done.append("terminate")

        def kill(self) -> None:
            done.append("kill")

    monkeypatch.setattr(subprocess, "Popen", Process)
    with pytest.raises(KeyboardInterrupt):
        carry_out.in_a_process(["fit", "--config", "digits_residual"], Path("log"))
    assert done == ["wait", "terminate", "wait", "kill"]
