"""Makes of a run a net that takes pictures: without the data that it was trained on, and without writing anything."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pet_cifar import data as datamodules
from pet_cifar import models
from pet_cifar.data.files.names import printable
from pet_cifar.data.files.walk import walk
from pet_cifar.data.manifest import PICTURE_SUFFIXES, natural_key
from pet_cifar.data.pixels.decode import DecodeError, decode, fit_array, fit_image
from pet_cifar.errors import InputError, did_you_mean
from pet_cifar.runs.directory import best_checkpoint, find_run, read_checkpoint
from pet_cifar.training.classifier import ImageClassifier

BATCH = 32
"""The pictures that are computed together."""
NONE_OF_THESE = "none of these"

Picture: TypeAlias = "str | Path | bytes | Image.Image | NDArray[np.uint8] | Tensor"


@dataclass(frozen=True)
class Prediction:
    """What a net says of one picture.

    Attributes:
        probabilities: The probability of each class, float32, shape (num_classes,).
        class_names: The names of the classes.
        is_outlier: Whether the picture is of none of the classes; None where the run cannot tell.
    """

    probabilities: NDArray[np.float32]
    class_names: tuple[str, ...]
    is_outlier: bool | None = None

    @property
    def label(self) -> str:
        """The name of the most probable class."""
        return self.class_names[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """The probability of that class."""
        return float(self.probabilities.max())

    @property
    def none_of_these(self) -> bool:
        """Whether the run knows that the picture is of none of the classes."""
        return bool(self.is_outlier)

    @property
    def margin(self) -> float:
        """The highest probability less the second highest: the smaller, the less certain the net is."""
        second, first = np.sort(self.probabilities)[-2:]
        return float(first - second)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities, the most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.class_names[place], float(self.probabilities[place])) for place in order]

    def __str__(self) -> str:
        words = f"{self.label} {100 * self.probability:.1f} %"
        return f"{words} ({NONE_OF_THESE})" if self.none_of_these else words


class Classifier:
    """A trained net that takes pictures as they are; `load` makes it.

    Attributes:
        module: The net, in evaluation.
        class_names: The names of the classes in the order of their numbers.
        image_size: The side in pixels that pictures are resized to.
        num_channels: 1 for gray, 3 for color.
        checkpoint: The file that it was loaded from.
    """

    def __init__(self, module: ImageClassifier, class_names: Sequence[str], checkpoint: Path) -> None:
        self.module = module.eval().requires_grad_(False)
        self.class_names = tuple(class_names)
        example = cast(Tensor, module.example_input_array)
        self.image_size = int(example.shape[-1])
        self.num_channels: Literal[1, 3] = 1 if example.shape[1] == 1 else 3
        self.checkpoint = checkpoint

    def __repr__(self) -> str:
        size = f"{self.image_size} x {self.image_size}"
        return f"Classifier({type(self.module).__name__} of {self.checkpoint}, {size}, {len(self.class_names)} classes)"

    def __call__(self, pictures: "Picture | Iterable[Picture]") -> "Prediction | list[Prediction]":
        """Says what is in pictures. They are decoded and resized as in training.

        Args:
            pictures: The path of a file, its bytes, a PIL picture, a uint8 array of shape (H, W) or (H, W, 3), or a
                tensor of shape (C, H, W), uint8 or floats in [0, 1]: one picture. A folder (its pictures at any depth,
                in the order of their names), a tensor of shape (B, C, H, W), or several of all these: many pictures.

        Returns:
            A prediction for one picture, and a list of them for many.

        Raises:
            InputError: A picture is not there, is none, or has another shape.
        """
        if isinstance(pictures, str | Path) and Path(pictures).is_dir():
            return list(self.predict(pictures_in(Path(pictures))))
        if isinstance(pictures, Tensor) and pictures.ndim == 4:
            return list(self.predict(pictures))
        if isinstance(pictures, str | Path | bytes | Image.Image | np.ndarray | Tensor):
            return next(self.predict([pictures]))
        return list(self.predict(pictures))

    def predict(self, pictures: "Iterable[Picture]") -> Iterator[Prediction]:
        """Yields a prediction for each picture, in batches; see `__call__` for what a picture may be."""
        batch: list[NDArray[np.uint8] | NDArray[np.float32]] = []
        for picture in pictures:
            batch.append(self.pixels(picture))
            if len(batch) == BATCH:
                yield from self.predict_pixels(batch)
                batch = []
        if batch:
            yield from self.predict_pixels(batch)

    @torch.inference_mode()
    def predict_pixels(self, pixels: "Sequence[NDArray[np.uint8] | NDArray[np.float32]]") -> list[Prediction]:
        """Predicts one batch of what `pixels` gives."""
        floats = [one.astype(np.float32) / 255 if one.dtype == np.uint8 else one for one in pixels]
        image = torch.from_numpy(np.stack(floats)).to(self.module.device)
        probabilities, outliers = self.module.predict_pictures(image)
        flags = [None] * len(pixels) if outliers is None else outliers.tolist()
        rows = probabilities.float().cpu().numpy()
        return [Prediction(row, self.class_names, flag) for row, flag in zip(rows, flags, strict=True)]

    def pixels(self, picture: "Picture") -> NDArray[np.uint8] | NDArray[np.float32]:
        """One picture in the net's size, shape (num_channels, image_size, image_size).

        Raises:
            InputError: It is not there, is none, or has another shape.
        """
        size, channels = self.image_size, self.num_channels
        if isinstance(picture, str | Path):
            return self._decoded(picture)
        if isinstance(picture, bytes):
            return _or_refuse(picture, size, channels, "these bytes")
        if isinstance(picture, Image.Image):
            return fit_image(picture, size, channels)
        if isinstance(picture, Tensor):
            return self._of_tensor(picture)
        if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim in (2, 3):
            if picture.shape[2:] in ((), (3,), (4,)):
                return fit_image(Image.fromarray(picture), size, channels)
            if picture.shape[2:] == (1,):
                return fit_image(Image.fromarray(picture[..., 0]), size, channels)
        what = (
            f"{picture.dtype} of shape {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        )
        raise InputError(
            f"a picture is {what}; give a path, bytes, a PIL picture, or uint8 of shape (H, W), (H, W, 3) or (H, W, 4)"
        )

    def _decoded(self, path: str | Path) -> NDArray[np.uint8]:
        try:
            encoded = Path(path).expanduser().read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {printable(str(path))}: {error.strerror}; give a picture") from error
        return _or_refuse(encoded, self.image_size, self.num_channels, printable(str(path)))

    def _of_tensor(self, picture: Tensor) -> NDArray[np.uint8] | NDArray[np.float32]:
        shape = (self.num_channels, self.image_size, self.image_size)
        values = picture.detach().cpu().numpy()
        if values.dtype == np.uint8 and values.ndim == 3 and len(values) in (1, 3):
            last = np.ascontiguousarray(values.transpose(1, 2, 0))
            return fit_array(last[..., 0] if len(values) == 1 else last, self.image_size, self.num_channels)
        if np.issubdtype(values.dtype, np.floating) and values.shape == shape:
            return values.astype(np.float32)
        raise InputError(
            f"a tensor is {picture.dtype} of shape {tuple(picture.shape)}; give uint8 of shape (1 or 3, H, W), or "
            f"floats in [0, 1] of shape {shape}"
        )


def load(run: str | Path, device: str | torch.device | None = None) -> Classifier:
    """Loads a trained net from a run; no code in its files is run, and nothing is written.

    Args:
        run: A run directory; the directory of a config's runs, of which the newest counts; or a checkpoint file.
        device: Where the net goes; None takes a GPU where there is one.

    Raises:
        InputError: There is no such run, it has no checkpoint, or the checkpoint's net is not known.
    """
    path = Path(run).expanduser()
    try:
        file = path if path.is_file() else best_checkpoint(find_run(path))
        checkpoint = read_checkpoint(file)
    except InputError as error:
        # In Python there is no option; the words after its name are the same.
        raise InputError(str(error).removeprefix("--run ").removeprefix("--ckpt_path ")) from error
    config = _config_of(checkpoint)
    net = _build(checkpoint, config, file)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Classifier(net.to(torch.device(chosen)), _class_names(checkpoint, config, net), file)


def pictures_in(folder: Path) -> list[Path]:
    """The files at any depth below a folder whose names say that they are pictures, in natural order.

    Raises:
        InputError: There is none.
    """
    paths = [path for path in walk(folder) if Path(path).suffix.lower() in PICTURE_SUFFIXES]
    if not paths:
        raise InputError(f"{folder} holds no pictures; give a folder with files such as photo.jpg")
    return [folder / path for path in sorted(paths, key=natural_key)]


def _config_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    try:
        config = yaml.safe_load(str(checkpoint.get("config", "")))
    except yaml.YAMLError:
        return {}
    return config if isinstance(config, dict) else {}


def _build(checkpoint: dict[str, Any], config: Mapping[str, Any], file: Path) -> ImageClassifier:
    name = str(checkpoint.get("net") or _class_path(config, "model").rpartition(".")[2])
    known: dict[str, type] = {
        cls.__name__: cls for cls in (*vars(models).values(), *_subclasses(ImageClassifier)) if _is_net(cls)
    }
    if name not in known:
        raise InputError(
            f"{file} holds a {name or 'net without a name'}, which is none of {', '.join(sorted(known))}"
            f"{did_you_mean(name, known)}; import the module that defines it first"
        )
    options = dict(checkpoint.get("hyper_parameters", {}))
    try:
        net = known[name](**options)
    except (InputError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{file} holds a {name} that cannot be built ({reason}); was it saved by another version?"
        ) from error
    net.on_load_checkpoint(checkpoint)
    net.load_state_dict(checkpoint["state_dict"])
    return cast(ImageClassifier, net)


def _is_net(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, ImageClassifier) and not inspect.isabstract(cls)


def _subclasses(base: type) -> Iterator[type]:
    own: list[type] = base.__subclasses__()
    for cls in own:
        yield cls
        yield from _subclasses(cls)


def _class_path(config: Mapping[str, Any], part: str) -> str:
    section = config.get(part)
    return str(section.get("class_path", "")) if isinstance(section, dict) else str(section or "")


def _class_names(checkpoint: Mapping[str, Any], config: Mapping[str, Any], net: ImageClassifier) -> Sequence[str]:
    """The names that the checkpoint has; an older one has the data's class alone, and others have numbers."""
    given = checkpoint.get("class_names")
    data_class: object = getattr(datamodules, _class_path(config, "data").rpartition(".")[2], None)
    for names in (given, getattr(data_class, "class_names", None)):
        if isinstance(names, list | tuple) and len(names) == net.num_classes:
            return [printable(str(name)) for name in names]
    return [str(number) for number in range(net.num_classes)]


def _or_refuse(encoded: bytes, size: int, channels: Literal[1, 3], name: str) -> NDArray[np.uint8]:
    try:
        return decode(encoded, size, channels)
    except DecodeError as error:
        raise InputError(f"{name} is no picture that can be read: it {_clause(error)}; leave it out") from error


def _clause(error: DecodeError) -> str:
    return str(error) if error.verdict == "not an image" else f"is {error.verdict} ({error})"
