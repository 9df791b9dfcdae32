"""The sentences of the exercise; every figure in them comes out of a run, but for those that are named as of then."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.stats import binomtest

from pet_cifar.runs.comparison import Comparison, Verdict
from pet_cifar.runs.curves import Curve
from pet_cifar.runs.exercise.plan import CIFAR10_TEST_PICTURES, ITEMS, THEN, WORDS_THEN, Length
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.misleading import reasons_against
from pet_cifar.runs.report.charts import percent
from pet_cifar.training.ridge import wilson_interval

TITLES = {item.config: item.title for item in ITEMS}


def points(share: float) -> str:
    """A difference of shares in points of percent."""
    return f"{100 * share:.2f} points"


def count(number: int, thing: str) -> str:
    """A number of things, such as ``1 run`` or ``3 runs``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def accuracy(one: Experiment) -> str:
    """How good an experiment is, and how well that is known."""
    found, pictures = one.accuracy, len(one.runs[0].paths)
    if len(one.runs) == 1:
        right = int(one.runs[0].right.sum())
        return (
            f"It has {right:,} of {count(pictures, 'test picture')} right, {percent(found.value)}. The 95 % interval "
            f"over the test pictures goes from {percent(found.low)} to {percent(found.high)}; what another seed would "
            "change is not in it."
        )
    seeds = ", ".join(percent(run.accuracy) for run in one.runs)
    return (
        f"{len(one.runs)} runs with other seeds have {seeds} of {count(pictures, 'test picture')} right. The mean is "
        f"{percent(found.value)}, with a 95 % interval over the seeds from {percent(found.low)} to "
        f"{percent(found.high)}, and the standard deviation between seeds is {points(one.deviation or 0.0)}."
    )


def learning(curves: Mapping[str, Curve], validated: int | None) -> str:
    """What the curves of one run show.

    Args:
        curves: Its metrics by epoch.
        validated: The number of validation pictures, where it is known.
    """
    trained, val = curves.get("train/acc"), curves.get("val/acc")
    if trained is None or val is None or not trained.epochs or not val.epochs:
        return "The run has no curves of training and validation accuracy."
    if len(val.epochs) == 1:
        return (
            f"There is one epoch, and so one point and no curve: training accuracy {percent(trained.values[-1])}, "
            f"validation accuracy {percent(val.values[-1])}."
        )
    best = max(range(len(val.values)), key=lambda number: val.values[number])
    text = (
        f"In {len(val.epochs)} epochs the training accuracy goes from {percent(trained.values[0])} to "
        f"{percent(trained.values[-1])}. Validation is best after epoch {val.epochs[best]}, with "
        f"{percent(val.values[best])}; the weights of that epoch are tested."
    )
    gap = trained.values[-1] - val.values[-1]
    if validated is None:
        return text
    low, high = wilson_interval(val.values[-1] * validated, validated)
    if trained.values[-1] > high:
        return (
            f"{text} At the end training is {points(gap)} above validation, more than {validated:,} validation "
            "pictures make by chance: the net has learned its training pictures by heart in part."
        )
    side = "below" if gap < 0 else "above"
    return (
        f"{text} At the end training is {points(abs(gap))} {side} validation, where {validated:,} validation pictures "
        f"put that between {percent(low)} and {percent(high)}: there is no sign that it learned by heart."
    )


def length(own: Length, trained: int | None, factor: float) -> str:
    """How long a net was trained, and how much longer the full mode trains it.

    Args:
        own: The length.
        trained: The number of training pictures, where it is known.
        factor: How many times as many pictures the full mode shows it.
    """
    share = "" if own.share == 1 else f" of {100 * own.share:.0f} % of the batches"
    pictures = "" if trained is None else f" on {count(trained, 'training picture')}"
    text = f"Trained for {count(own.epochs, 'epoch')}{share}{pictures}, with {count(own.seeds, 'seed')}."
    if factor > 1:
        text += f" This is a short run: the full mode shows the net {factor:,.0f} times as many pictures."
    return text


def then_alone() -> list[str]:
    """What the figures of then say by themselves."""
    shown = [f"{percent(value)} ({TITLES[name]})" for name, value in THEN.items()]
    low, high = min(THEN.values()), max(THEN.values())
    edges = [wilson_interval(value * CIFAR10_TEST_PICTURES, CIFAR10_TEST_PICTURES) for value in (low, high)]
    overlap = "overlap" if edges[0][1] > edges[1][0] else "do not overlap"
    lines = [
        f"Then, with one run of each net and no interval, {', '.join(shown)} were reported, and the conclusion was "
        f"that residual blocks bring a “{WORDS_THEN}”.",
        f"Over {CIFAR10_TEST_PICTURES:,} test pictures alone, the 95 % interval of {percent(low)} goes from "
        f"{percent(edges[0][0])} to {percent(edges[0][1])}, and that of {percent(high)} from {percent(edges[1][0])} to "
        f"{percent(edges[1][1])}: they {overlap}.",
    ]
    same = [TITLES[name] for name, value in THEN.items() if list(THEN.values()).count(value) > 1]
    if same:
        lines.append(
            f"The figures of {' and '.join(same)} are the very same number, to the picture. Two nets that learn by "
            "themselves hardly ever do that; most likely one of the two figures was copied or measured on the wrong "
            "net."
        )
    return lines


