"""The sections of the exercise in its order, out of what was made and what is at hand."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.manifest import DUPLICATE, OK
from pet_cifar.errors import InputError
from pet_cifar.runs.exercise import at_hand, nets, pictures, text
from pet_cifar.runs.exercise.at_hand import LARGE, SMALL, AtHand
from pet_cifar.runs.exercise.blocks import Block, Charts, Code, Image, Images, Line, Lines, Section, Table, Text
from pet_cifar.runs.exercise.made import Made
from pet_cifar.runs.exercise.plan import ITEMS, TITLES, Dataset, Mode, times_shorter
from pet_cifar.runs.experiments import Experiment
from pet_cifar.runs.load import load
from pet_cifar.runs.report import charts
from pet_cifar.runs.report.charts import Series, percent
from pet_cifar.runs.report.sections import Figure
from pet_cifar.runs.report.svg import Style
from pet_cifar.runs.tested_run import TestedRun
from pet_cifar.training.classifier import ImageClassifier

SAMPLES = 7
"""The number of pictures that are shown of each class."""
MORE_PICTURES = 6
"""The number of pictures that the strips of feature maps show."""
VIEWS = 7
"""The number of augmented versions that are shown of a picture."""
ON_CURVES = (
    "In all curves of this page the training accuracy is measured while an epoch goes on, with dropout and "
    "augmentation, and the validation accuracy after it, without them. So training may lie below validation."
)
BY_ITEM = {item.config: item for item in ITEMS}


@dataclass
class Exercise:
    """What there is to write about.

    Attributes:
        mode: The mode.
        at_hand: The data and the weights.
        made: What came of each planned run.
        configs: The files of the configs by name.
        missing: A line for each thing that the page lacks; the sections add theirs.
    """

    mode: Mode
    at_hand: AtHand
    made: Sequence[Made]
    configs: Mapping[str, Path]
    missing: list[str] = field(default_factory=list)

    def of(self, config: str) -> list[Made]:
        """What came of the runs of a config, in the order of their seeds."""
        return [one for one in self.made if one.planned.item.config == config]

    def experiment(self, config: str) -> Experiment | None:
        """The tested runs of a config; None where there are none."""
        runs = tuple(one.run for one in self.of(config) if one.run is not None)
        return Experiment(BY_ITEM[config].title, runs) if runs else None

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The configs by name."""
        return {item.config: nets.read_config(self.configs[item.config]) for item in ITEMS}

    def lack(self, line: str) -> Block:
        """A line for the page that says what it lacks."""
        self.missing.append(line)
        return Lines([Line("missing", line, "serious")])

    def attempt(self, what: str, draw: Callable[[], list[Block]]) -> list[Block]:
        """Blocks, or a line on why there are none; what cannot be drawn stops nothing else."""
        try:
            return draw()
        except InputError as error:
            return [self.lack(f"{what}: {error}")]


def sections_of(ex: Exercise) -> list[Section]:
    """The sections on data and nets; those on the comparison are in `pet_cifar.runs.exercise.judgment`."""
    return [
        Section("The pictures of cats and dogs", data_blocks(ex, "cats_dogs")),
        Section(
            "A small CNN", [*net_blocks(ex, "cats_dogs_cnn"), Text(ON_CURVES), *_inside_blocks(ex, "cats_dogs_cnn")]
        ),
        Section("VGG16 at 200 pixels", _vgg16_blocks(ex, SMALL)),
        Section("VGG16 at 500 pixels", [*_vgg16_blocks(ex, LARGE), *_size_blocks(ex)]),
        Section("The pictures of CIFAR-10", data_blocks(ex, "cifar10")),
        Section("CIFAR-10: the plain net", net_blocks(ex, "cifar10_plain")),
        Section("CIFAR-10: inception blocks", net_blocks(ex, "cifar10_inception")),
        Section("CIFAR-10: residual blocks", net_blocks(ex, "cifar10_residual")),
    ]


# The pictures


