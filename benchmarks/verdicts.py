"""Measures whether the verdicts of ``pet-cifar compare`` keep their promise.

    python benchmarks/short_runs.py --root data --logs runs      # makes the runs, once
    python benchmarks/verdicts.py --runs runs/lightning_logs

What it does is drawn from real runs: the test pictures of an experiment are drawn anew with replacement, and so are its
seeds. Two experiments that draw from the same runs are equally good. A true gain is made by calling some wrong pictures
of one of them right, at random, in all its runs. Four promises are tried, in ``--pairs`` simulated pairs each:

- two equally good nets (one run each): "better" is said in at most 5 %;
- two equally good experiments, compared after 2 seeds and again after each further one up to ``--seeds``: "better" is
  said at any of these looks in at most 5 %;
- the 95 % interval covers the true difference;
- with as many test pictures as were forecast for the true gain, "better" is said in at least 80 %.

The last table compares the forecast of the spread between seeds with what the seeds of each experiment show.
"""

import math
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import positive, run_or_explain

from pet_cifar.errors import InputError
from pet_cifar.runs import forecast, statistics
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.statistics import LEVEL, Rights
from pet_cifar.runs.tested_run import find_tested, read_run
from pet_cifar.training.ridge import wilson_interval

RESAMPLES = 1000
MOST_PICTURES = 2000
"""The number of test pictures that a simulated test has at most, since more only take longer."""


def main() -> None:
    """Tries every promise and prints a table for each."""
    options = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=Path, required=True, help="the lightning_logs of benchmarks/short_runs.py")
    options.add_argument("--pairs", type=positive, default=2000, help="how many pairs are simulated for each promise")
    options.add_argument("--seeds", type=positive, default=8, help="after how many seeds one looks for the last time")
    arguments = options.parse_args()
    experiments = read_experiments(arguments.runs)
    pools = {one.name: one.rights for one in experiments}
    generator = np.random.default_rng(0)
    each = math.ceil(arguments.pairs / len(pools))
    print(f"{len(pools)} experiments of {', '.join(str(len(rights)) for rights in pools.values())} runs\n")
    say_nets(pools, each, generator)
    say_looks(pools, each, arguments.seeds, generator)
    say_power(pools, each, generator)
    say_spread(experiments)


def read_experiments(folder: Path) -> list[Experiment]:
    """The experiments that have two tested runs or more."""
    found = []
    for directory in sorted(path for path in folder.iterdir() if path.is_dir()):
        runs = tuple(read_run(run) for run in find_tested(directory)[0])
        if len(runs) > 1:
            found.append(Experiment(directory.name, runs))
    if not found:
        raise InputError(f"--runs {folder}: there is no experiment with two tested runs; make them: short_runs.py")
    return found


def drawn(pool: Rights, runs: int, rows: NDArray[np.int64], generator: np.random.Generator) -> Rights:
    """Runs of an experiment, drawn with replacement where there are too few, on drawn pictures."""
    seeds = generator.permutation(len(pool))[:runs]
    if runs > len(pool):
        seeds = generator.integers(0, len(pool), runs)
    return np.asarray(pool[np.ix_(seeds, rows)])


def drawn_rows(pool: Rights, generator: np.random.Generator, count: int | None = None) -> NDArray[np.int64]:
    """Pictures of a test, drawn with replacement."""
    return generator.integers(0, pool.shape[1], count or min(pool.shape[1], MOST_PICTURES))


def say_nets(pools: dict[str, Rights], pairs: int, generator: np.random.Generator) -> None:
    """Two equally good nets: where only one of two real nets has a picture right, either may be the one."""
    wrong = total = covered = 0
    for pool in pools.values():
        for number in range(pairs):
            first, second = drawn(pool, 2, drawn_rows(pool, generator), generator)
            turned = generator.random(len(first)) < 0.5
            a, b = np.where(turned, second, first), np.where(turned, first, second)
            found = statistics.difference(a[None], b[None], resamples=RESAMPLES, seed=number)
            wrong, total = wrong + (found.p_of_looks < LEVEL), total + 1
            covered += found.low <= 0 <= found.high
    print("| equally good nets, one run each | of pairs |\n| --- | --- |")
    print(f"| called better | {_share(wrong, total)} |\n| interval covers 0 | {_share(covered, total)} |\n", flush=True)