def then_in_the_light_of_now(found: Comparison) -> list[str]:
    """What these runs say on the figures of then: how often two nets agree to the picture, and what a seed moves."""
    ours = {config_of(one): one for one in found.experiments}
    plain, inception, residual = (ours.get(name) for name in THEN)
    lines = []
    if plain is not None and inception is not None and (share := _disagreement(plain, inception)):
        chance = min(1.0, math.sqrt(2 / (math.pi * share * CIFAR10_TEST_PICTURES)))
        lines.append(
            f"Here, {TITLES['cifar10_plain']} and {TITLES['cifar10_inception']} are not right on the same pictures: "
            f"one is right and the other wrong on {percent(share)} of them. Two equally good nets that differ so much "
            f"have the same accuracy to the picture in {percent(chance)} of the cases."
        )
    if plain is not None and residual is not None and (share := _disagreement(plain, residual)):
        lines.append(_gain_then(plain, residual, share))
    return lines


def config_of(one: Experiment) -> str:
    """The name of the config that an experiment's runs are of."""
    return one.runs[0].directory.absolute().parent.name


def _gain_then(plain: Experiment, residual: Experiment, share: float) -> str:
    """The gain of then, held against pictures and seeds."""
    gain = THEN["cifar10_residual"] - THEN["cifar10_plain"]
    discordant, more = round(share * CIFAR10_TEST_PICTURES), round(gain * CIFAR10_TEST_PICTURES)
    p = binomtest(min((discordant + more) // 2, discordant), discordant).pvalue
    kind = "measured" if plain.deviation and residual.deviation else "forecast from a single run"
    variances = [(one.deviation or one.forecast_deviation) ** 2 for one in (plain, residual)]
    seeds = math.sqrt(sum(variances))
    compared = "more than" if gain > 1.96 * seeds else "no more than"
    return (
        f"Then, the residual net had {points(gain)} more than the plain one. If those two disagreed on as many "
        f"pictures as ours do ({percent(share)}), the exact test of McNemar gives p = {p:.2g}; but that is for these "
        f"two trained nets, and leaves out what another seed does. Here, two runs differ by {points(seeds)} for their "
        f"seeds alone (standard deviation, {kind}). The gain of then is {compared} the {points(1.96 * seeds)} that "
        "such chance reaches in one case of 20."
    )


def _disagreement(first: Experiment, second: Experiment) -> float:
    """The share of the test pictures that one first run has right and the other wrong; 0 where it cannot be told."""
    if reasons_against(first.runs[0], second.runs[0]):
        return 0.0
    theirs = second.rights[0][second.runs[0].rows_in_order_of(first.runs[0])]
    return float(np.mean(first.rights[0] != theirs))


def conclusion(found: Comparison, *, is_full: bool) -> list[str]:
    """What may be concluded on the three nets of CIFAR-10, from the verdicts alone."""
    names = {one.name: config_of(one) for one in found.experiments}
    pair = {"cifar10_plain", "cifar10_residual"}
    verdict = next((one for one in found.verdicts if {names[one.first], names[one.second]} == pair), None)
    nothing = "On residual blocks nothing may be concluded here: the plain and the residual net are not both there."
    lines = [nothing if verdict is None else _on_blocks(verdict, names)]
    others = [one for one in found.verdicts if one is not verdict]
    if others:
        better = [f"{TITLES[names[one.first]]} over {TITLES[names[one.second]]}" for one in others if one.is_better]
        if better:
            lines.append(f"Of the other pairs these runs show an advantage of {'; and of '.join(better)}.")
        open_ones = [
            f"{TITLES[names[one.first]]} and {TITLES[names[one.second]]}" for one in others if not one.is_better
        ]
        if open_ones:
            lines.append(f"They decide nothing between {'; nor between '.join(open_ones)}.")
    if verdict is not None and not is_full:
        lines.append(
            "All this holds for runs as short as these: it says which net learns faster at the start, and not which "
            "one is better in the end. For that, make the full mode."
        )
    options = found.differing_options()
    recipe = sorted({key.rpartition(".")[2] for key in options if not key.endswith("class_path")})
    if recipe and len(found.experiments) > 1:
        lines.append(
            f"The nets do not differ by their blocks alone: {', '.join(recipe)} differ between their configs, too. So "
            "a verdict is on a net together with the way it is trained."
        )
    return lines


def _on_blocks(verdict: Verdict, names: Mapping[str, str]) -> str:
    if verdict.difference is None:
        return f"On residual blocks nothing may be concluded here: {verdict.words}."
    if not verdict.is_better:
        return (
            "On residual blocks nothing may be concluded: these runs cannot tell the residual and the plain net apart. "
            f"“{WORDS_THEN.capitalize()}” would be a guess."
        )
    found = verdict.difference
    size = f"{points(found.mean)}, with a 95 % interval from {points(found.low)} to {points(found.high)}"
    if names[verdict.first] == "cifar10_residual":
        if found.is_of_nets:
            return (
                f"With one run each, the residual net that was trained is better than the plain one, by {size}. Of "
                "other seeds nothing may be concluded."
            )
        return f"In these runs the residual net is better than the plain net, by {size}. This much may be concluded."
    return (
        f"In these runs the plain net is better than the residual net, by {size}: the opposite of what was said then."
    )
