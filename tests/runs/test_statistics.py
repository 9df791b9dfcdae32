import math

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from pet_cifar.runs import forecast, statistics
from pet_cifar.runs.statistics import LEVEL, LEVEL_OF_SEEDS, Noise, Rights
from pet_cifar.training.ridge import Floats, wilson_interval


def drawn(chances: Floats, runs: int, seed: int, shift: float = 0.0) -> Rights:
    """Runs that have each picture right with its own chance; ``shift`` moves a run's chances by its seed."""
    generator = np.random.default_rng(seed)
    own = np.clip(chances + shift * generator.normal(size=(runs, 1)), 0, 1)
    return np.asarray(generator.random((runs, len(chances))) < own)


def chances(count: int, accuracy: float, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).beta(accuracy, 1 - accuracy, count)


@pytest.mark.parametrize(("right", "count"), [(395, 400), (0, 7), (50, 50), (7364, 10_000)])
def test_an_accuracy_has_wilsons_interval(right: int, count: int) -> None:
    found = wilson_interval(right, count)
    assert found == pytest.approx(proportion_confint(right, count, method="wilson"), abs=1e-6)


def test_a_mean_over_seeds_has_students_interval() -> None:
    values = [0.736, 0.741, 0.748, 0.731]
    found = statistics.mean_of_seeds(values)
    assert (found.low, found.high) == pytest.approx(DescrStatsW(values).tconfint_mean())
    assert found.value == pytest.approx(np.mean(values))


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (6, 0), (5, 0), (20, 9), (300, 250)])
def test_mcnemar_is_exact(only_first: int, only_second: int) -> None:
    first = np.arange(2000) < 500 + only_first
    second = first.copy()
    second[500 : 500 + only_first] = False
    second[900 : 900 + only_second] = True
    b, c, p = statistics.mcnemar(first, second)
    assert (b, c) == (only_first, only_second)
    table = [[500, only_first], [only_second, 1]]
    assert p == pytest.approx(their_mcnemar(table, exact=True).pvalue if b + c else 1.0)


def test_six_pictures_are_the_fewest_that_tell_two_nets_apart() -> None:
    right = np.ones(400, bool)
    for count in (5, 6):
        wrong = right.copy()
        wrong[:count] = False
        found = statistics.difference(right[None], wrong[None])
        assert (found.p_of_looks < LEVEL) == (count == 6)
        assert (found.low > 1e-9) == (count == 6)


@pytest.mark.parametrize("values", [[0.01, 0.04, 0.03], [0.5], [0.2, 0.01, 0.01, 0.9], [0.05] * 4])
def test_several_tests_are_corrected_after_holm(values: list[float]) -> None:
    assert statistics.holm(values) == pytest.approx(multipletests(values, method="holm")[1])


def test_the_interval_of_two_nets_is_that_of_bonett_and_price() -> None:
    first, second = drawn(chances(3000, 0.8), 1, 1), drawn(chances(3000, 0.8), 1, 2)
    b, c, _ = statistics.mcnemar(first[0], second[0])
    p, q, n = (b + 1) / 3002, (c + 1) / 3002, 3002
    half = 1.96 * math.sqrt((p + q - (p - q) ** 2) / n)
    found = statistics.difference(first, second, resamples=20_000)
    assert (found.low, found.high) == pytest.approx((p - q - half, p - q + half), abs=5e-4)
    assert found.mean == pytest.approx((b - c) / 3000)


def test_groups_of_pictures_widen_the_interval() -> None:
    first, second = drawn(chances(100, 0.8), 1, 1), drawn(chances(100, 0.8), 1, 2)
    alone = statistics.difference(first, second)
    ten, other = (np.repeat(one, 10, axis=1) for one in (first, second))
    grouped = statistics.difference(ten, other, groups=np.repeat(np.arange(100), 10))
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.15)
    ungrouped = statistics.difference(ten, other)
    assert grouped.high - grouped.low > 2 * (ungrouped.high - ungrouped.low)


def test_seeds_that_vary_by_themselves_widen_the_interval() -> None:
    own = chances(2000, 0.8)
    still = statistics.difference(drawn(own, 4, 1), drawn(own, 4, 2))
    moving = statistics.difference(drawn(own, 4, 1, 0.05), drawn(own, 4, 2, 0.05))
    assert moving.noise.seeds > 0
    assert moving.high - moving.low > 1.5 * (still.high - still.low)
    assert moving.degrees < 60


