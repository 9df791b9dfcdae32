"""VGG16's convolutions, pretrained on ImageNet, under a new head.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv 1409.1556),
configuration D, as torchvision builds it. Deviation: the three dense layers are replaced by a small head.
"""

from typing import Any, Literal

from torch import Tensor, nn

from pet_cifar.errors import InputError
from pet_cifar.models.pretrained import downloading, load_weights, read_weights, trained_stats
from pet_cifar.training.state_dicts import with_own_names
from pet_cifar.training.transfer import TransferClassifier

# The statistics of VGG16_Weights.IMAGENET1K_FEATURES: the authors' own weights take pictures in [0, 255] less the mean.
MEAN = [0.48235, 0.45882, 0.40784]
STD = [1 / 255, 1 / 255, 1 / 255]
# The statistics of VGG16_Weights.IMAGENET1K_V1, torchvision's own training.
V1_MEAN = [0.485, 0.456, 0.406]
V1_STD = [0.229, 0.224, 0.225]
# How many of torchvision's layers there are up to each block's pooling.
BLOCKS = {"block1": 5, "block2": 10, "block3": 17, "block4": 24, "block5": 31}


class VGG16Classifier(TransferClassifier):
    """VGG16's thirteen convolutions and a new head.

    Weights have torchvision's keys, or are a checkpoint of this class; ``imagenet`` downloads the authors' own (528 MB,
    by torchvision). A file that also holds a trained classifier is taken for torchvision's own training and gets its
    mean and standard deviation; for other trainings give ``mean`` and ``std``. The blocks to freeze are ``block1`` to
    ``block5``.

    Args:
        num_classes: The number of classes; 2 gives one logit.
        num_channels: 3, since gray pictures have no pretrained filters.
        image_size: The side of the pictures in pixels, at least 32.
        head: ``pooled`` takes the mean over all places, ``flattened`` puts a dense layer of 256 over all of them, as
            the original Keras exercise did.
        dropout: The share of the features that is dropped before the last layer.
        transfer: The other arguments of `TransferClassifier`.
    """

    def __init__(
        self,
        num_classes: int = 2,
        num_channels: int = 3,
        image_size: int = 200,
        head: Literal["pooled", "flattened"] = "pooled",
        dropout: float = 0.5,
        **transfer: Any,
    ) -> None:
        if num_channels != 3:
            raise InputError(
                f"VGG16Classifier takes color pictures, not {num_channels} channel(s); give --data.grayscale false"
            )
        if image_size < 32:
            raise InputError(f"image_size is {image_size}; VGG16Classifier halves it 5 times and needs at least 32")
        # This import takes a while, and no other net needs it.
        from torchvision.models.vgg import cfgs, make_layers

        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **transfer)
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
        # A block that is not there is told before anything is downloaded.
        self.start_frozen(BLOCKS)
        if self.weights != "none":
            state = _imagenet() if self.weights == "imagenet" else read_weights(self.weights, "imagenet")
            state = load_weights(self.backbone, state, ("features.", "backbone."), self.weights, "VGG16")
            classifier = with_own_names(state, ["classifier.0.weight"]).get("classifier.0.weight")
            own_training = classifier is not None and not classifier.isnan().any()
            self.use_pretrained_stats(*(trained_stats(state) or ((V1_MEAN, V1_STD) if own_training else (MEAN, STD))))


def _imagenet() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights

    try:
        with downloading("vgg16_features"):
            state: dict[str, Tensor] = VGG16_Weights.IMAGENET1K_FEATURES.get_state_dict(check_hash=True)
            return state
    except OSError as error:
        raise InputError(
            f"cannot download VGG16's ImageNet weights ({error}); connect to the network, or give a file: "
            "--model.weights PATH"
        ) from error