def data_blocks(ex: Exercise, name: Dataset) -> list[Block]:
    """The table of a data set's files and splits, and samples of every class."""
    data = ex.at_hand.data.get(name)
    if data is None:
        return [ex.lack(ex.at_hand.missing[name])]
    verdicts = Counter("copies" if one.verdict.startswith(DUPLICATE) else one.verdict for one in data.listed)
    left_out = sum(number for verdict, number in verdicts.items() if verdict != OK)
    told = ", ".join(f"{number:,} {verdict}" for verdict, number in verdicts.most_common() if verdict != OK)
    blocks: list[Block] = [
        Text(
            f"{len(data.listed):,} files were found, and {verdicts[OK]:,} of them are good pictures"
            + (f"; {left_out:,} are left out ({told})" if left_out else "")
            + f". Each is made {data.image_size} x {data.image_size} pixels large"
            + (" and gray" if data.num_channels == 1 else "")
            + f", and its values are divided by 255. {', '.join(f'{n} = {i}' for i, n in enumerate(data.class_names))}."
        ),
        _splits_table(name, data),
        *ex.attempt("samples", lambda: [Images(pictures.samples(data, SAMPLES), are_small=True)]),
    ]
    if name == "cats_dogs":
        share = f"{100 * data.test_fraction:.0f} %"
        blocks.insert(
            1, Text(f"The test has {share} of the pictures, and validation has {share} of what is left then.")
        )
    return blocks


def _splits_table(name: Dataset, data: ImageDataModule) -> Table:
    heads = ["split", *data.class_names, "all"]
    rows = []
    for split in ("train", "val", "test"):
        counts = Counter(record.label for record in data.splits[split])
        cells = [f"{counts[label]:,}" for label in data.class_names]
        rows.append([pictures.SPLIT_NAMES[split], *cells, f"{counts.total():,}"])
    return Table(f"Pictures of {TITLES[name]} in each split", heads, rows)


# The nets


def net_blocks(ex: Exercise, config: str, *, shows_layers: bool = True) -> list[Block]:
    """A net's layers, how long it was trained, its curves, and how good it is."""
    blocks: list[Block] = []
    if shows_layers:
        net = nets.net_of(ex.settings[config])
        table, words = nets.layers_of(config, net)
        blocks += [Text(words), Code("The net layer by layer", table)]
    made = ex.of(config)
    for problem in dict.fromkeys(one.problem for one in made if one.problem):
        seeds = ", ".join(str(one.planned.seed) for one in made if one.problem == problem)
        blocks.append(ex.lack(f"{BY_ITEM[config].title}, seed {seeds}: {problem}"))
    if (lack := ex.at_hand.lacks(BY_ITEM[config])) and not made:
        blocks.append(ex.lack(f"{BY_ITEM[config].title} was not trained: {lack}"))
    found = ex.experiment(config)
    if found is None:
        return blocks
    data = found.runs[0].record.get("data")
    known = data.get("pictures", {}) if isinstance(data, dict) else {}
    length = ex.mode.lengths[config]
    blocks.append(Text(text.length(length, known.get("train"), times_shorter(config, ex.mode))))
    blocks += _curves(found.runs)
    return [*blocks, Text(text.learning(found.runs[0].curves, known.get("val"))), Text(text.accuracy(found))]


def _curves(runs: Sequence[TestedRun]) -> list[Block]:
    looks = (("validation", Style(0), "val"), ("training", Style(1), "train"))
    figures = []
    for metric, words in (("loss", "loss"), ("acc", "accuracy")):
        series = [
            Series(name, style, [run.curves[key] for run in runs if (key := f"{split}/{metric}") in run.curves])
            for name, style, split in looks
        ]
        if svg := charts.curves(series, words, is_share=metric == "acc"):
            more = "; thin lines are the seeds, and thick ones their mean" if len(runs) > 1 else ""
            figures.append(Figure(svg, words + more))
    return [Charts(figures, [(name, style) for name, style, _ in looks])] if figures else []


