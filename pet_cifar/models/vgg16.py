"""VGG16's convolutions, pretrained on ImageNet, under a new head.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (arXiv 1409.1556),
configuration D, as torchvision builds it. Deviation: the three dense layers are replaced by a small head.
"""

from pathlib import Path
from typing import Any, Literal, Self

import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor, nn

from pet_cifar.errors import InputError
from pet_cifar.models.classifier import ImageClassifier

# of VGG16_Weights.IMAGENET1K_FEATURES: the authors' own weights take pictures in [0, 255] less the mean
MEAN = [0.48235, 0.45882, 0.40784]
STD = [1 / 255, 1 / 255, 1 / 255]
# of VGG16_Weights.IMAGENET1K_V1, torchvision's own training
V1_MEAN = [0.485, 0.456, 0.406]
V1_STD = [0.229, 0.224, 0.225]


class VGG16Classifier(ImageClassifier):
    """VGG16's thirteen convolutions and a new head.

    The input normalisation follows the weights. A checkpoint carries all weights: a net rebuilt from one needs
    neither file nor network.

    Args:
        num_classes: 2 gives one logit.
        num_channels: 3; gray pictures have no pretrained filters.
        image_size: side in pixels, at least 32.
        weights: ``imagenet`` (the authors' own, downloaded by torchvision, 528 MB), the path of a safetensors or
            pth file with torchvision's keys, or ``none``. A file that also holds a trained classifier is taken for
            torchvision's own training and gets its mean and standard deviation; for others give ``mean`` and ``std``.
        freeze: the convolutions stay as they are, and only the head is trained.
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
        freeze: bool = False,
        head: Literal["pooled", "flattened"] = "pooled",
        dropout: float = 0.5,
        **training: Any,
    ) -> None:
        if num_channels != 3:
            raise InputError(
                f"VGG16Classifier takes colour pictures, not {num_channels} channel(s); give --data.grayscale false"
            )
        if image_size < 32:
            raise InputError(f"image_size is {image_size}; VGG16Classifier halves it 5 times and needs at least 32")
        # heavy, and no other net needs it
        from torchvision.models.vgg import cfgs, make_layers

        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **training)
        self.freeze_backbone = freeze
        self.backbone = make_layers(cfgs["D"])
        if weights == "none":
            for layer in self.backbone.children():
                if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                    nn.init.zeros_(layer.bias)
        else:
            self._load(weights)
            # a net rebuilt from these hyper-parameters gets its weights from the checkpoint
            self.hparams["weights"] = "none"
        if freeze:
            self.backbone.requires_grad_(False).eval()
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
            # pretrained features are large: from random weights the head would start out certain and wrong
            last = self.head[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def train(self, mode: bool = True) -> Self:
        """Switches to training; a frozen part stays in evaluation."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def _load(self, weights: str) -> None:
        state = _imagenet() if weights == "imagenet" else _from_file(Path(weights).expanduser())
        wanted = {f"features.{key}": value for key, value in self.backbone.state_dict().items()}
        missing = sorted(wanted.keys() - state.keys())
        if missing:
            raise InputError(
                f"{weights} is no VGG16: it lacks {missing[0]} and {len(missing) - 1} more of its keys; give a file "
                "with torchvision's keys, or --model.weights none"
            )
        for key, value in wanted.items():
            if not isinstance(state[key], Tensor):
                raise InputError(f"{weights} is no VGG16: {key} is no tensor; give a file with torchvision's keys")
            if state[key].shape != value.shape:
                raise InputError(
                    f"{weights} is no VGG16: {key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}; give "
                    "a file with torchvision's keys, or --model.weights none"
                )
        self.backbone.load_state_dict({key.removeprefix("features."): state[key].float() for key in wanted})
        if self.measures_pixels:
            self.measures_pixels = False
            classifier = state.get("classifier.0.weight")
            own_training = classifier is not None and not classifier.isnan().any()
            self.mean.copy_(torch.tensor(V1_MEAN if own_training else MEAN).view_as(self.mean))
            self.std.copy_(torch.tensor(V1_STD if own_training else STD).view_as(self.std))


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


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"--model.weights {path}: there is no such file; give imagenet, none, or a file's path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    # what torch raises on damaged files differs by the kind of damage
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as weights ({reason}); give a whole safetensors or pth file"
        ) from error
    if not isinstance(state, dict):
        raise InputError(
            f"{path} holds a {type(state).__name__}, not a state dict; give a file with torchvision's keys"
        )
    return state
