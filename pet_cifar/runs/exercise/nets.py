"""The nets of the exercise as their configs describe them, without a run: their layers, and what a picture costs."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from pet_cifar import models
from pet_cifar.callbacks.run_record import net_sizes
from pet_cifar.errors import InputError
from pet_cifar.models import VGG16Classifier
from pet_cifar.models.summary import summary
from pet_cifar.training.classifier import ImageClassifier

PARAMETERS_THEN = {"cats_dogs_cnn": 4_737_473, "cifar10_plain": 1_442_954}
"""The parameters that Keras printed for the nets of the original exercise."""
OF_TRAINING = ("weights", "freeze_until", "unfreeze", "cache_features")
"""The options of pretrained nets that need weights."""


def read_config(file: Path) -> dict[str, Any]:
    """A shipped config.

    Raises:
        InputError: It cannot be read.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as a config: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no config")
    return content


def net_of(config: Mapping[str, Any]) -> ImageClassifier:
    """The net of a config at the size of its pictures, without any numbers in it, so that running it costs nothing."""
    data = config["data"].get("init_args", {})
    cls: type[ImageClassifier] = getattr(models, config["model"]["class_path"])
    options = {name: value for name, value in config["model"].get("init_args", {}).items() if name not in OF_TRAINING}
    if "image_size" in data and "image_size" in inspect.signature(cls).parameters:
        options["image_size"] = data["image_size"]
    with torch.device("meta"):
        return cls(**options)


def layers_of(name: str, net: ImageClassifier) -> tuple[str, str]:
    """The summary of a net, and a sentence on where its parameters are.

    Args:
        name: The name of its config.
        net: The net.
    """
    own = {key: parameter.numel() for key, parameter in net.named_parameters()}
    # Keras counts running means and variances, too.
    still = sum(one.numel() for key, one in net.named_buffers() if "running_" in key)
    total, largest = sum(own.values()), max(own, key=lambda key: own[key])
    text = (
        f"The net has {total:,} parameters that learn"
        + (f", and {still:,} running means and variances" if still else "")
        + f". {100 * own[largest] / total:.1f} % of them are in one layer, {largest.rpartition('.')[0]}."
    )
    if then := PARAMETERS_THEN.get(name):
        same = "the same number as" if then == total + still else "not the same number as"
        text += f" Together that is {same} the {then:,} that Keras printed then."
    return summary(net), text


def vgg16_gflop(size: int) -> float:
    """What one picture costs VGG16 on the way forward, in 10^9 operations."""
    with torch.device("meta"):
        net = VGG16Classifier(image_size=size, weights="none")
    return float(net_sizes(net)["forward_gflop"])