def _inside_blocks(ex: Exercise, config: str) -> list[Block]:
    """The feature maps of the first cat, strips for more pictures, and the filters of the first convolution."""
    found, data = ex.experiment(config), ex.at_hand.data.get("cats_dogs")
    if found is None or data is None:
        return [ex.lack("feature maps and filters: there is no trained CNN to draw them of")]

    def draw() -> list[Block]:
        net: ImageClassifier = load(found.runs[0].directory, "cpu").module
        record, split = pictures.first_of(data, data.class_names[0])
        filters, number = pictures.first_filters(net)
        return [
            Text("Feature maps of the first cat", is_heading=True),
            Text(
                f"The first cat of the list, {record.path}, is a {pictures.SPLIT_NAMES[split]} picture. Below it is "
                "what each convolution makes of it, before the pooling. As then, each map is scaled by itself: minus "
                "its mean, divided by its standard deviation, times 64, plus 128. So light and dark compare the places "
                "within a map, but not two maps; a map without any contrast is gray."
            ),
            Images(pictures.feature_maps(net, data, record)),
            Text("Feature maps of more pictures", is_heading=True),
            Images(pictures.map_strips(net, data, MORE_PICTURES)),
            Text(f"The {number} filters of the first convolution", is_heading=True),
            Text("Black is the smallest weight of the layer, and white the largest."),
            Images([filters]),
        ]

    return ex.attempt("feature maps and filters", draw)


def _vgg16_blocks(ex: Exercise, size: int) -> list[Block]:
    stem = "cats_dogs_vgg16" if size == SMALL else f"cats_dogs_vgg16_{size}px"
    blocks: list[Block] = [
        Text(
            f"VGG16's convolutions, pretrained on ImageNet, with a new head, on color pictures of {size} x {size}. One "
            f"picture costs {nets.vgg16_gflop(size):,.0f} GFLOP on the way forward, and about three times that where "
            "the whole base learns."
        )
    ]
    if "weights" in ex.at_hand.missing:
        blocks.append(ex.lack(ex.at_hand.missing["weights"]) if size == SMALL else Text("The weights are missing."))
    for kind in ("unfrozen", "frozen"):
        config = f"{stem}_{kind}"
        blocks += [Text(kind.capitalize(), is_heading=True), *net_blocks(ex, config, shows_layers=False)]
        if (found := ex.experiment(config)) is not None:
            trained = found.recorded("net", "trained_parameters")
            if trained is not None:
                blocks.append(Text(f"{trained:,.0f} parameters learn."))
    return blocks


# What a larger size is


def _size_blocks(ex: Exercise) -> list[Block]:
    small, large = nets.vgg16_gflop(SMALL), nets.vgg16_gflop(LARGE)
    blocks: list[Block] = [
        Text("Is a larger size an augmentation?", is_heading=True),
        Text(
            "Then, the larger size was called an augmentation. It is none. An augmentation shows the net another "
            "version of each training picture in every epoch, mirrored or shifted, so that it has more pictures to "
            "learn from. A larger size shows the very same pictures with more pixels."
        ),
    ]
    augments = {
        name: {key: value for key, value in (config["data"].get("init_args", {}).get("augment") or {}).items() if value}
        for name, config in ex.settings.items()
        if name.startswith("cats_dogs")
    }
    with_them = [f"{BY_ITEM[name].title} ({_options(own)})" for name, own in augments.items() if own]
    blocks.append(Text(f"In these runs {' and '.join(with_them)} augment; the others do not." if with_them else ""))
    data = ex.at_hand.data.get("cats_dogs")
    if data is not None:
        records = [record for records in data.splits.values() for record in records]
        sides = [min(record.width, record.height) for record in records]
        lower = sum(side < LARGE for side in sides) / len(sides)
        blocks.append(
            Text(
                f"What more pixels bring is detail, as far as the file has it: of {len(records):,} pictures "
                f"{percent(lower)} have fewer than {LARGE} pixels on their shorter side, and are only blown up. What "
                f"they cost is work: {large:,.0f} instead of {small:,.0f} GFLOP a picture, {large / small:.1f} times "
                "as much, and as many times the memory. Then, that left room for only 500 pictures, so that the net "
                "got fewer pictures to learn from, which is the opposite of what an augmentation does."
            )
        )
        blocks += ex.attempt("a picture at two sizes", lambda: _size_images(data, augments["cats_dogs_cnn"]))
    return blocks


def _size_images(data: ImageDataModule, augment: Mapping[str, object]) -> list[Block]:
    changed = at_hand.augmented_data(data, augment)
    record = changed.splits["train"][0]
    images: list[Image] = pictures.larger(changed, at_hand.enlarged_data(data), record)
    return [
        Images(images, are_small=True),
        Images([pictures.augmented(changed, VIEWS)]),
    ]


def _options(augment: Mapping[str, object]) -> str:
    return ", ".join(key if value is True else f"{key} {value}" for key, value in augment.items())
