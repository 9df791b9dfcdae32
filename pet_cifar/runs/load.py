"""Makes of a run a net that takes pictures: without the data that it was trained on, and without writing anything."""

import copy
import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pet_cifar import __version__, models
from pet_cifar import data as datamodules
from pet_cifar.callbacks.images.confusion_matrix import read_confusions
from pet_cifar.callbacks.images.grad_cam import check_captum
from pet_cifar.data.files.plain_yaml import check_plain, read_yaml
from pet_cifar.data.pixels.convert import Picture, pixels_of
from pet_cifar.errors import InputError, check_local, did_you_mean
from pet_cifar.names import printable
from pet_cifar.runs import drawings, explanation
from pet_cifar.runs.directory import find_checkpoint, read_checkpoint, run_of_checkpoint
from pet_cifar.runs.exported_file import SUFFIX, open_exported
from pet_cifar.runs.net_size import built_within
from pet_cifar.runs.sources import Found, find_sources
from pet_cifar.runs.stream import predict_sources
from pet_cifar.runs.trusted import import_trusted
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.prediction import Prediction, check_names, predict

log = logging.getLogger(__name__)

OLD_NAMES = {"BackboneClassifier": "TimmClassifier"}
"""The names of nets in checkpoints of earlier versions."""


class Classifier:
    """A trained net that takes pictures as they are; `load` makes it.

    Attributes:
        module: The net, in evaluation; it takes floats in [0, 1] and gives logits.
        class_names: The names of the classes in the order of their numbers.
        image_size: The side in pixels that pictures are resized to.
        num_channels: 1 for gray, 3 for color.
        checkpoint: The file that it was loaded from.
    """

    def __init__(self, module: ImageClassifier, checkpoint: Path) -> None:
        self.module = module.eval().requires_grad_(False)
        self.module.to(memory_format=module.memory_format)
        self.class_names = module.class_names
        self.num_channels, self.image_size = module.picture_shape
        self.checkpoint = checkpoint

    @property
    def classes(self) -> tuple[str, ...]:
        """The same as ``class_names``."""
        return self.class_names

    def __repr__(self) -> str:
        size = f"{self.image_size} x {self.image_size}"
        return f"Classifier({type(self.module).__name__} of {self.checkpoint}, {size}, {len(self.class_names)} classes)"

    def __call__(self, pictures: "Picture | Iterable[Picture]") -> "Prediction | list[Prediction]":
        """Says what is in pictures. They are decoded and resized as in training.

        Args:
            pictures: The path of a file, its bytes, a PIL picture, a uint8 array of shape (H, W) or (H, W, C), or a
                tensor of shape (C, H, W), uint8 or floats in [0, 1]: one picture. A folder (its pictures at any depth,
                in the order of their names), a zip archive, a pattern such as ``*.jpg``, an array of shape
                (B, H, W, C), a tensor of shape (B, C, H, W), or several of all these: many pictures.

        Returns:
            A prediction for one picture, and a list of them for many. What cannot be read in a folder or an archive is
            left out, and a warning names it.

        Raises:
            InputError: A picture is not there, is none, or has another shape.
        """
        if isinstance(pictures, str | Path) and (found := _several(pictures)) is not None:
            return self._predict_files(found)
        return predict(self.module, pictures)

    def feature_maps(self, picture: Picture, *layers: str) -> dict[str, Image.Image]:
        """What every channel of each layer answers to a picture, as one sheet for each layer.

        Args:
            picture: See `pixels_of`.
            layers: The names of layers, or patterns such as ``backbone.*``; without any all convolutions count.

        Raises:
            InputError: It is no picture, or there is no such layer.
        """
        self.check_layers("feature_maps")
        pixels = torch.from_numpy(self.pixels(picture))
        if pixels.dtype != torch.uint8:
            pixels = (pixels * 255).round().byte()
        title = printable(str(picture)) if isinstance(picture, str | Path) else "the picture"
        sheets = drawings.feature_map_sheets(self.module, title, pixels, drawings.chosen_layers(self.module, layers))
        return {name: Image.fromarray(sheet) for name, sheet in sheets}

    def filters(self) -> Image.Image:
        """The filters of the first convolution.

        Raises:
            InputError: There is none.
        """
        self.check_layers("filters")
        sheet = drawings.filters_sheet(self.module, {})
        if sheet is None:
            raise InputError(f"{type(self.module).__name__} has no convolution, and so no filters to look at")
        return Image.fromarray(sheet)

    def check_layers(self, asked: str) -> None:
        """Refuses what needs the layers of the net.

        Args:
            asked: What needs them, for the message.

        Raises:
            InputError: It is an exported file.
        """
        if not isinstance(self.module, ImageClassifier):
            raise InputError(
                f"{asked}: {self.checkpoint} is an exported file, whose layers cannot be seen; give its run"
            )

    def _predict_files(self, found: Found) -> list[Prediction]:
        rows = list(predict_sources(self.module, found.sources))
        bad = [f"{printable(row.source.name)} ({row.error})" for row in rows if row.prediction is None]
        if bad:
            more = f", and {len(bad) - 5} more" if len(bad) > 5 else ""
            log.warning("%d of %d pictures cannot be read: %s%s", len(bad), len(rows), ", ".join(bad[:5]), more)
        return [row.prediction for row in rows if row.prediction is not None]

    def pixels(self, picture: Picture) -> NDArray[np.uint8] | NDArray[np.float32]:
        """One picture in the net's size, shape (num_channels, image_size, image_size); see `pixels_of`."""
        return cast("NDArray[np.uint8]", pixels_of(picture, self.image_size, self.num_channels).cpu().numpy())

    def explain(self, picture: Picture) -> Image.Image:
        """The picture in the net's size in gray, with what speaks for the predicted class in red, by Grad-CAM.

        Raises:
            InputError: It is no picture, no layer of the net gives maps, or captum is not installed.
        """
        check_captum("explaining")
        self.check_layers("explain")
        pixels = pixels_of(picture, self.image_size, self.num_channels)
        levels = pixels if pixels.dtype == torch.uint8 else pixels * 255
        look = np.broadcast_to(levels.byte().cpu().numpy().transpose(1, 2, 0), (self.image_size, self.image_size, 3))
        sheet, _ = explanation.overlay_of(self.module, explanation.explained_layer(self.module), pixels, look)
        return Image.fromarray(sheet)