def say_looks(pools: dict[str, Rights], pairs: int, seeds: int, generator: np.random.Generator) -> None:
    """Two equally good experiments, looked at again after each further seed."""
    wrong, covered = dict.fromkeys(pools, 0), dict.fromkeys(range(2, seeds + 1), 0)
    for name, pool in pools.items():
        for number in range(pairs):
            rows = drawn_rows(pool, generator)
            first, second = (pool[generator.integers(0, len(pool), seeds)][:, rows] for _ in range(2))
            looks = [
                statistics.difference(first[:runs], second[:runs], resamples=RESAMPLES, seed=number) for runs in covered
            ]
            wrong[name] += any(look.p_of_looks < LEVEL for look in looks)
            for look in looks:
                covered[look.runs] += look.low <= 0 <= look.high
    total = pairs * len(pools)
    print(f"| equally good experiments, looks after 2 to {seeds} seeds | called better at any look |\n| --- | --- |")
    for name, count in wrong.items():
        print(f"| {name} | {_share(count, pairs)} |")
    print(f"| all | {_share(sum(wrong.values()), total)} |\n\n| seeds | interval covers the truth |\n| --- | --- |")
    for runs, count in covered.items():
        print(f"| {runs} | {_share(count, total)} |")
    print(f"| all | {_share(sum(covered.values()), total * len(covered))} |\n", flush=True)


def say_power(pools: dict[str, Rights], pairs: int, generator: np.random.Generator) -> None:
    """Experiments with a true gain, tested on as many pictures as the forecast asks for."""
    print("| runs of each | pairs | pictures forecast (median) | called better | interval covers the gain |")
    print("|" + " --- |" * 5)
    for runs in (1, 3):
        counts: list[int] = []
        better = covered = total = 0
        for pool in pools.values():
            for number in range(pairs // 2):
                own = drawn(pool, 2 * runs, np.arange(pool.shape[1]), generator)
                # A part of the pictures that are mostly wrong is made right in all runs of the first experiment.
                share = generator.uniform(0.05, 0.3)
                helped = generator.random(pool.shape[1]) < share * (1 - pool.mean(0))
                first, second = own[:runs] | helped, own[runs:]
                pilot = statistics.difference(first, second, resamples=10)
                needed = forecast.pictures_needed(pilot)
                # More pictures than there are would only repeat them, and show nothing of new ones.
                if not 0 < needed <= pool.shape[1] or pilot.mean <= 0:
                    continue
                rows = generator.integers(0, pool.shape[1], math.ceil(needed))
                found = statistics.difference(first[:, rows], second[:, rows], resamples=RESAMPLES, seed=number)
                counts.append(len(rows))
                better += found.p_of_looks < LEVEL and found.mean > 0
                covered += found.low <= pilot.mean <= found.high
                total += 1
        print(
            f"| {runs} | {total} | {np.median(counts):,.0f} | {_share(better, total)} | {_share(covered, total)} |",
            flush=True,
        )
    print()


def say_spread(experiments: list[Experiment]) -> None:
    """The forecast of the spread between seeds, from one run, and what the seeds show."""
    print("| experiment | accuracy | forecast from one run | SD of the seeds |\n|" + " --- |" * 4)
    ratios = []
    for one in experiments:
        assert one.deviation is not None, "each has two runs or more"
        forecast, seen = 100 * one.forecast_deviation, 100 * one.deviation
        ratios.append(seen / forecast)
        print(f"| {one.name} | {100 * one.accuracy.value:.2f} % | {forecast:.3f} | {seen:.3f} |")
    within = sum(0.75 <= ratio <= 1.25 for ratio in ratios)
    quadratic = math.sqrt(sum(ratio**2 for ratio in ratios) / len(ratios))
    print(f"\nwithin 25 %: {within} of {len(ratios)}; seen over forecast: median {np.median(ratios):.2f}, quadratic "
          f"mean {quadratic:.2f}")  # fmt: skip


def _share(count: int, total: int) -> str:
    low, high = wilson_interval(count, total)
    return f"{100 * count / total:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    run_or_explain(main)
