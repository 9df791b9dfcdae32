"""Any of timm's nets, pretrained or not, under a new last layer.

Wightman, "PyTorch Image Models" (https://github.com/huggingface/pytorch-image-models).
"""

import difflib
import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from pet_cifar.errors import InputError
from pet_cifar.models.pretrained import downloading, load_weights, read_weights, trained_stats, with_timm_names
from pet_cifar.training.transfer import TransferClassifier

log = logging.getLogger(__name__)


class TimmClassifier(TransferClassifier):
    """A backbone of timm's and a new last layer.

    Weights have timm's keys or those of EfficientNet-PyTorch, or are a checkpoint of this class; ``timm`` downloads
    those of the net's name. The blocks to freeze have the names of the backbone's modules, such as ``blocks.4`` or
    ``layer3``.

    Args:
        num_classes: The number of classes; 2 gives one logit.
        num_channels: 3, or without pretrained weights also 1.
        image_size: The side of the pictures in pixels.
        name: The name of the net in timm, such as ``resnet18``.
        dropout: The share of the features that is dropped before the last layer.
        transfer: The other arguments of `TransferClassifier`.
    """

    def __init__(
        self,
        num_classes: int = 2,
        num_channels: int = 3,
        image_size: int = 224,
        name: str = "tf_efficientnet_lite0",
        dropout: float = 0.2,
        **transfer: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **transfer)
        if num_channels != 3 and self.weights != "none":
            raise InputError(
                f"{name}'s weights take color pictures, not {num_channels} channel(s); give --data.grayscale false"
            )
        backbone = self.backbone = _create(name, num_channels, image_size)
        features = _features(backbone, torch.zeros(1, num_channels, image_size, image_size), name)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features.shape[1], self.num_outputs))
        # A block that is not there is told before anything is downloaded.
        self.start_frozen()
        if self.weights != "none":
            state = (
                _downloaded(name, num_channels, image_size)
                if self.weights == "timm"
                else with_timm_names(read_weights(self.weights, "timm"), backbone)
            )
            state = load_weights(backbone, state, ("", "backbone."), self.weights, name)
            stats = list(backbone.pretrained_cfg["mean"]), list(backbone.pretrained_cfg["std"])
            self.use_pretrained_stats(*(trained_stats(state) or stats))


def _create(name: str, num_channels: int, image_size: int) -> Any:
    if find_spec("timm") is None:
        raise InputError("TimmClassifier needs timm, which is not installed: pip install 'pet_cifar[timm]'")
    # This import takes a while, and no other net needs it.
    import timm

    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), 5)
        raise InputError(
            f"timm has no net {name}; "
            + (f"near it are {', '.join(near)}" if near else "timm.list_models() in Python lists all of them")
        )
    known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    if "." in name and name not in known:
        raise InputError(f"timm has no weights {name}; it has {', '.join(known) or 'none of that net'}")
    try:
        return timm.create_model(name, **_options(name, num_channels, image_size))
    # What a net refuses a size with differs from net to net.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name} cannot be built for pictures of {image_size} x {image_size} ({reason}); give another "
            "--data.image_size"
        ) from error


def _options(name: str, num_channels: int, image_size: int) -> dict[str, Any]:
    import timm

    options: dict[str, Any] = {"num_classes": 0, "in_chans": num_channels}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    return options


def _downloaded(name: str, num_channels: int, image_size: int) -> dict[str, Tensor]:
    """timm's own weights of a net."""
    import timm

    log.info("getting timm's weights of %s", name)
    # What a download meets on the way is told in one line, at its end.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        with downloading(name):
            state: dict[str, Tensor] = timm.create_model(
                name, pretrained=True, **_options(name, num_channels, image_size)
            ).state_dict()
        return state
    except InputError:
        raise
    # What the hub refuses a download with differs from net to net.
    except Exception as error:
        raise InputError(
            f"cannot get {name}'s weights ({type(error).__name__}); connect to the network, or give a file: "
            "--model.weights PATH"
        ) from error


def _features(backbone: nn.Module, example: Tensor, name: str) -> Tensor:
    """What the backbone makes of one picture, shape (1, F)."""
    training = backbone.training
    try:
        with torch.no_grad():
            features = backbone.eval()(example)
    # Too small a picture ends in an error of the layer that finds nothing left.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        side = example.shape[-1]
        raise InputError(
            f"{name} cannot take pictures of {side} x {side} ({reason}); give a larger --data.image_size"
        ) from error
    finally:
        backbone.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise InputError(f"{name} gives no single row of features a picture; choose another net of timm's")
    return features