def _several(path: str | Path) -> Found | None:
    """The pictures of a folder, an archive or a pattern; None for the path of one file."""
    text = str(path)
    try:
        place = Path(path).expanduser()
        one = place.is_file() and place.suffix.lower() != ".zip"
        many = place.is_dir() or place.is_file() or any(letter in text for letter in "*?[")
    except (OSError, ValueError):
        return None
    try:
        return find_sources([text]) if many and not one else None
    except InputError as error:
        raise InputError(str(error).removeprefix("PATH ")) from error


def load(
    run: str | Path, device: str | torch.device | None = None, *, net: ImageClassifier | type | None = None
) -> Classifier:
    """Loads a trained net from a run; no code in its files is run, and nothing is written.

    Args:
        run: A run directory; the directory of a config's runs, of which the newest counts; a checkpoint file; or an
            ONNX file of ``pet-cifar export``, which is asked on the CPU.
        device: Where the net goes; None takes a GPU where there is one.
        net: The class of a net of one's own, or a net of `ImageClassifier.of`, of which a copy takes the checkpoint's
            weights; None finds the class by its name.

    Raises:
        InputError: There is no such run, it has no checkpoint, or the checkpoint's net is not known or does not fit.
    """
    check_local("run", run)
    if Path(run).suffix.lower() == SUFFIX and Path(run).expanduser().is_file():
        exported = open_exported(Path(run).expanduser())
        return Classifier(cast(ImageClassifier, exported), Path(run).expanduser())
    if Path(run).suffix.lower() in (".pt2", ".safetensors") and Path(run).expanduser().is_file():
        raise InputError(
            f"{run} is an exported file that cannot be asked here: torch.export.load reads .pt2, and .safetensors "
            "holds the weights alone; give an ONNX file or the run"
        )
    try:
        file = find_checkpoint(run)
        checkpoint = read_checkpoint(file)
    except InputError as error:
        # In Python there is no option; the words after its name are the same.
        raise InputError(str(error).removeprefix("--run ").removeprefix("--ckpt_path ")) from error
    config = _config_of(checkpoint, file)
    module = _copied(net) if isinstance(net, ImageClassifier) else _build(checkpoint, config, file, net)
    try:
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    # What goes wrong with a part of another shape differs from part to part.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"{file} cannot be loaded ({reason}): a part of it has another shape than a run gives it; give a "
            "checkpoint that a run of this version has written"
        ) from error
    names = _class_names(checkpoint, config, file, module.num_classes)
    module.class_names = check_names(names, module.num_classes) if names else module.class_names
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Classifier(module.to(torch.device(chosen)), file)


