"""The plan of the exercise as data: its items in their order, and how long each is trained in each mode."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Dataset = Literal["cats_dogs", "cifar10"]

TITLES: dict[Dataset, str] = {"cats_dogs": "cats and dogs", "cifar10": "CIFAR-10"}
PICTURES_PER_CLASS = 2000
"""The number of cats, and of dogs, that the original exercise took."""
THEN = {"cifar10_plain": 0.7364, "cifar10_inception": 0.7364, "cifar10_residual": 0.7480}
"""The test accuracies that the original exercise reported, each of one run."""
WORDS_THEN = "slight improvement"
"""What the original exercise concluded from them on residual blocks."""
CIFAR10_TEST_PICTURES = 10_000
"""The number of test pictures of CIFAR-10, of which these accuracies are."""


@dataclass(frozen=True)
class Length:
    """How long an experiment is trained.

    Attributes:
        epochs: The number of epochs.
        seeds: The number of runs, with the seeds 0, 1, 2 and so on.
        share: The share of the training batches that an epoch has.
        per_class: How many pictures of each class are taken, fewer where fewer are there; None takes all.
        options: Further options of ``fit``.
    """

    epochs: int
    seeds: int = 1
    share: float = 1.0
    per_class: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mode:
    """A way to make the exercise.

    Attributes:
        name: Its name, which is also that of the folder of its runs.
        lengths: How long each experiment is trained, by the name of its config.
        options: Options of every ``fit``.
    """

    name: str
    lengths: Mapping[str, Length]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One net of the exercise, with its config.

    Attributes:
        config: The name of its config.
        title: Its name in the text.
        short: Its name in charts.
        dataset: The pictures that it needs.
        needs_weights: Whether it needs VGG16's weights.
    """

    config: str
    title: str
    short: str
    dataset: Dataset
    needs_weights: bool = False


ITEMS = (
    Item("cats_dogs_cnn", "the small CNN", "small CNN", "cats_dogs"),
    Item("cats_dogs_vgg16_unfrozen", "VGG16 unfrozen at 200 px", "200 px unfrozen", "cats_dogs", True),
    Item("cats_dogs_vgg16_frozen", "VGG16 frozen at 200 px", "200 px frozen", "cats_dogs", True),
    Item(
        "cats_dogs_vgg16_500px_unfrozen", "VGG16 unfrozen at 500 px", "500 px unfrozen", "cats_dogs", needs_weights=True
    ),
    Item("cats_dogs_vgg16_500px_frozen", "VGG16 frozen at 500 px", "500 px frozen", "cats_dogs", True),
    Item("cifar10_plain", "the plain net", "plain", "cifar10"),
    Item("cifar10_inception", "the net of inception blocks", "inception", "cifar10"),
    Item("cifar10_residual", "the net of residual blocks", "residual", "cifar10"),
)

# At 500 px the original exercise had memory for 500 pictures, and the full mode takes as many. The three nets on
# CIFAR-10 get the same number of epochs, so that none is better for having learned longer.
FULL = Mode(
    "full",
    {
        "cats_dogs_cnn": Length(epochs=30, seeds=3, per_class=PICTURES_PER_CLASS),
        "cats_dogs_vgg16_unfrozen": Length(epochs=5, per_class=PICTURES_PER_CLASS),
        "cats_dogs_vgg16_frozen": Length(epochs=20, per_class=PICTURES_PER_CLASS),
        "cats_dogs_vgg16_500px_unfrozen": Length(epochs=5, per_class=250),
        "cats_dogs_vgg16_500px_frozen": Length(epochs=20, per_class=250),
        "cifar10_plain": Length(epochs=20, seeds=3),
        "cifar10_inception": Length(epochs=20, seeds=3),
        "cifar10_residual": Length(epochs=20, seeds=3),
    },
)
# A run of VGG16 costs about 24 GFLOP a picture at 200 px and 152 at 500 px, and three times that where the base learns;
# two cores make 150 to 250 GFLOP a second. With these numbers the whole takes about 20 minutes on them. The page has
# its own pictures, so that none are drawn for TensorBoard.
_SHORT = Length(epochs=1, seeds=3, share=0.2, options=("--model.test_views", "one"))
QUICK = Mode(
    "quick",
    {
        "cats_dogs_cnn": Length(epochs=4, per_class=PICTURES_PER_CLASS),
        "cats_dogs_vgg16_unfrozen": Length(epochs=1, per_class=100),
        "cats_dogs_vgg16_frozen": Length(epochs=20, per_class=100),
        "cats_dogs_vgg16_500px_unfrozen": Length(epochs=1, per_class=20),
        "cats_dogs_vgg16_500px_frozen": Length(epochs=20, per_class=20),
        "cifar10_plain": _SHORT,
        "cifar10_inception": _SHORT,
        "cifar10_residual": _SHORT,
    },
    options=("--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "0"),
)
MODES = {mode.name: mode for mode in (QUICK, FULL)}


@dataclass(frozen=True)
class Planned:
    """One run that the exercise wants.

    Attributes:
        item: What it is a run of.
        seed: Its seed.
        words: The options of its ``fit``, without the seed.
    """

    item: Item
    seed: int
    words: tuple[str, ...] = field(repr=False)

    @property
    def command(self) -> str:
        """The command that makes it."""
        return shlex.join(["pet-cifar", "fit", *self.words, "--seed_everything", str(self.seed)])


def runs_of(mode: Mode, root: str, weights: str, per_class: Mapping[Dataset, int], folder: str) -> list[Planned]:
    """The runs of a mode, in the order in which they are made: the first seed of each item comes first.

    Args:
        mode: The mode.
        root: The data's folder.
        weights: VGG16's weights, a word or a file.
        per_class: How many usable pictures of each class there are, by data set, as far as that is known.
        folder: Where the runs go.
    """
    most = max(length.seeds for length in mode.lengths.values())
    return [
        Planned(one, seed, _words(one, mode, root, weights, per_class.get(one.dataset), folder))
        for seed in range(most)
        for one in ITEMS
        if one.config in mode.lengths and seed < mode.lengths[one.config].seeds
    ]


def _words(one: Item, mode: Mode, root: str, weights: str, most: int | None, folder: str) -> tuple[str, ...]:
    length = mode.lengths[one.config]
    words = ["--config", one.config, "--data.root", root]
    words += ["--trainer.default_root_dir", folder, "--trainer.max_epochs", str(length.epochs)]
    if length.share < 1:
        words += ["--trainer.limit_train_batches", str(length.share)]
    if length.per_class is not None:
        words += ["--data.images_per_class", str(min(length.per_class, most or length.per_class))]
    if one.needs_weights:
        words += ["--model.weights", weights]
    return (*words, *length.options, *mode.options)


def times_shorter(config: str, mode: Mode) -> float:
    """How many times fewer pictures an experiment is shown in training than in the full mode."""

    def shown(length: Length) -> float:
        return length.epochs * length.share * (length.per_class or 1)

    return shown(FULL.lengths[config]) / shown(mode.lengths[config])
