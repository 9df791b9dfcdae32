"""What could mislead in a comparison of runs: other pictures, other budgets, a test set that has helped to choose."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pet_cifar.data.test_log import LoggedTest
from pet_cifar.names import listed
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.tested_run import TestedRun, epochs_if_unfinished

MANY_EXPERIMENTS = 10
"""The number of other experiments from which on the choice among them is partly luck."""
MANY_CHECKPOINTS = 3
"""The number of checkpoints of one run from which on the test has chosen among them."""
UNLIKELY = 0.02
"""The probability below which two accuracies that are the same to the picture are told."""
SURE, ROUNDING, MOST_BY_CHANCE = 0.999, 1e-4, 5
"""Predictions are the same where this many of less than this probability differ by no more than rounding."""
BUDGET = 1.1
"""The factor from which on two budgets are different ones."""
LEAKING = 0.005
"""The share of test pictures that show the same as a training picture, from which on it is told."""


@dataclass(frozen=True)
class Finding:
    """Something that could mislead.

    Attributes:
        kind: One word or two for it, such as ``other test pictures``.
        text: A sentence that names the runs.
        is_serious: Whether a verdict on these runs would be wrong or unfair; else it is a fact to know.
    """

    kind: str
    text: str
    is_serious: bool = True


def reasons_against(first: TestedRun, second: TestedRun) -> str | None:
    """Why two runs cannot be compared at all; None where they can."""
    if first.class_names != second.class_names:
        return f"one tells the classes {_classes(first)} apart, the other {_classes(second)}"
    for run, other in ((first, second), (second, first)):
        if "contents" in other.scored and "contents" not in run.scored:
            return (
                f"{run.name} was tested by an earlier version, which does not tell on which pictures; test it again: "
                f"pet-cifar test --run {run.directory}"
            )
    if first.pictures != second.pictures:
        if len(first.paths) == len(second.paths) and set(first.paths) == set(second.paths):
            return (
                "their test pictures have the same names and other contents: one was tested on another copy of the "
                "data, such as JPEG instead of the original"
            )
        return (
            f"they were tested on other pictures ({len(first.paths):,} and {len(second.paths):,}); give both the same "
            "data, split_seed, fraction and fold"
        )
    if set(first.paths) != set(second.paths):
        return (
            "their test pictures have other names, so that they cannot be paired; test one of them on the other's data"
        )
    if len(set(first.labels.tolist())) < 2:
        return f"all test pictures are of one class, {first.class_names[int(first.labels[0])]}"
    return None


def _classes(run: TestedRun) -> str:
    return listed(run.class_names, 4)


def findings_of(
    experiments: Sequence[Experiment], runs: Sequence[TestedRun], logged: Sequence[LoggedTest]
) -> list[Finding]:
    """All that could mislead in a comparison.

    Args:
        experiments: The experiments.
        runs: All runs that were given, also those that count only once.
        logged: The tests that were made of the same pictures.
    """
    found: list[Finding] = []
    for run in runs:
        found += _of_run(run)
    if without := [run.name for run in runs if not run.record]:
        found.append(
            Finding(
                "no record",
                f"{listed(without, 3)}: there is no run.json, as in runs of earlier versions, so that it is not known "
                "on what and how long they were trained",
                is_serious=False,
            )
        )
    found += _same_predictions(runs)
    for first, second in itertools.combinations(experiments, 2):
        if reasons_against(first.runs[0], second.runs[0]) is None:
            found += _of_pair(first, second)
    for one in experiments:
        found += _unequal_seeds(one)
    found += _of_log(experiments, runs, logged)
    unique = dict.fromkeys(found)
    return sorted(unique, key=lambda one: not one.is_serious)


def _of_run(run: TestedRun) -> Iterable[Finding]:
    if epochs := epochs_if_unfinished(run.record):
        yield Finding(
            "unfinished",
            f"{run.name} is not finished: {epochs}; go on with pet-cifar fit --resume {run.directory} before it is "
            "compared",
        )
    if len(set(run.predicted.tolist())) == 1 and len(set(run.labels.tolist())) > 1:
        yield Finding("one answer", f"{run.name} calls every picture {run.class_names[int(run.predicted[0])]}")
    yield from _contradictions(run)
    own = _section(run, "data", "contents")
    if own and run.scored.get("contents") not in (None, own.get("test")):
        yield Finding("other test pictures", f"{run.name} was tested on other pictures than its own test split")
    if own and own.get("test") in (own.get("train"), own.get("val")):
        yield Finding("trained on the test", f"{run.name} was trained or chosen on the very pictures that test it")
    leaking, count = _section(run, "data").get("leaking"), len(run.paths)
    if isinstance(leaking, int) and leaking > LEAKING * count:
        yield Finding(
            "near duplicates",
            f"{leaking:,} of the {count:,} test pictures of {run.name} show the same as a training or validation "
            "picture; --data.drop_near_duplicates train leaves these out",
        )


def _contradictions(run: TestedRun) -> Iterable[Finding]:
    said = run.metrics.get("test/acc")
    if isinstance(said, int | float) and abs(said - run.accuracy) > 0.6 / len(run.paths) + 1e-5:
        yield Finding(
            "contradiction",
            f"{run.name}: test/metrics.json says {100 * said:.2f} %, and predictions.csv beside it "
            f"{100 * run.accuracy:.2f} %",
        )
    highest = run.probabilities.max(1)
    chosen = run.probabilities[np.arange(len(run.predicted)), run.predicted]
    if (wrong := int((chosen < highest - 2e-6).sum())) > 0:
        yield Finding(
            "contradiction", f"{run.name}: {wrong:,} predictions are not the class with the highest probability"
        )


def is_same_run(first: TestedRun, second: TestedRun) -> bool:
    """Whether two runs are one: of the same checkpoint, or with the same predictions but for what rounding changes.

    Pictures of which both nets are wholly sure say nothing, since two good nets may agree on them.
    """
    digests = [run.scored.get("checkpoint_sha256") for run in (first, second)]
    if digests[0] and digests[0] == digests[1]:
        return True
    if first.class_names != second.class_names or first.pictures != second.pictures:
        return False
    if set(first.paths) != set(second.paths):
        return False
    ours, theirs = first.probabilities, second.probabilities[second.rows_in_order_of(first)]
    unsure = ours.max(1) < SURE
    return int(unsure.sum()) >= MOST_BY_CHANCE and bool((np.abs(ours - theirs)[unsure] < ROUNDING).all())


def _same_predictions(runs: Sequence[TestedRun]) -> Iterable[Finding]:
    pairs = list(itertools.combinations(runs, 2))
    for first, second in pairs:
        if is_same_run(first, second):
            yield Finding(
                "same predictions",
                f"{first.name} and {second.name} have the very same predictions: they are one run"
                + (", which counts once" if first.experiment == second.experiment else " under two names"),
            )
            continue
        if first.pictures != second.pictures or first.paths != second.paths:
            continue
        differing = int((first.right != second.right).sum())
        same = first.right.sum() == second.right.sum()
        chance = math.sqrt(2 / (math.pi * differing)) if differing else 1.0
        # Of many pairs some have the same accuracy by chance.
        if same and chance < UNLIKELY and chance * len(pairs) < 3 * UNLIKELY:
            yield Finding(
                "same figure",
                f"{first.name} and {second.name} have the same accuracy to the picture, {100 * first.accuracy:.2f} %, "
                f"which chance makes of two runs in {100 * chance:.1f} %; check that none is the other's by mistake",
                is_serious=False,
            )


def _of_pair(first: Experiment, second: Experiment) -> Iterable[Finding]:
    names = f"{first.name} and {second.name}"
    ours, theirs = (_section(one.runs[0], "data", "contents") for one in (first, second))
    known = _section(first.runs[0], "data"), _section(second.runs[0], "data")
    if ours and theirs and ours.get("train") != theirs.get("train"):
        counts = [_section(one.runs[0], "data", "pictures").get("train") for one in (first, second)]
        yield Finding(
            "other training pictures",
            f"{names} were trained on other pictures ({counts[0]} and {counts[1]}), so that the difference is not "
            "of the nets alone",
        )
    elif ours and theirs and ours.get("val") != theirs.get("val"):
        yield Finding("other validation pictures", f"{names} were chosen by other validation pictures")
    if known[0] and known[1] and known[0].get("image_size") != known[1].get("image_size"):
        sizes = [one.get("image_size") for one in known]
        yield Finding(
            "other size", f"{names} took pictures of {sizes[0]} and {sizes[1]} pixels a side", is_serious=False
        )
    epochs = [_planned_epochs(one) for one in (first, second)]
    times = {str(one.runs[0].options.get("budget")) for one in (first, second)}
    # Runs of the same time, and runs that stop early, make as many epochs as they come to.
    has_equal_time = len(times) == 1 and "None" not in times
    if not has_equal_time and epochs[0] and epochs[1] and max(epochs) > BUDGET * min(epochs):
        yield Finding("other budget", f"{names} were given {epochs[0]:g} and {epochs[1]:g} epochs; give both the same")
    seconds = [one.recorded("train_seconds") for one in (first, second)]
    hardware = [_section(one.runs[0], "environment").get("processor") for one in (first, second)]
    if seconds[0] and seconds[1] and hardware[0] == hardware[1]:
        factor = max(seconds) / min(seconds)  # type: ignore[type-var, operator]
        if factor > 1.5:
            yield Finding(
                "other seconds",
                f"{names} took {seconds[0]:.0f} and {seconds[1]:.0f} s of training on the same hardware, {factor:.1f} "
                "times as long",
                is_serious=False,
            )


def _planned_epochs(one: Experiment) -> float:
    """The epochs that an experiment was given, or else has made; 0 where they are not known."""
    planned = one.recorded("planned_epochs")
    return planned if planned is not None and planned > 0 else one.recorded("epochs") or 0.0


def _unequal_seeds(one: Experiment) -> Iterable[Finding]:
    for what, words in (("pet_cifar", "versions of the code"), ("device", "hardware or numbers of processes")):
        found = {str(_section(run, "environment").get(what)) for run in one.runs if run.record}
        if len(found) > 1:
            yield Finding(
                "mixed runs",
                f"the runs of {one.name} were made with different {words}: {', '.join(sorted(found))}",
                is_serious=False,
            )
    seeds = [run.seed for run in one.runs if run.seed]
    if len(seeds) != len(set(seeds)):
        yield Finding(
            "same seed",
            f"{one.name} has two runs of one seed that predict differently: the code, the hardware or the number of "
            "processes has changed in between, or the run depends on the clock or on a GPU",
            is_serious=False,
        )


def _of_log(
    experiments: Sequence[Experiment], runs: Sequence[TestedRun], logged: Sequence[LoggedTest]
) -> Iterable[Finding]:
    compared = {run.experiment for run in runs}
    scored = {run.pictures for run in runs}
    tests = [test for test in logged if test.pictures in scored]
    others = {test.experiment for test in tests} - compared
    if len(others) > MANY_EXPERIMENTS:
        count = min(len(run.paths) for run in runs)
        error = max(1 - run.accuracy for run in runs)
        luck = 100 * math.sqrt(2 * math.log(len(others)) * error * (1 - error) / count)
        yield Finding(
            "often tested",
            f"these test pictures have scored {len(others)} other experiments, and the best of so many is up to "
            f"{luck:.1f} points better by luck; choose by val/acc, and test once",
        )
    for one in experiments:
        key = one.runs[0].experiment
        own = [test for test in tests if test.experiment == key]
        left_out = {test.seed for test in own if test.seed} - {run.seed for run in runs if run.experiment == key}
        if left_out:
            seeds = ", ".join(sorted(left_out, key=_seed_key)[:10])
            is_many = len(left_out) > 1
            if len(experiments) == 1 and len(one.runs) == 1:
                words = (
                    f"other seeds of this experiment were tested too: {seeds}; give their runs as well for an interval "
                    "over seeds"
                )
            else:
                words = (
                    f"{one.name} was also tested with the seed{'s' if is_many else ''} {seeds}, which "
                    f"{'are' if is_many else 'is'} not among these runs; give the runs of all seeds"
                )
            yield Finding("seeds left out", words, is_serious=len(experiments) > 1)
        for seed in dict.fromkeys(run.seed for run in one.runs):
            checkpoints = {test.checkpoint for test in own if test.seed == seed and test.checkpoint}
            if len(checkpoints) > MANY_CHECKPOINTS:
                yield Finding(
                    "chosen by the test",
                    f"{len(checkpoints)} checkpoints of {one.name} with seed {seed or 'unknown'} were scored on these "
                    "test pictures; the one to take is best.ckpt of one run, which validation has chosen",
                )


def _seed_key(seed: str) -> tuple[int, str]:
    return (len(seed), seed)


def _section(run: TestedRun, *keys: str) -> dict[str, Any]:
    """A part of the run's record, by its keys from the outside in; empty where the record has none."""
    part: Any = run.record
    for key in keys:
        part = part.get(key) if isinstance(part, dict) else None
    return part if isinstance(part, dict) else {}
