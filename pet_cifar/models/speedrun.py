"""A net that reaches an accuracy on small pictures soon, after Keller Jordan's airbench.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv 2404.00498): a fixed whitening of 2 x 2 patches, three
groups of convolutions, GELU, filters that start as the identity, batch norms without scale whose biases learn fast,
and a lookahead average. Written anew from the published facts. Deviations: rates are those of the mean loss and not of
the summed one; the whitened pictures are spread evenly over the training split, where files may be sorted by class; the
sizes of the 96 % net are options.
"""

import logging
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.errors import InputError, check_positive, check_stages
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.lookahead import Lookahead
from pet_cifar.training.optimizer import Groups

log = logging.getLogger(__name__)

PATCH = 2
"""Side of the whitened patches in pixels."""
WHITENED = 5000
"""Training pictures whose patches are whitened."""


class ConvGroup(nn.Module):
    """Convolutions of 3 x 3, each with batch norm and GELU; the first halves the resolution by max-pooling.

    Args:
        in_channels: of the features that come in.
        out_channels: of those that go out.
        depth: convolutions; with three or more, the last ones have a shortcut around them.
        bn_momentum: share of each batch in the running statistics.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, bn_momentum: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for number in range(depth):
            conv = nn.Conv2d(in_channels if number == 0 else out_channels, out_channels, 3, padding=1, bias=False)
            # the first filters hand their input on
            nn.init.dirac_(conv.weight.data[: conv.in_channels])
            norm = nn.BatchNorm2d(out_channels, eps=1e-12, momentum=bn_momentum)
            norm.weight.requires_grad_(False)
            self.convs.append(conv)
            self.norms.append(norm)
        self.pool = nn.MaxPool2d(2)
        self.activation = nn.GELU()

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


def whitening_filters(image: Tensor, size: int = PATCH, epsilon: float = 5e-4) -> Tensor:
    """Filters that make the patches of pictures uncorrelated, each of variance about one.

    Args:
        image: normalized pictures, shape (n, C, H, W).
        size: side of a patch in pixels.
        epsilon: added to the variances, so that what hardly varies is not blown up.

    Returns:
        The covariance matrix's eigenvectors, largest variance first, over the root of their variances: shape
        (C * size * size, C, size, size).
    """
    channels = image.shape[1]
    moment = torch.zeros(channels * size * size, channels * size * size, dtype=torch.float64)
    for some in torch.split(image, 256):  # all patches of 5,000 pictures are half a gigabyte
        patches = F.unfold(some, size).transpose(1, 2).reshape(-1, len(moment))
        # the second moment, as there: the pictures' mean is subtracted before
        moment += (patches.T @ patches / len(patches)).double().cpu() * len(some) / len(image)
    variances, vectors = torch.linalg.eigh(moment)
    filters: Tensor = (vectors / torch.sqrt(variances + epsilon)).T.flip(0)
    return filters.to(image).view(-1, channels, size, size)


class SpeedrunCNN(ImageClassifier):
    """Whitened patches and three groups of convolutions; 1,972,792 parameters at its published size.

    Args:
        num_classes: 2 gives one logit.
        num_channels: 1 (gray) or 3.
        image_size: side in pixels, at least 9 for three widths.
        widths: channels of each group, null for 64, 256, 256 (the 94 % net; 128, 384, 512 is the 96 % one).
        depth: convolutions a group; from 3 on the later ones have a shortcut around them.
        bn_momentum: share of each batch in the batch norms' running statistics.
        bias_lr_factor: what the batch norm biases' learning rate is of ``lr``.
        whitening_bias_epochs: in how many first epochs the whitening's bias is trained.
        logit_divisor: what the last layer's output is divided by.
        lookahead: steps between two lookahead averages; 0 for none.
        training: see `ImageClassifier`; ``weight_decay`` is of all that is trained.
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
        check_positive("bias_lr_factor", bias_lr_factor)
        check_positive("logit_divisor", logit_divisor)
        for name, value in (("whitening_bias_epochs", whitening_bias_epochs), ("lookahead", lookahead)):
            if value < 0:
                raise InputError(f"{name} is {value}; it is 0 or more")
        self.bias_lr_factor = bias_lr_factor
        self.whitening_bias_epochs = whitening_bias_epochs
        self.lookahead_steps = lookahead
        self._lookahead: Lookahead | None = None
        self._kept_average: dict[str, Tensor] | None = None

        whitening = nn.Conv2d(num_channels, 2 * num_channels * PATCH**2, PATCH)
        whitening.weight.requires_grad_(False)
        channels = [whitening.out_channels, *widths]
        self.backbone = nn.Sequential(
            whitening,
            nn.GELU(),
            *(ConvGroup(*pair, depth, bn_momentum) for pair in pairwise(channels)),
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

    def setup(self, stage: str) -> None:
        """Whitens the patches of the training pictures, unless a checkpoint brings the filters."""
        super().setup(stage)
        if stage != "fit":
            return
        self._whitening_bias.requires_grad_(True)
        # of another run, perhaps, or of a test
        self._lookahead = self._kept_average = None
        if self.trained_before or self.trainer.ckpt_path is not None:
            return
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            log.warning("SpeedrunCNN whitens nothing without a data module of this package: its filters stay random")
            return
        count = len(data.splits["train"])
        rows = np.linspace(0, count - 1, min(count, WHITENED)).astype(np.int64)
        # where the net will be
        device = self.trainer.strategy.root_device
        image = data.pixels("train").take(rows).to(device).float().div_(255)
        filters = whitening_filters((image - self.mean.to(device)) / self.std.to(device)).to(self.mean.device)
        weight = cast(Tensor, self.backbone.get_submodule("0").weight)
        weight.data.copy_(torch.cat([filters, -filters]))

    def on_train_start(self) -> None:
        """Starts the average, now that the net is where it is trained."""
        super().on_train_start()
        if self.lookahead_steps:
            self._lookahead = Lookahead(self._net(), self.lookahead_steps)
            if self._kept_average is not None:
                self._lookahead.load(self._kept_average)
                self._kept_average = None

    def on_train_epoch_start(self) -> None:
        """Holds the whitening's bias still from some epoch on."""
        super().on_train_epoch_start()
        # several processes exchange the same gradients from beginning to end
        if self.trainer.world_size == 1:
            self._whitening_bias.requires_grad_(self.current_epoch < self.whitening_bias_epochs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Holds the whitening's bias still from some epoch on, also where its gradient is computed."""
        if self.current_epoch >= self.whitening_bias_epochs:
            self._whitening_bias.grad = None

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Makes a step, and now and then moves onto the average."""
        super().optimizer_step(*arguments, **options)
        if self._lookahead is not None:
            # the trainer counts this step when it is over
            self._lookahead.after_step(self.trainer.global_step + 1, self.total_steps())

    def _net(self) -> nn.Module:
        return nn.ModuleDict({"backbone": self.backbone, "head": self.head})

    def _parameter_groups(self) -> Groups:
        # all are decayed by the same amount a step, whatever their rate
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        # nn.SyncBatchNorm too, which --trainer.sync_batchnorm puts in their place
        own = {id(norm.bias) for norm in self.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)}
        factor = self.bias_lr_factor
        return [
            {
                "params": [parameter for parameter in trained if id(parameter) in own],
                "lr": self.lr * factor,
                "lr_factor": factor,
                "weight_decay": self.weight_decay / factor,
            },
            {
                "params": [parameter for parameter in trained if id(parameter) not in own],
                "lr": self.lr,
                "lr_factor": 1.0,
                "weight_decay": self.weight_decay,
            },
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the average."""
        average = self._lookahead.slow if self._lookahead is not None else self._kept_average
        if average is not None:
            checkpoint["lookahead"] = average

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the average up again."""
        # held still in some epochs, but the optimizer's in all
        self._whitening_bias.requires_grad_(True)
        super().on_load_checkpoint(checkpoint)
        self._kept_average = checkpoint.get("lookahead")