def test_a_group_of_one_run_is_taken_to_vary_as_the_other() -> None:
    own = chances(2000, 0.8)
    several, one = drawn(own, 5, 3, 0.05), drawn(own, 1, 4, 0.05)
    found = statistics.difference(several, one)
    assert found.runs == 1
    assert found.noise.seeds > 0
    assert found.high - found.low > 2 * 1.96 * several.mean(1).std(ddof=1)


def test_the_difference_turned_round_is_the_other_ones() -> None:
    own = chances(500, 0.7)
    first, second = drawn(own, 3, 1), drawn(own, 3, 2)
    found, other = statistics.difference(first, second), statistics.difference(second, first)
    turned = found.turned()
    assert turned.mean == pytest.approx(other.mean)
    assert (turned.low, turned.high) == pytest.approx((other.low, other.high), abs=3e-3)
    assert (turned.only_first, turned.only_second) == pytest.approx((other.only_first, other.only_second))
    assert turned.p == pytest.approx(other.p)


def test_two_classes_spread_by_the_square_root_of_half_the_error() -> None:
    probabilities = np.random.default_rng(0).uniform(size=(1000, 1))
    right = np.arange(1000) < 900
    found = forecast.deviation_between_seeds(np.hstack([probabilities, 1 - probabilities]), right)
    assert found == pytest.approx(math.sqrt(0.1 / 2000))
    sure = np.eye(2)[np.zeros(1000, int)]
    assert forecast.deviation_between_seeds(sure, right) == pytest.approx(math.sqrt(0.1 / 2000))


def test_the_spread_that_is_forecast_is_that_of_nets_that_answer_by_their_probabilities() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([0.3] * 5, 4000)
    edges = probabilities.cumsum(1)
    labels, *answers = [(generator.random((4000, 1)) > edges).sum(1) for _ in range(31)]
    rights = np.stack(answers) == labels
    found = forecast.deviation_between_seeds(probabilities, rights[0])
    assert found == pytest.approx(rights.mean(1).std(ddof=1), rel=0.3)


@pytest.mark.parametrize("runs", [1, 3])
def test_the_pictures_that_are_forecast_show_the_difference(runs: int) -> None:
    own = chances(40_000, 0.8)
    worse = np.where(np.random.default_rng(9).random(40_000) < 0.04, 0.2, 1.0) * own
    first, second = drawn(own, runs, 1), drawn(worse, runs, 2)
    needed = math.ceil(forecast.pictures_needed(statistics.difference(first, second)))
    assert 200 < needed < 20_000
    generator = np.random.default_rng(3)
    found = []
    for _ in range(100):
        rows = generator.integers(0, 40_000, needed)
        found.append(statistics.difference(first[:, rows], second[:, rows], resamples=10))
    share = np.mean([one.p_of_looks < LEVEL and one.mean > 0 for one in found])
    assert share > forecast.POWER - 0.1


def test_no_number_of_pictures_shows_what_the_seeds_hide() -> None:
    noise = Noise(pictures=0.001, runs=0.1, seeds=0.0005)
    found = statistics.Difference(0.01, -0.1, 0.1, 0.8, 1, 1, noise, 4.0, 3, 1000, False)
    assert forecast.pictures_needed(found) == math.inf
    assert 20 < forecast.seeds_needed(found) < math.inf


def test_no_number_of_seeds_shows_what_the_pictures_hide() -> None:
    found = statistics.Difference(0.01, -0.1, 0.1, 0.8, 1, 1, Noise(0.5, 0.1, 0.0), math.inf, 3, 100, False)
    assert forecast.seeds_needed(found) == math.inf
    assert forecast.pictures_needed(found) > 5000


def test_looks_after_further_seeds_are_counted() -> None:
    own = chances(500, 0.7)
    one = statistics.difference(drawn(own, 1, 1), drawn(own, 1, 2))
    two = statistics.difference(drawn(own, 2, 1), drawn(own, 2, 2))
    assert one.p_of_looks == one.p
    assert two.p_of_looks == pytest.approx(min(1, two.p * LEVEL / LEVEL_OF_SEEDS))


def test_one_run_of_each_forecasts_seeds_from_what_they_are_expected_to_vary() -> None:
    own = chances(2000, 0.8)
    worse = np.where(np.random.default_rng(9).random(2000) < 0.04, 0.2, 1.0) * own
    found = statistics.difference(drawn(own, 1, 1), drawn(worse, 1, 2), deviations=(0.006, 0.006))
    assert found.runs == 1
    assert found.noise.runs > 0
    assert 2 <= forecast.seeds_needed(found) <= forecast.seeds_needed(found, pairs=10)
    assert forecast.pictures_needed(found) < forecast.pictures_needed(found, pairs=10)
