"""Runs of the exercise are read, and one that cannot be read stops none of the others."""

from pathlib import Path

from pet_cifar.runs.exercise.made import read_made
from pet_cifar.runs.exercise.plan import QUICK, runs_of
from tests.runs.run_folders import answers, make_run


def test_what_was_made_is_read_and_what_was_not_says_why() -> None:
    planned = runs_of(QUICK, "data", "imagenet", {}, "runs")[:4]
    good, damaged, torn = (make_run(Path(f"logs/net/version_{n}"), answers(0.8, n), n) for n in range(3))
    (damaged / "test" / "predictions.csv").write_text("nothing\n")
    (torn / "metrics.csv").write_text("epoch,val/acc\nzero,0.5\n")
    first, second, third, fourth = read_made(planned, [good, damaged, torn, "--model.lr 0: give another"])
    assert first.run is not None
    assert first.run.directory == good
    assert "predictions.csv" in second.problem
    assert f"remove {damaged}" in second.problem
    assert "metrics.csv" in third.problem
    assert fourth.problem == "--model.lr 0: give another"
    assert [one.run is None for one in (second, third, fourth)] == [True] * 3
