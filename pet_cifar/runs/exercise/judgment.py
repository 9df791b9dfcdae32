"""The last sections of the exercise: the comparison, what may be concluded, and how all of it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pet_cifar.data.test_log import read_tests
from pet_cifar.runs.comparison import Comparison, compare
from pet_cifar.runs.comparison_table import SHOWN_COLUMNS, cells
from pet_cifar.runs.exercise import text
from pet_cifar.runs.exercise.blocks import Block, Charts, Code, Line, Lines, Section, Table, Text
from pet_cifar.runs.exercise.plan import CIFAR10_TEST_PICTURES, FULL, ITEMS, THEN, TITLES, Dataset
from pet_cifar.runs.exercise.sections import Exercise
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.report.charts import Styled, percent
from pet_cifar.runs.report.sections import overview
from pet_cifar.runs.report.svg import Style
from pet_cifar.training.ridge import wilson_interval

SHOWN = {
    *("experiment", "runs", "test_pictures", "accuracy", "over_seeds", "over_pictures"),
    *("deviation", "parameters", "forward_gflop", "epochs", "train_seconds"),
}
"""The columns of the table of a comparison."""


def judgment_of(ex: Exercise) -> list[Section]:
    """The sections on what the figures say."""
    found = {name: _comparison(ex, name) for name in TITLES}
    return [
        Section("Cats and dogs: which net is better?", _compared(ex, "cats_dogs", found["cats_dogs"])),
        Section("CIFAR-10: which net is better?", _compared(ex, "cifar10", found["cifar10"])),
        Section("What may be concluded, and what was concluded then", _concluded(ex, found["cifar10"])),
        Section("How this was made", _made(ex)),
    ]


def in_short(ex: Exercise) -> list[str]:
    """What came out, in a line for each data set."""
    lines = []
    for name, title in TITLES.items():
        if found := _comparison(ex, name):
            shares = [_in_brackets(one) for one in found.experiments]
            lines.append(f"Test accuracy on {title}, with 95 % intervals: {'; '.join(shares)}.")
            if name == "cifar10":
                lines += text.conclusion(found, is_full=ex.mode.name == FULL.name)[:1]
    return lines


def _in_brackets(one: Experiment) -> str:
    found = one.accuracy
    return f"{text.TITLES[text.config_of(one)]} {percent(found.value)} [{percent(found.low)}, {percent(found.high)}]"


def _comparison(ex: Exercise, name: Dataset) -> Comparison | None:
    runs = [one.run for one in ex.made if one.run is not None and one.planned.item.dataset == name]
    if not runs:
        return None
    logged = {test: None for scored in {run.pictures for run in runs} for test in read_tests(ex.at_hand.root, scored)}
    return compare(runs, logged)


def _compared(ex: Exercise, name: Dataset, found: Comparison | None) -> list[Block]:
    if found is None:
        return [ex.lack(f"the comparison on {TITLES[name]}: there are no tested runs")]
    named, short = _renamed(found, text.TITLES), _renamed(found, {item.config: item.short for item in ITEMS})
    shown = [Styled(one, Style(number)) for number, one in enumerate(short.experiments)]
    looks = [(one.name, Style(number)) for number, one in enumerate(named.experiments)]
    columns = [column for column in SHOWN_COLUMNS if column.name in SHOWN]
    blocks: list[Block] = [
        Charts(overview(short, shown), looks),
        Table(
            f"The nets on {TITLES[name]}",
            [column.head for column in columns],
            [cells(one, columns) for one in named.experiments],
        ),
    ]
    verdicts = [
        Line("better" if one.is_better else "undecided", f"{one.words}.", "better" if one.is_better else "")
        for one in named.verdicts
        if not one.reason
    ]
    verdicts += [Line("not comparable", f"{line}.") for line in named.verdict_lines() if "cannot be compared" in line]
    findings = [Line("beware" if one.is_serious else "note", f"{one.text}.", "serious" if one.is_serious else "")
                for one in found.findings]  # fmt: skip
    if verdicts:
        blocks += [Text("Verdicts", is_heading=True), Lines(verdicts)]
    if findings:
        blocks += [Text("What could mislead", is_heading=True), Lines(findings)]
    return blocks


def _renamed(found: Comparison, names: Mapping[str, str]) -> Comparison:
    """The comparison with other names for the experiments, which are called as their configs."""

    def other(words: str) -> str:
        # A name may begin as another one does, so that the longest comes first.
        for config in sorted(names, key=len, reverse=True):
            words = words.replace(config, names[config])
        return words

    return replace(
        found,
        experiments=tuple(replace(one, name=other(one.name)) for one in found.experiments),
        verdicts=tuple(
            replace(one, first=other(one.first), second=other(one.second), words=other(one.words))
            for one in found.verdicts
        ),
    )


def _concluded(ex: Exercise, found: Comparison | None) -> list[Block]:
    ours = {text.config_of(one): one for one in found.experiments} if found else {}
    rows = []
    for name, value in THEN.items():
        low, high = wilson_interval(value * CIFAR10_TEST_PICTURES, CIFAR10_TEST_PICTURES)
        cells = [text.TITLES[name], percent(value), f"{percent(low)} to {percent(high)}", "1"]
        if one := ours.get(name):
            own = one.accuracy
            cells += [percent(own.value), f"{percent(own.low)} to {percent(own.high)}", str(len(one.runs))]
        else:
            cells += ["-", "-", "0"]
        rows.append(cells)
    heads = ["net", "then", "95 % interval over pictures", "runs then", "now", "95 % interval", "runs now"]
    blocks: list[Block] = [
        Table("Test accuracy on CIFAR-10, then and now", heads, rows),
        Text("Then", is_heading=True),
        *map(Text, text.then_alone()),
    ]
    if found is None:
        return [*blocks, ex.lack("what may be concluded now: there are no tested runs on CIFAR-10")]
    return [
        *blocks,
        *map(Text, text.then_in_the_light_of_now(found)),
        Text("Now", is_heading=True),
        *map(Text, text.conclusion(found, is_full=ex.mode.name == FULL.name)),
    ]


def _made(ex: Exercise) -> list[Block]:
    rows: list[list[str]] = []
    commands: list[str] = []
    for item in ITEMS:
        for one in ex.of(item.config):
            state = "missing" if one.run is None else percent(one.run.accuracy)
            where = "-" if one.run is None else str(one.run.directory)
            rows.append([item.config, str(one.planned.seed), state, where])
            commands.append(one.planned.command)
    if not rows:
        return [Text("No run was made.")]
    blocks: list[Block] = []
    if environments := _environments(ex):
        blocks.append(Text(f"Trained on {'; '.join(environments)}."))
    seconds = [one.run.record.get("train_seconds") for one in ex.made if one.run is not None]
    known = [float(value) for value in seconds if isinstance(value, int | float)]
    if known:
        blocks.append(Text(f"{text.count(len(known), 'run')} trained for {sum(known) / 60:.1f} minutes together."))
    return [
        *blocks,
        Table("Runs", ["config", "seed", "test accuracy", "run"], rows),
        Text("The commands; each is followed by pet-cifar test --run RUN."),
        Code("The commands", "\n".join(commands)),
    ]


def _environments(ex: Exercise) -> Sequence[str]:
    found = []
    for one in ex.made:
        own = one.run.record.get("environment") if one.run is not None else None
        if isinstance(own, dict):
            found.append(
                f"{own.get('device', 'unknown')} ({own.get('processor', 'unknown')}), torch "
                f"{own.get('torch', 'unknown')}, pet_cifar {own.get('pet_cifar', 'unknown')}"
            )
    return list(dict.fromkeys(found))
