"""Ten ways to cheat are caught, and twenty honest histories are not accused."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from pet_cifar.data.test_log import LoggedTest
from pet_cifar.runs.comparison import Comparison, compare
from pet_cifar.runs.tested_run import read_run
from tests.runs.run_folders import answers, logged, make_run

History = tuple[list[Path], list[LoggedTest]]


def compared(runs: Iterable[Path], log: Iterable[LoggedTest]) -> Comparison:
    return compare([read_run(run) for run in runs], log)


def seeds(folder: Path, accuracy: float, count: int = 3, first: int = 0, **options: object) -> list[Path]:
    """Runs of one experiment with several seeds."""
    return [
        make_run(folder / f"version_{seed}", answers(accuracy, 1000 * round(100 * accuracy) + seed), seed, **options)  # type: ignore[arg-type]
        for seed in range(first, first + count)
    ]


def all_logged(runs: Iterable[Path]) -> list[LoggedTest]:
    return [logged(run) for run in runs]


def other_test_pictures(place: Path) -> History:
    one = make_run(place / "a/version_0", answers(0.9, 1, 300), test="easy")
    return [one, *seeds(place / "b", 0.8, options={"lr": 1})], []


def another_copy_of_the_pictures(place: Path) -> History:
    return [*seeds(place / "a", 0.9, test="original"), *seeds(place / "b", 0.8, test="jpeg", options={"lr": 1})], []


def more_training_pictures(place: Path) -> History:
    return [*seeds(place / "a", 0.9, train="more"), *seeds(place / "b", 0.8, options={"lr": 1})], []


def the_best_of_many_experiments(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9), *seeds(place / "b", 0.8, options={"lr": 1})]
    tried = [
        logged(make_run(place / f"tried_{number}/version_0", answers(0.8, number), options={"dropout": number}))
        for number in range(12)
    ]
    return runs, [*all_logged(runs), *tried]


def the_best_of_many_seeds(place: Path) -> History:
    many = seeds(place / "a", 0.85, 8)
    runs = [many[3], *seeds(place / "b", 0.8, options={"lr": 1})]
    return runs, all_logged([*many, *runs])


def the_best_of_many_checkpoints(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9), *seeds(place / "b", 0.8, options={"lr": 1})]
    return runs, [*all_logged(runs), *(logged(runs[0], checkpoint=f"epoch-{epoch}") for epoch in range(5))]


def one_run_under_two_names(place: Path) -> History:
    runs = seeds(place / "a", 0.9, 1)
    return [*runs, make_run(place / "b/version_0", answers(0.9, 90_000), options={"lr": 1})], []


def one_run_as_many_seeds(place: Path) -> History:
    runs = seeds(place / "a", 0.9, 1)
    return [
        *runs,
        make_run(place / "a/version_1", answers(0.9, 90_000), seed=1),
        *seeds(place / "b", 0.8, options={"lr": 1}),
    ], []


def one_run_as_many_seeds_with_noise(place: Path) -> History:
    own = answers(0.9, 90_000)
    noise = np.random.default_rng(0).uniform(-2e-5, 2e-5, own.shape)
    copies = [make_run(place / f"a/version_{seed}", own + (seed > 0) * noise, seed=seed) for seed in range(3)]
    return [*copies, *seeds(place / "b", 0.8, options={"lr": 1})], []


def one_run_as_many_seeds_in_another_order(place: Path) -> History:
    copies = [make_run(place / f"a/version_{seed}", answers(0.9, 1), seed, reverse=seed > 0) for seed in range(3)]
    return [*copies, *seeds(place / "b", 0.8, options={"lr": 1})], []


def some_seeds_with_more_pictures(place: Path) -> History:
    more = seeds(place / "a", 0.9, 2, 1, train="more")
    return [*seeds(place / "a", 0.9, 1), *more, *seeds(place / "b", 0.8, options={"lr": 1})], []


def one_seed_that_was_trained_many_times(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9), *seeds(place / "b", 0.8, options={"lr": 1})]
    again = [logged(make_run(place / f"a/version_{10 + n}", answers(0.8, n), seed=0)) for n in range(6)]
    return runs, [*all_logged(runs), *again]


def a_seed_that_was_stopped_by_hand(place: Path) -> History:
    cut = make_run(place / "b/version_5", answers(0.7, 5), 5, options={"lr": 1}, epochs=3, planned=10, state="stopped")
    return [*seeds(place / "a", 0.9), *seeds(place / "b", 0.8, options={"lr": 1}), cut], []


def a_longer_training(place: Path) -> History:
    return [*seeds(place / "a", 0.9, epochs=40), *seeds(place / "b", 0.8, options={"lr": 1}, epochs=10)], []


def a_rival_that_is_not_finished(place: Path) -> History:
    unfinished = seeds(place / "b", 0.8, options={"lr": 1}, epochs=10, planned=10, state="unfinished")
    return [*seeds(place / "a", 0.9), *unfinished], []


def near_copies_in_training(place: Path) -> History:
    return [*seeds(place / "a", 0.9, leaking=40), *seeds(place / "b", 0.8, options={"lr": 1})], []


def trained_on_the_test_pictures(place: Path) -> History:
    return [*seeds(place / "a", 0.9, train="test-pictures"), *seeds(place / "b", 0.8, options={"lr": 1})], []


def figures_that_were_typed(place: Path) -> History:
    runs = [*seeds(place / "a", 0.8), *seeds(place / "b", 0.8, options={"lr": 1})]
    file = runs[0] / "test" / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "test/acc": 0.99}))
    return runs, []


def predictions_that_were_typed(place: Path) -> History:
    runs = [*seeds(place / "a", 0.8), *seeds(place / "b", 0.8, options={"lr": 1})]
    file = runs[0] / "test" / "predictions.csv"
    rows = [line.split(",") for line in file.read_text().splitlines()]
    better = [[path, label, label, *rest] for path, label, _, *rest in rows[1:]]
    file.write_text("\n".join(",".join(row) for row in [rows[0], *better]) + "\n")
    (runs[0] / "test" / "metrics.json").write_text(json.dumps({"test/acc": 1.0}))
    return runs, []


def a_net_with_one_answer(place: Path) -> History:
    constant = np.tile([0.9, 0.1], (400, 1))
    return [*seeds(place / "a", 0.8), make_run(place / "b/version_0", constant, options={"lr": 1})], []


CHEATS: dict[Callable[[Path], History], str] = {
    other_test_pictures: "other pictures (300 and 400)",
    another_copy_of_the_pictures: "another copy",
    more_training_pictures: "other training pictures",
    the_best_of_many_experiments: "often tested",
    the_best_of_many_seeds: "seeds left out",
    the_best_of_many_checkpoints: "chosen by the test",
    one_run_under_two_names: "same predictions",
    one_run_as_many_seeds: "same predictions",
    one_run_as_many_seeds_with_noise: "same predictions",
    one_run_as_many_seeds_in_another_order: "same predictions",
    some_seeds_with_more_pictures: "other training pictures",
    one_seed_that_was_trained_many_times: "chosen by the test",
    a_seed_that_was_stopped_by_hand: "unfinished",
    a_longer_training: "other budget",
    a_rival_that_is_not_finished: "unfinished",
    near_copies_in_training: "near duplicates",
    trained_on_the_test_pictures: "trained on the test",
    figures_that_were_typed: "contradiction",
    predictions_that_were_typed: "contradiction",
    a_net_with_one_answer: "one answer",
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_a_way_to_cheat_is_caught(cheat: Callable[[Path], History], tmp_path: Path) -> None:
    found = compared(*cheat(tmp_path))
    told = [finding.kind for finding in found.findings if finding.is_serious]
    refused = [verdict.words for verdict in found.verdicts if verdict.difference is None]
    assert CHEATS[cheat] in told or any(CHEATS[cheat] in words for words in refused), (told, refused)


def one_run(place: Path) -> History:
    runs = seeds(place / "a", 0.9, 1)
    return runs, all_logged(runs)


def five_seeds(place: Path) -> History:
    runs = seeds(place / "a", 0.9, 5)
    return runs, all_logged(runs)


def two_experiments(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9), *seeds(place / "b", 0.85, options={"lr": 1})]
    return runs, all_logged(runs)


def two_equal_experiments(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9), *seeds(place / "b", 0.9, 3, 10, options={"lr": 1})]
    return runs, all_logged(runs)


def one_run_each(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9, 1), *seeds(place / "b", 0.85, 1, options={"lr": 1})]
    return runs, all_logged(runs)


def other_numbers_of_seeds(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9, 5), *seeds(place / "b", 0.85, 2, options={"lr": 1})]
    return runs, all_logged(runs)


def three_experiments(place: Path) -> History:
    runs = [
        run
        for number in range(3)
        for run in seeds(place / f"net_{number}", 0.8 + 0.05 * number, options={"lr": number})
    ]
    return runs, all_logged(runs)


def a_test_that_was_repeated(place: Path) -> History:
    runs = seeds(place / "a", 0.9)
    return runs, [*all_logged(runs), *all_logged(runs), *all_logged(runs)]


def a_run_that_was_tested_before_and_after_it_went_on(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9), *seeds(place / "b", 0.8, options={"lr": 1})]
    return runs, [*all_logged(runs), logged(runs[0], checkpoint="earlier")]


def a_few_experiments_before(place: Path) -> History:
    tried = [make_run(place / f"t{n}/version_0", answers(0.8, n), options={"dropout": n}) for n in range(5)]
    runs = [*seeds(place / "a", 0.9), *seeds(place / "b", 0.8, options={"lr": 1})]
    return runs, all_logged([*tried, *runs])


def other_pictures_were_tested(place: Path) -> History:
    tried = [make_run(place / f"t{n}/version_0", answers(0.8, n), options={"dropout": n}) for n in range(15)]
    runs = seeds(place / "a", 0.9)
    return runs, [*all_logged(runs), *(logged(run, test="other") for run in tried)]


def an_early_stop(place: Path) -> History:
    stopped = seeds(place / "b", 0.88, epochs=7, planned=10, options={"lr": 1})
    runs = [*seeds(place / "a", 0.9, epochs=10, planned=10), *stopped]
    return runs, all_logged(runs)


def the_same_time_for_each(place: Path) -> History:
    runs = [
        *seeds(place / "a", 0.9, epochs=40, planned=-1, budget=3600),
        *seeds(place / "b", 0.88, epochs=10, planned=-1, budget=3600, options={"lr": 1}),
    ]
    return runs, all_logged(runs)


def another_speed(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9, seconds=600), *seeds(place / "b", 0.8, seconds=60, options={"lr": 1})]
    return runs, all_logged(runs)


def many_classes(place: Path) -> History:
    names = [f"class_{number}" for number in range(10)]
    runs = [
        make_run(place / f"{name}/version_0", answers(accuracy, 1, 2000, 10), names=names, options={"lr": accuracy})
        for name, accuracy in (("a", 0.9), ("b", 0.7))
    ]
    return runs, all_logged(runs)


def a_run_of_an_earlier_version(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9), *seeds(place / "b", 0.8, options={"lr": 1})]
    (runs[0] / "run.json").unlink()
    (runs[0] / "test" / "scored.json").unlink()
    (runs[1] / "run.json").unlink()
    return runs[1:], all_logged(runs[1:])


def nothing_is_logged(place: Path) -> History:
    return [*seeds(place / "a", 0.9), *seeds(place / "b", 0.8, options={"lr": 1})], []


def a_layout_with_another_order(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9), *seeds(place / "b", 0.8, options={"lr": 1}, reverse=True)]
    return runs, all_logged(runs)


def the_pictures_moved(place: Path) -> History:
    runs = seeds(place / "a", 0.9)
    moved = place / "elsewhere" / "a"
    shutil.copytree(place / "a", moved)
    return [moved / run.name for run in runs], all_logged(runs)


def a_few_near_duplicates(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9, leaking=1), *seeds(place / "b", 0.8, leaking=1, options={"lr": 1})]
    return runs, all_logged(runs)


def near_duplicates_were_not_looked_for(place: Path) -> History:
    runs = [*seeds(place / "a", 0.9, leaking=None), *seeds(place / "b", 0.8, leaking=None, options={"lr": 1})]
    return runs, all_logged(runs)


def a_perfect_net(place: Path) -> History:
    runs = [make_run(place / f"{name}/version_0", np.eye(2)[np.arange(400) % 2] * 0.8 + shift, options={"lr": shift})
            for name, shift in (("a", 0.1), ("b", 0.05))]  # fmt: skip
    return runs, all_logged(runs)


HONEST = [
    one_run,
    five_seeds,
    two_experiments,
    two_equal_experiments,
    one_run_each,
    other_numbers_of_seeds,
    three_experiments,
    a_test_that_was_repeated,
    a_run_that_was_tested_before_and_after_it_went_on,
    a_few_experiments_before,
    other_pictures_were_tested,
    an_early_stop,
    the_same_time_for_each,
    another_speed,
    many_classes,
    a_run_of_an_earlier_version,
    nothing_is_logged,
    a_layout_with_another_order,
    the_pictures_moved,
    a_few_near_duplicates,
    near_duplicates_were_not_looked_for,
    a_perfect_net,
]


@pytest.mark.parametrize("history", HONEST, ids=lambda history: history.__name__)
def test_an_honest_history_is_not_accused(history: Callable[[Path], History], tmp_path: Path) -> None:
    found = compared(*history(tmp_path))
    assert [finding.text for finding in found.findings if finding.is_serious] == []
    assert all(verdict.difference is not None for verdict in found.verdicts)


def test_the_very_same_figure_of_two_nets_is_told(tmp_path: Path) -> None:
    count = 20_000
    truth = np.arange(count) % 2
    first, second = (np.random.default_rng(seed).random(count) < 0.7 for seed in (1, 2))
    extra = int(first.sum() - second.sum())
    rows = np.flatnonzero(first if extra > 0 else second)[: abs(extra)]
    (first if extra > 0 else second)[rows] = False
    runs = [
        make_run(
            tmp_path / name / "version_0", np.eye(2)[np.where(right, truth, 1 - truth)] * 0.8 + 0.1, options={"lr": lr}
        )
        for name, right, lr in (("a", first, 1), ("b", second, 2))
    ]
    found = compared(runs, [])
    assert [finding.kind for finding in found.findings] == ["same figure"]


@pytest.mark.parametrize(
    "cheat",
    [one_run_as_many_seeds, one_run_as_many_seeds_with_noise, one_run_as_many_seeds_in_another_order],
    ids=lambda cheat: cheat.__name__,
)
def test_a_copied_run_counts_once(cheat: Callable[[Path], History], tmp_path: Path) -> None:
    found = compared(*cheat(tmp_path))
    assert sorted(len(one.runs) for one in found.experiments) == [1, 3]


def test_the_report_card_of_one_seed_is_no_cheat(tmp_path: Path) -> None:
    runs = seeds(tmp_path / "a", 0.9, 3)
    found = compared(runs[:1], all_logged(runs))
    assert [(finding.kind, finding.is_serious) for finding in found.findings] == [("seeds left out", False)]
