"""VGG16's convolutions, pretrained on ImageNet, under a new head.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv 1409.1556),
configuration D, as torchvision builds it. Deviation: the three dense layers are replaced by a small head.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from torch import Tensor, nn

from pet_cifar.errors import InputError
from pet_cifar.models.pretrained import load_weights, read_weights
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.freezing import Freezing, stages_of

# of VGG16_Weights.IMAGENET1K_FEATURES: the authors' own weights take pictures in [0, 255] less the mean
MEAN = [0.48235, 0.45882, 0.40784]
STD = [1 / 255, 1 / 255, 1 / 255]
# of VGG16_Weights.IMAGENET1K_V1, torchvision's own training
V1_MEAN = [0.485, 0.456, 0.406]
V1_STD = [0.229, 0.224, 0.225]
# how many of torchvision's layers there are up to each block's pooling
BLOCKS = {"block1": 5, "block2": 10, "block3": 17, "block4": 24, "block5": 31}


class VGG16Classifier(ImageClassifier):
    """VGG16's thirteen convolutions and a new head.

    The input normalization follows the weights. A checkpoint carries all weights: a net rebuilt from one needs
    neither file nor network.

    Args:
        num_classes: 2 gives one logit.
        num_channels: 3; gray pictures have no pretrained filters.
        image_size: side in pixels, at least 32.
        weights: ``imagenet`` (the authors' own, downloaded by torchvision, 528 MB), the path of a safetensors or
            pth file with torchvision's keys, or ``none``. A file that also holds a trained classifier is taken for
            torchvision's own training and gets its mean and standard deviation; for others give ``mean`` and ``std``.
        freeze_until: ``nothing`` trains all, ``block1`` to ``block5`` nothing up to the end of that block, ``all`` only
            the head.
        unfreeze: from which epoch on, counted from 0, less is frozen, such as ``{3: block4, 6: nothing}``.
        base_lr_factor: what the convolutions' learning rate is of ``lr``, such as 0.1.
        cache_features: compute what stays frozen once for every picture, keep it beside the data, train on it.
        feature_views: how many augmented views of every training picture are kept then, used by the epochs in turn;
            with 1 all epochs train on the same.
        max_cache_gigabytes: that all features kept beside the data may take, in 10^9 bytes.
        head: ``pooled`` takes the mean over all places, ``flattened`` a dense layer of 256 over all of them, as the
            homework did.
        dropout: before the last layer.
        training: see `ImageClassifier`.
    """

    def __init__(
        self,
        num_classes: int = 2,
        num_channels: int = 3,
        image_size: int = 200,
        weights: str = "none",
        freeze_until: str = "nothing",
        unfreeze: dict[int, str] | None = None,
        base_lr_factor: float = 1.0,
        cache_features: bool = False,
        feature_views: int = 1,
        max_cache_gigabytes: float = 20.0,
        head: Literal["pooled", "flattened"] = "pooled",
        dropout: float = 0.5,
        **training: Any,
    ) -> None:
        if num_channels != 3:
            raise InputError(
                f"VGG16Classifier takes color pictures, not {num_channels} channel(s); give --data.grayscale false"
            )
        if image_size < 32:
            raise InputError(f"image_size is {image_size}; VGG16Classifier halves it 5 times and needs at least 32")
        # heavy, and no other net needs it
        from torchvision.models.vgg import cfgs, make_layers

        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **training)
        self.backbone = make_layers(cfgs["D"])
        for layer in self.backbone.children():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        side = image_size // 32
        if head == "pooled":
            self.head = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(512, self.num_outputs)
            )
        else:
            self.head = nn.Sequential(
                nn.Flatten(),
                nn.Linear(512 * side * side, 256),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(256, self.num_outputs),
            )
        if weights != "none":
            state = _imagenet() if weights == "imagenet" else read_weights(weights, "imagenet")
            load_weights(self.backbone, state, "features.", weights, "VGG16")
            classifier = state.get("classifier.0.weight")
            own_training = classifier is not None and not classifier.isnan().any()
            self.use_pretrained_stats(*((V1_MEAN, V1_STD) if own_training else (MEAN, STD)))
        self.freezing = Freezing(
            self.backbone,
            self.head,
            stages_of(self.backbone),
            BLOCKS,
            freeze_until,
            unfreeze,
            cache_features,
            feature_views,
            max_cache_gigabytes,
            base_lr_factor,
            torch.zeros(1, num_channels, image_size, image_size),
        )


def _imagenet() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights

    folder = Path(torch.hub.get_dir())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # one process downloads, the others find the file
        with FileLock(folder / "vgg16_features.lock"):
            state: dict[str, Tensor] = VGG16_Weights.IMAGENET1K_FEATURES.get_state_dict(check_hash=True)
            return state
    except OSError as error:
        raise InputError(
            f"cannot download VGG16's ImageNet weights ({error}); connect to the network, or give a file: "
            "--model.weights PATH"
        ) from error