def _copied(net: ImageClassifier) -> ImageClassifier:
    """A copy, so that a net that is given can be trained further."""
    trainer, net._trainer = net._trainer, None
    try:
        return copy.deepcopy(net)
    finally:
        net._trainer = trainer


def _config_of(checkpoint: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The config of the run: the checkpoint's own, or what stands in the run directory."""
    run = run_of_checkpoint(file)
    texts = [str(checkpoint.get("config", ""))]
    with suppress(OSError, UnicodeDecodeError):  # It only helps a checkpoint that does not say all.
        texts += [(run / "config.yaml").read_text(encoding="utf-8")] if run else []
    for text in texts:
        try:
            config = read_yaml(text, str(file))
        except InputError:
            continue
        if isinstance(config, dict):
            return config
    return {}


def _build(checkpoint: Mapping[str, Any], config: Mapping[str, Any], file: Path, net: type | None) -> ImageClassifier:
    if net is not None and not _is_net(net):
        raise InputError(f"net is {net!r}; give a class derived from ImageClassifier, or a net of ImageClassifier.of")
    name = str(checkpoint.get("net") or _class_path(config, "model").rpartition(".")[2])
    cls = net or _class_of(OLD_NAMES.get(name, name), file)
    hyper_parameters = checkpoint.get("hyper_parameters") or {}
    check_plain(hyper_parameters, f"{file}: its hyper_parameters")
    options = {str(key): value for key, value in dict(hyper_parameters).items()}
    if "weights" in options:  # The checkpoint holds all weights.
        options["weights"] = "none"
    version = checkpoint.get("pet_cifar_version", "another version")
    try:
        with built_within(file):
            return cast(ImageClassifier, cls(**options))
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    # What a constructor raises where a value has another shape differs from one to the next.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"{file} holds a {name} that cannot be built ({reason}); it was saved by pet_cifar {version}, and this is "
            f"{__version__}: load it with the version that it was saved by"
        ) from error


def _class_of(name: str, file: Path) -> type:
    import_trusted()
    known: dict[str, type] = {
        cls.__name__: cls for cls in (*vars(models).values(), *_subclasses(ImageClassifier)) if _is_net(cls)
    }
    if name == ImageClassifier.__name__:
        raise InputError(
            f"{file} holds the weights of ImageClassifier.of(...), and not how to build it; build it again and give "
            "load(..., net=ImageClassifier.of(...))"
        )
    if name not in known:
        raise InputError(
            f"{file} holds a {name or 'net without a name'}, which is none of {', '.join(sorted(known))}"
            f"{did_you_mean(name, known)}; import the module that defines it first, which --trust "
            "MODULE does, or give load(..., net=CLASS)"
        )
    return known[name]


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


def _class_names(
    checkpoint: Mapping[str, Any], config: Mapping[str, Any], file: Path, num_classes: int
) -> Sequence[str] | None:
    """The names that the checkpoint has, or else the data's class or the run's test; None where nothing names them."""
    data_class = getattr(datamodules, _class_path(config, "data").rpartition(".")[2], None)
    for names in (checkpoint.get("class_names"), getattr(data_class, "class_names", None), _tested_names(file)):
        if isinstance(names, list | tuple) and len(names) == num_classes:
            return [printable(str(name)) for name in names]
    log.warning("%s does not name its classes; they are called 0 to %d", printable(str(file)), num_classes - 1)
    return None


def _tested_names(file: Path) -> list[str] | None:
    """The names of the classes in the tables that the run's test or validation has left."""
    run = run_of_checkpoint(file)
    for table in (run / split / "confusion_matrix.csv" for split in ("test", "val")) if run else ():
        with suppress(InputError):  # It is not there, or damaged.
            return read_confusions(table)[0]
    return None
