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
from pet_cifar.models.pretrained import load_weights, read_weights
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.freezing import Freezing, ends_of, stages_of

log = logging.getLogger(__name__)


class TimmClassifier(ImageClassifier):
    """A base of timm's and a new last layer.

    The input normalization follows the net. A checkpoint carries all weights: a net rebuilt from one needs neither
    file nor network.

    Args:
        num_classes: 2 gives one logit.
        num_channels: 3, or without pretrained weights 1.
        image_size: side in pixels.
        name: of the net in timm, such as ``resnet18``.
        weights: ``timm`` (its own, downloaded), the path of a safetensors or pth file with timm's keys, or
            ``none``.
        freeze_until: ``nothing`` trains all, a part such as ``blocks.4`` or ``layer3`` nothing up to its end, ``all``
            only the last layer.
        unfreeze: from which epoch on, counted from 0, less is frozen, such as ``{3: blocks.4, 6: nothing}``.
        base_lr_factor: what the base's learning rate is of ``lr``, such as 0.1.
        cache_features: compute what stays frozen once for every picture, keep it beside the data, train on it.
        feature_views: how many augmented views of every training picture are kept then, used by the epochs in turn;
            with 1 all epochs train on the same.
        max_cache_gigabytes: that all features kept beside the data may take, in 10^9 bytes.
        dropout: before the last layer.
        training: see `ImageClassifier`.
    """

    def __init__(
        self,
        num_classes: int = 2,
        num_channels: int = 3,
        image_size: int = 224,
        name: str = "tf_efficientnet_lite0",
        weights: str = "none",
        freeze_until: str = "nothing",
        unfreeze: dict[int, str] | None = None,
        base_lr_factor: float = 1.0,
        cache_features: bool = False,
        feature_views: int = 1,
        max_cache_gigabytes: float = 20.0,
        dropout: float = 0.2,
        **training: Any,
    ) -> None:
        if num_channels != 3 and weights != "none":
            raise InputError(
                f"{name}'s weights take color pictures, not {num_channels} channel(s); give --data.grayscale false"
            )
        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **training)
        base = self.backbone = _create(name, num_channels, image_size, weights == "timm")
        if weights not in ("none", "timm"):
            load_weights(base, read_weights(weights, "timm"), "", weights, name)
        example = torch.zeros(1, num_channels, image_size, image_size)
        features = _features(base, example, name)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features.shape[1], self.num_outputs))
        if weights != "none":
            self.use_pretrained_stats(list(base.pretrained_cfg["mean"]), list(base.pretrained_cfg["std"]))
        stages = stages_of(base)
        self.freezing = Freezing(
            base,
            self.head,
            stages,
            ends_of(stages),
            freeze_until,
            unfreeze,
            cache_features,
            feature_views,
            max_cache_gigabytes,
            base_lr_factor,
            example,
        )


def _create(name: str, num_channels: int, image_size: int, pretrained: bool) -> Any:
    if find_spec("timm") is None:
        raise InputError("TimmClassifier needs timm, which is not installed: pip install 'pet_cifar[timm]'")
    # heavy, and no other net needs it
    import timm

    # what its downloads meet on the way is told in one line, at their end
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), 5)
        raise InputError(
            f"timm has no net {name}; "
            + (f"near it are {', '.join(near)}" if near else "timm.list_models() in Python lists all of them")
        )
    known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    if "." in name and name not in known:
        raise InputError(f"timm has no weights {name}; it has {', '.join(known) or 'none of that net'}")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": num_channels}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    if pretrained:
        log.info("getting timm's weights of %s", name)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    # what a net refuses a size with, or the hub a download, differs from net to net
    except Exception as error:
        if pretrained:
            raise InputError(
                f"cannot get {name}'s weights ({type(error).__name__}); connect to the network, or give a file: "
                "--model.weights PATH"
            ) from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name} cannot be built for pictures of {image_size} x {image_size} ({reason}); give another "
            "--data.image_size"
        ) from error


def _features(base: nn.Module, example: Tensor, name: str) -> Tensor:
    """What the base makes of one picture, shape (1, F)."""
    training = base.training
    try:
        with torch.no_grad():
            features = base.eval()(example)
    # too small a picture ends in an error of the layer that finds nothing left
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        side = example.shape[-1]
        raise InputError(
            f"{name} cannot take pictures of {side} x {side} ({reason}); give a larger --data.image_size"
        ) from error
    finally:
        base.train(training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise InputError(f"{name} gives no single row of features a picture; choose another net of timm's")
    return features
