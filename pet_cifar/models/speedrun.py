"""A net that reaches an accuracy on small pictures soon, after Keller Jordan's airbench.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv 2404.00498): a fixed whitening of 2 x 2 patches, three
groups of convolutions, GELU, filters that start as the identity, and batch norms without scale whose biases learn
fast; it is trained with a lookahead average. Written anew from the published facts. Deviations: rates are those of the
mean loss and not of the summed one; the whitened pictures are spread evenly over the training split, where files may
be sorted by class; the sizes of the 96 % net are options.
"""

import logging
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import Callback
from torch import Tensor, nn

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError, check_choice, check_positive, check_stages
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.lookahead import Lookahead
from pet_cifar.training.optimizer import Groups
from pet_cifar.training.whitening import spread_pictures, whiten

log = logging.getLogger(__name__)

PATCH = 2
"""The side of the whitened patches in pixels."""
WHITENED = 5000
"""The number of training pictures whose patches are whitened."""

Activation = Literal["gelu", "relu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class ConvGroup(nn.Module):
    """Convolutions of 3 x 3, each with batch norm and activation; the first halves the resolution by max-pooling.

    Args:
        in_channels: The channels of the features that come in.
        out_channels: The channels of the features that go out.
        depth: The number of convolutions; with three or more, a shortcut leads around all but the first.
        bn_momentum: The share of each batch in the running statistics.
        activation: The function after each batch norm.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, bn_momentum: float, activation: Activation = "gelu"
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for number in range(depth):
            conv = nn.Conv2d(in_channels if number == 0 else out_channels, out_channels, 3, padding=1, bias=False)
            # The first filters hand their input on.
            nn.init.dirac_(conv.weight.data[: conv.in_channels])
            norm = nn.BatchNorm2d(out_channels, eps=1e-12, momentum=bn_momentum)
            norm.weight.requires_grad_(False)
            self.convs.append(conv)
            self.norms.append(norm)
        self.pool = nn.MaxPool2d(2)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H // 2, W // 2)."""
        convs, norms = list(self.convs), list(self.norms)
        features = self.activation(norms[0](self.pool(convs[0](features))))
        shortcut = features
        for number, (conv, norm) in enumerate(zip(convs[1:], norms[1:], strict=True), start=1):
            features = norm(conv(features))
            if number == len(convs) - 1 and len(convs) > 2:
                features = features + shortcut
            features = self.activation(features)
        return features


class ScaledLinear(nn.Linear):
    """A dense layer without bias whose output is divided by a number."""

    def __init__(self, in_features: int, out_features: int, divisor: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.divisor = divisor

    def forward(self, input: Tensor) -> Tensor:
        """(B, in_features) to (B, out_features)."""
        return F.linear(input, self.weight) / self.divisor


class SpeedrunCNN(ImageClassifier):
    """Whitened patches and three groups of convolutions; 1,972,792 parameters at its published size.

    Args:
        num_classes: The number of classes; 2 gives one logit.
        num_channels: 1 for gray pictures, 3 for color.
        image_size: The side of the pictures in pixels, at least 9 for three widths.
        widths: The channels of each group; null takes 64, 256, 256 (the 94 % net; 128, 384, 512 is the 96 % one).
        depth: The number of convolutions in a group; from 3 on the later ones have a shortcut around them.
        bn_momentum: The share of each batch in the batch norms' running statistics.
        bias_lr_factor: The share of ``lr`` that the batch norm biases learn at.
        whitening_bias_epochs: In how many first epochs the whitening's bias is trained. With 0 the gradients end at the
            first trained convolution, which saves a quarter of a narrow net's step on a CPU.
        logit_divisor: The number that the last layer's output is divided by.
        lookahead: The number of steps between two jumps onto a lookahead average; 0 makes none.
        activation: ``gelu``, as published, or ``relu``, which costs a CPU less.
        training: The other arguments of `ImageClassifier`; ``weight_decay`` is that of all trained parameters.
    """

    def __init__(
        self,
        num_classes: int = 10,
        num_channels: int = 3,
        image_size: int = 32,
        widths: list[int] | None = None,
        depth: int = 2,
        bn_momentum: float = 0.4,
        bias_lr_factor: float = 64.0,
        whitening_bias_epochs: int = 3,
        logit_divisor: float = 9.0,
        lookahead: int = 5,
        activation: Activation = "gelu",
        **training: Any,
    ) -> None:
        super().__init__(num_classes=num_classes, num_channels=num_channels, image_size=image_size, **training)
        widths = [64, 256, 256] if widths is None else widths
        check_stages(widths)
        reduced = (image_size - PATCH + 1) // 2 ** len(widths)
        if reduced < 1:
            raise InputError(
                f"image_size is {image_size}; SpeedrunCNN halves it {len(widths)} times and needs at least "
                f"{2 ** len(widths) + PATCH - 1} pixels"
            )
        if depth < 1:
            raise InputError(f"depth is {depth}; a group has at least 1 convolution")
        if not 0 < bn_momentum <= 1:
            raise InputError(f"bn_momentum is {bn_momentum}; it is a share, above 0 and at most 1")
        check_choice("activation", activation, ACTIVATIONS)
        check_positive("bias_lr_factor", bias_lr_factor)
        check_positive("logit_divisor", logit_divisor)
        for name, value in (("whitening_bias_epochs", whitening_bias_epochs), ("lookahead", lookahead)):
            if value < 0:
                raise InputError(f"{name} is {value}; it is 0 or more")
        self.bias_lr_factor = bias_lr_factor
        self.whitening_bias_epochs = whitening_bias_epochs
        # It is the same for a fit and for what comes after, so that a net that is saved then has its average.
        self._lookahead = Lookahead(lookahead) if lookahead else None

        whitening = nn.Conv2d(num_channels, 2 * num_channels * PATCH**2, PATCH)
        whitening.weight.requires_grad_(False)
        self.backbone = nn.Sequential(
            whitening,
            ACTIVATIONS[activation](),
            *(ConvGroup(*pair, depth, bn_momentum, activation) for pair in pairwise([whitening.out_channels, *widths])),
        )
        self.head = nn.Sequential(
            nn.MaxPool2d(reduced), nn.Flatten(), ScaledLinear(widths[-1], self.num_outputs, logit_divisor)
        )
        nn.init.zeros_(self._whitening_bias)

    @property
    def _whitening_bias(self) -> nn.Parameter:
        bias = self.backbone.get_submodule("0").bias
        assert isinstance(bias, nn.Parameter)
        return bias

    # How it is trained

    def configure_callbacks(self) -> list[Callback]:
        """Adds the lookahead average to the trainer's callbacks; one that the user gave the trainer wins."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        given = [one for one in callbacks if isinstance(one, Lookahead) and one is not self._lookahead]
        return [self._lookahead] if self._lookahead and not given else []

    def parameter_groups(self) -> Groups:
        """The batch norms' biases at a rate of their own; every step decays all parameters by the same amount."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # --trainer.sync_batchnorm puts nn.SyncBatchNorm in their place, which counts too.
        norms = (module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
        biases = {id(norm.bias) for norm in norms}
        parts = (
            (self.bias_lr_factor, [parameter for parameter in trained if id(parameter) in biases]),
            (1.0, [parameter for parameter in trained if id(parameter) not in biases]),
        )
        decay = self.optimizer_options.weight_decay
        return [
            {"params": parameters, "lr": self.lr * factor, "lr_factor": factor, "weight_decay": decay / factor}
            for factor, parameters in parts
        ]

    def learn_from_pictures(self, data: ImageDataModule | None) -> None:
        """Whitens the patches of the training pictures."""
        super().learn_from_pictures(data)
        if data is None:
            log.warning("SpeedrunCNN whitens nothing without a data module of this package: its filters stay random")
            return
        device = self.trainer.strategy.root_device  # the net will be there, and a GPU is faster at it
        image = spread_pictures(data, WHITENED).to(device).float().div_(255)
        first = self.backbone.get_submodule("0")
        assert isinstance(first, nn.Conv2d)
        whiten(first, (image - self.mean.to(device)) / self.std.to(device))

    def setup(self, stage: str) -> None:
        """Readies the net for a run, whose optimizer holds the whitening's bias from beginning to end."""
        super().setup(stage)
        self._whitening_bias.requires_grad_(True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lets the bias be trained, as the checkpoint's optimizer does; later epochs hold it still again."""
        self._whitening_bias.requires_grad_(True)
        # Earlier versions kept the average under a key of its own.
        if "lookahead" in checkpoint and self._lookahead:
            checkpoint["callbacks"].setdefault(self._lookahead.state_key, {"average": checkpoint["lookahead"]})
        super().on_load_checkpoint(checkpoint)

    def on_train_epoch_start(self) -> None:
        """Holds the whitening's bias still from some epoch on."""
        super().on_train_epoch_start()
        # Several processes exchange the same gradients from beginning to end, so there its gradient is dropped.
        if self.trainer.world_size == 1:
            self._whitening_bias.requires_grad_(self.current_epoch < self.whitening_bias_epochs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drops the gradient of the whitening's bias from some epoch on."""
        if self.current_epoch >= self.whitening_bias_epochs:
            self._whitening_bias.grad = None
