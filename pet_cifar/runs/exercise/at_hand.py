"""What is at hand for the exercise: the two data sets and VGG16's weights; and what to do about what is not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pet_cifar.data import CatsDogsDataModule, CIFAR10DataModule, ImageDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.data.manifest import OK
from pet_cifar.data.root import data_root
from pet_cifar.errors import InputError
from pet_cifar.models import VGG16Classifier
from pet_cifar.runs.exercise.plan import PICTURES_PER_CLASS, TITLES, Dataset, Item

SMALL, LARGE = 200, 500
"""The sides in pixels of the pictures of cats and dogs."""
WEIGHTS = ("vgg16*.safetensors", "vgg16*.pth")
"""What files of VGG16's weights in the data's folder are called."""


@dataclass
class AtHand:
    """What is at hand.

    Attributes:
        root: The data's folder.
        data: The data module of each data set that is there, set up.
        weights: VGG16's weights, a word or a file; empty where there are none.
        missing: Why each data set, and ``weights``, is not there, and what to do.
    """

    root: Path
    data: dict[Dataset, ImageDataModule] = field(default_factory=dict)
    weights: str = ""
    missing: dict[str, str] = field(default_factory=dict)

    def lacks(self, item: Item) -> str:
        """Why an item cannot be trained; empty where it can."""
        if item.dataset not in self.data:
            return f"the pictures of {TITLES[item.dataset]} are not there"
        return "VGG16's weights are not there" if item.needs_weights and not self.weights else ""

    @property
    def per_class(self) -> dict[Dataset, int]:
        """How many usable pictures of each class there are, of the class that has the fewest."""
        return {name: _fewest(data) for name, data in self.data.items()}


def find(root: str | None, weights: str | None) -> AtHand:
    """Finds data and weights, or downloads them as ``fit`` does.

    Args:
        root: The data's folder; None takes the usual one.
        weights: A file of VGG16's weights, or ``imagenet`` to download them; None takes a file of the data's folder
            that is called as in `WEIGHTS`, or else downloads.

    Raises:
        InputError: The file of weights that is named is none.
    """
    if weights is not None and weights != "imagenet" and not Path(weights).expanduser().is_file():
        raise InputError(
            f"--weights {weights}: there is no such file; give one of VGG16's weights, or leave the option out to "
            "download them"
        )
    found = AtHand(data_root(root))
    chosen = weights or str(next((file for name in WEIGHTS for file in sorted(found.root.glob(name))), "imagenet"))
    try:
        VGG16Classifier(weights=chosen)
        found.weights = chosen
    except InputError as error:
        if weights is not None and weights != "imagenet":
            raise InputError(str(error).replace("--model.weights", "--weights")) from error
        found.missing["weights"] = f"VGG16's weights: {str(error).replace('--model.weights PATH', '--weights FILE')}"
    for name in TITLES:
        try:
            found.data[name] = _open(name, found.root)
        except InputError as error:
            found.missing[name] = f"the pictures of {TITLES[name]}: {error}"
    return found


def _open(name: Dataset, root: Path) -> ImageDataModule:
    if name == "cifar10":
        data: ImageDataModule = CIFAR10DataModule(root=root)
    else:
        data = CatsDogsDataModule(root=root, image_size=SMALL, grayscale=True)
    data.prepare_data()
    if isinstance(data, CatsDogsDataModule):
        # As the original exercise did, the first ones are taken; a smaller set is taken as a whole.
        data.images_per_class = min(PICTURES_PER_CLASS, _fewest(data))
    data.setup("fit")
    return data


def _fewest(data: ImageDataModule) -> int:
    usable = [record.label for record in data.listed if record.verdict == OK]
    return min(usable.count(name) for name in data.class_names)


def enlarged_data(data: ImageDataModule) -> ImageDataModule:
    """The same cats and dogs in color at the large size, for a look at single pictures; nothing is kept of them."""
    large = CatsDogsDataModule(root=data.root, image_size=LARGE, grayscale=False, cache="none")
    return _as_set_up(large, data)


def augmented_data(data: ImageDataModule, augment: Mapping[str, object]) -> ImageDataModule:
    """The same cats and dogs in color at the small size, with an augmentation, for a look at single pictures."""
    changed = CatsDogsDataModule(
        root=data.root,
        image_size=SMALL,
        grayscale=False,
        cache="none",
        augment=Augment(**augment),  # type: ignore[arg-type]
    )
    return _as_set_up(changed, data)


def _as_set_up(copy: CatsDogsDataModule, data: ImageDataModule) -> ImageDataModule:
    copy.images_per_class = getattr(data, "images_per_class", None)
    copy.prepare_data()
    copy.setup("fit")
    return copy
