"""The sentences of the exercise follow the figures."""

from pathlib import Path

import pytest

from pet_cifar.runs.comparison import Comparison, compare
from pet_cifar.runs.curves import Curve
from pet_cifar.runs.exercise import text
from pet_cifar.runs.exercise.plan import QUICK, THEN
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.tested_run import TestedRun, read_run
from tests.runs.run_folders import answers, make_run


def runs(folder: Path, name: str, accuracy: float, seeds: int = 3) -> list[TestedRun]:
    return [
        read_run(
            make_run(folder / name / f"version_{seed}", answers(accuracy, 10 * len(name) + seed), seed,
                     options={"net": name})
        )
        for seed in range(seeds)
    ]  # fmt: skip


def three(folder: Path, plain: float, inception: float, residual: float, seeds: int = 3) -> Comparison:
    shares = zip(THEN, (plain, inception, residual), strict=True)
    return compare([run for name, share in shares for run in runs(folder, name, share, seeds)])


def test_an_accuracy_comes_with_its_interval_and_its_noise(tmp_path: Path) -> None:
    (one,) = runs(tmp_path, "a", 0.8, seeds=1)
    alone = text.accuracy(Experiment("a", (one,)))
    assert f"{one.right.sum()} of 400 test pictures" in alone
    assert "over the test pictures" in alone
    several = text.accuracy(Experiment("b", tuple(runs(tmp_path, "b", 0.8))))
    assert several.startswith("3 runs")
    assert "over the seeds" in several


@pytest.mark.parametrize(
    ("train", "val", "validated", "told"),
    [
        ([0.6, 0.99], [0.6, 0.7], 400, "by heart in part"),
        ([0.6, 0.72], [0.6, 0.7], 400, "no sign"),
        ([0.6, 0.65], [0.6, 0.7], 400, "5.00 points below validation"),
        ([0.6], [0.5], 400, "no curve"),
        ([0.6, 0.99], [0.6, 0.7], None, "Validation is best after epoch 2"),
        ([], [], 400, "no curves"),
    ],
)
def test_what_curves_show(train: list[float], val: list[float], validated: int | None, told: str) -> None:
    epochs = list(range(1, len(val) + 1))
    curves = {"train/acc": Curve(epochs, train), "val/acc": Curve(epochs, val)}
    assert told in text.learning(curves, validated)


def test_a_short_run_says_how_short() -> None:
    assert "100 times as many pictures" in text.length(QUICK.lengths["cifar10_plain"], 45_000, 100.0)
    assert "times" not in text.length(QUICK.lengths["cifar10_plain"], 45_000, 1.0)


def test_the_figures_of_then_are_quoted_and_their_twins_are_named() -> None:
    lines = " ".join(text.then_alone())
    for figure in ("73.64 %", "74.80 %", "slight improvement", "overlap", "very same number"):
        assert figure in lines


def test_a_better_residual_net_is_concluded_with_its_interval(tmp_path: Path) -> None:
    lines = text.conclusion(three(tmp_path, 0.6, 0.75, 0.9), is_full=True)
    assert "the residual net is better than the plain net" in lines[0]
    assert "95 % interval" in lines[0]
    assert not any("full mode" in line for line in lines)


def test_a_worse_residual_net_is_the_opposite_of_then(tmp_path: Path) -> None:
    line = text.conclusion(three(tmp_path, 0.9, 0.75, 0.6), is_full=False)[0]
    assert "the plain net is better" in line
    assert "opposite" in line


def test_runs_that_decide_nothing_conclude_nothing(tmp_path: Path) -> None:
    lines = text.conclusion(three(tmp_path, 0.75, 0.75, 0.755), is_full=False)
    assert "nothing may be concluded" in lines[0]
    assert any("full mode" in line for line in lines)


def test_other_test_pictures_conclude_nothing(tmp_path: Path) -> None:
    plain = runs(tmp_path, "cifar10_plain", 0.6)
    other = read_run(make_run(tmp_path / "cifar10_residual/version_0", answers(0.9, 1), options={"a": 1}, test="other"))
    line = text.conclusion(compare([*plain, other]), is_full=True)[0]
    assert "nothing may be concluded here" in line
    assert "cannot be compared" in line


def test_a_net_that_is_missing_concludes_nothing(tmp_path: Path) -> None:
    (line,) = text.conclusion(compare(runs(tmp_path, "cifar10_plain", 0.6)), is_full=True)
    assert "nothing may be concluded here" in line


def test_what_a_seed_moves_is_held_against_the_gain_of_then(tmp_path: Path) -> None:
    lines = text.then_in_the_light_of_now(three(tmp_path, 0.6, 0.75, 0.9))
    assert len(lines) == 2
    assert "1.16 points" in lines[1]
    assert "(standard deviation, measured)" in lines[1]
    alone = text.then_in_the_light_of_now(three(tmp_path / "one", 0.6, 0.75, 0.9, seeds=1))
    assert "forecast from a single run" in alone[1]
