"""Compares runs: which experiments they are of, how good each is, and which is better than which."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pet_cifar.errors import InputError
from pet_cifar.names import printable
from pet_cifar.runs import forecast, statistics
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.misleading import Finding, findings_of, is_same_run, reasons_against
from pet_cifar.runs.statistics import LEVEL, Difference
from pet_cifar.runs.tested_run import TestedRun


@dataclass(frozen=True)
class Verdict:
    """What may be said of two experiments.

    Attributes:
        first, second: Their names; the first is the one that is ahead.
        difference: How much better the first is; None where they cannot be compared.
        p: The p-value, with all pairs (Holm) and all looks after further seeds counted; 1 where there is none.
        is_better: Whether the first is better than the second.
        words: The verdict as a sentence.
        reason: Why they cannot be compared; empty where they can.
    """

    first: str
    second: str
    difference: Difference | None
    p: float
    is_better: bool
    words: str
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """All that a comparison found.

    Attributes:
        experiments: The experiments, the most accurate first.
        verdicts: A verdict for each pair of them.
        findings: What could mislead.
    """

    experiments: tuple[Experiment, ...]
    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]

    def verdict_lines(self) -> list[str]:
        """The verdicts in words; pairs that cannot be compared for one reason share a line."""
        lines = [verdict.words for verdict in self.verdicts if not verdict.reason]
        for reason in dict.fromkeys(verdict.reason for verdict in self.verdicts if verdict.reason):
            own = [verdict for verdict in self.verdicts if verdict.reason == reason]
            more = f" ({len(own)} pairs, such as this)" if len(own) > 1 else ""
            lines.append(own[0].words + more)
        return lines

    def differing_options(self) -> dict[str, list[str]]:
        """The options that differ between the experiments, with the value of each; an unknown one is a dash."""
        options = [one.runs[0].options for one in self.experiments]
        keys = list(dict.fromkeys(key for own in options for key in own))
        table = {key: [str(own.get(key, "-")) for own in options] for key in keys}
        return {key: values for key, values in table.items() if len(set(values)) > 1}


def compare(runs: Sequence[TestedRun], logged: Iterable[Any] = ()) -> Comparison:
    """Compares runs.

    Args:
        runs: The runs, each once.
        logged: The tests that were made of the same pictures before; see `pet_cifar.data.test_log`.

    Raises:
        InputError: There is no run.
    """
    if not runs:
        raise InputError("there is nothing to compare; give run directories that were tested")
    by_key: dict[tuple[object, ...], list[TestedRun]] = {}
    for run in runs:
        key = run.experiment, run.class_names, run.pictures, frozenset(run.paths), run.trained_on
        by_key.setdefault(key, []).append(run)
    names = _names(list(by_key.values()))
    experiments = sorted(
        (
            Experiment(name, _each_once(own))
            for name, own in zip(names, by_key.values(), strict=True)
        ),
        key=lambda one: -one.accuracy.value,
    )  # fmt: skip
    verdicts = _verdicts(experiments)
    return Comparison(tuple(experiments), tuple(verdicts), tuple(findings_of(experiments, runs, list(logged))))


def _each_once(runs: Sequence[TestedRun]) -> tuple[TestedRun, ...]:
    """The runs in the order of their seeds; a run that is a copy of another one counts once, whatever its seed."""
    kept: list[TestedRun] = []
    for run in sorted(runs, key=lambda run: (len(run.seed), run.seed, run.name)):
        if not any(is_same_run(one, run) for one in kept):
            kept.append(run)
    return tuple(kept)


def _names(groups: Sequence[Sequence[TestedRun]]) -> list[str]:
    """A name for each experiment: that of its directory, and where two have the same, what tells them apart."""
    folders = [printable(group[0].directory.absolute().parent.name) for group in groups]
    names = list(folders)
    for folder in {one for one in folders if folders.count(one) > 1}:
        places = [place for place, one in enumerate(folders) if one == folder]
        options = [groups[place][0].options for place in places]
        keys = sorted({key for own in options for key in own})
        differing = [key for key in keys if len({str(own.get(key)) for own in options}) > 1]
        for place, own in zip(places, options, strict=True):
            told = ", ".join(f"{key.rpartition('.')[2]} {own.get(key, '-')}" for key in differing[:3])
            names[place] = f"{folder} ({printable(told) or groups[place][0].directory.name})"
    # What is still the same differs by the pictures alone.
    numbers = {name: itertools.count(1) for name in names}
    return [f"{name} [{next(numbers[name])}]" if names.count(name) > 1 else name for name in names]


def _verdicts(experiments: Sequence[Experiment]) -> list[Verdict]:
    pairs = list(itertools.combinations(experiments, 2))
    against = [reasons_against(first.runs[0], second.runs[0]) for first, second in pairs]
    found = [None if reason else _difference(*pair) for pair, reason in zip(pairs, against, strict=True)]
    corrected = iter(statistics.holm([one.p_of_looks for one in found if one is not None]))
    count = len(found) - found.count(None)
    verdicts = []
    for (first, second), reason, difference in zip(pairs, against, found, strict=True):
        if difference is None:
            words = f"{first.name} and {second.name} cannot be compared: {reason}"
            verdicts.append(Verdict(first.name, second.name, None, 1.0, False, words, reason or ""))
        else:
            spread = max(first.forecast_deviation, second.forecast_deviation)
            p = next(corrected)
            alone = [one.name for one in (first, second) if len(one.runs) == 1]
            single = alone[0] if len(alone) == 1 else None
            verdicts.append(verdict_on(first.name, second.name, difference, p, spread, count, single))
    return verdicts


def _difference(first: Experiment, second: Experiment) -> Difference:
    deviations = first.forecast_deviation, second.forecast_deviation
    theirs = second.rights[:, second.runs[0].rows_in_order_of(first.runs[0])]
    return statistics.difference(first.rights, theirs, first.runs[0].groups, deviations)


def verdict_on(
    first: str, second: str, found: Difference, p: float, spread: float, pairs: int, single: str | None = None
) -> Verdict:
    """Puts a difference into words.

    Args:
        first: The name of the first experiment.
        second: The name of the second one.
        found: How much better the first is.
        p: The p-value, with all pairs and looks counted.
        spread: The standard deviation between seeds that is forecast, for experiments of one run.
        pairs: How many pairs are compared at once.
        single: The name of the one experiment that has a single run, where the other one has several.
    """
    if found.mean < 0:
        first, second, found = second, first, found.turned()
    shown = f"{100 * found.mean:.2f} points [{100 * found.low:.2f}, {100 * found.high:.2f}], {_short(p)}"
    if p < LEVEL:
        what = "the net of " if found.is_of_nets else ""
        words = f"{what}{first} is better than {what}{second} by {shown}"
        if found.is_of_nets:
            words += f"; another seed is expected to move each by {100 * spread:.2f} points, so give each more seeds"
        elif single is not None:
            words += f"; {single} has one run, and is taken to vary between seeds as the other does: give it more"
        return Verdict(first, second, found, p, True, words)
    ahead = f"{first} is ahead by {shown}" if found.mean else shown
    words = f"these runs cannot tell {first} and {second} apart: {ahead}"
    return Verdict(first, second, found, p, False, words + _what_would(found, pairs))


def _what_would(found: Difference, pairs: int) -> str:
    """What would show a difference as large as the one that was found."""
    pictures, seeds = forecast.pictures_needed(found, pairs), forecast.seeds_needed(found, pairs)
    ways = []
    if math.isfinite(pictures) and pictures > found.pictures:
        ways.append(f"about {_round(pictures - found.pictures):,} more test pictures")
    if math.isfinite(seeds) and seeds > found.runs:
        more = int(seeds - found.runs)
        ways.append(f"{more} more seed{'s' if more > 1 else ''} of each")
    if not ways:
        return f"; neither more test pictures nor {forecast.MOST_SEEDS} seeds would show a difference as large as that"
    return f"; if it is as large as that, {' or '.join(ways)} would show it"


def _round(count: float) -> int:
    """Two digits are more than a forecast knows."""
    step = 10 ** max(0, int(math.log10(max(count, 1))) - 1)
    rounded: int = max(1, math.ceil(count / step)) * int(step)
    return rounded


def _short(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
