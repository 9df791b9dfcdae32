"""The one base of all nets: loss, metrics, optimizer, schedule."""

import logging
from collections.abc import Iterable
from typing import Any, Self, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pet_cifar.data.loader import Batch
from pet_cifar.errors import InputError, check_choice, check_positive
from pet_cifar.hardware import keep_freed_memory
from pet_cifar.training.compile import compile_parts
from pet_cifar.training.lr_schedule import Schedule
from pet_cifar.training.metrics import StageMetrics
from pet_cifar.training.mixup import Mix, mixed
from pet_cifar.training.optimizer import OptimizedModule, OptimizerName
from pet_cifar.training.tta import TestViews, averaged

log = logging.getLogger(__name__)


class ImageClassifier(OptimizedModule):
    """Trains and scores a net; an architecture adds ``backbone`` and ``head`` and nothing else.

    The net takes float pictures in [0, 1] of shape (B, num_channels, image_size, image_size) and normalizes them
    itself. Two classes have one logit, more have one each.

    Args:
        num_classes: 2 or more.
        num_channels: 1 (gray) or 3.
        image_size: side of the pictures in pixels.
        optimizer: ``sgd`` (Nesterov), ``adamw`` or ``rmsprop``.
        lr: the schedule's highest learning rate.
        momentum: of ``sgd`` and ``rmsprop``.
        weight_decay: of weights; biases and norms are spared.
        schedule: the learning rate's course over the whole run, set at every step. ``one_cycle`` rises from lr / 25
            and falls to lr / 10,000 along cosines (Smith and Topin, arXiv 1708.07120, as fastai does it), ``cosine``
            rises linearly and falls to 0 along a cosine (Loshchilov and Hutter, arXiv 1608.03983), ``constant``
            only rises, ``triangle`` rises linearly from lr / 5 and falls linearly to 0.07 lr (Jordan, arXiv
            2404.00498).
        warmup_fraction: share of the run in which the learning rate rises.
        final_lr_factor: the share of ``lr`` at which the schedule ends, null for the schedule's own.
        label_smoothing: share of the target spread evenly over all classes.
        mix: mixes the training pictures of a batch in pairs, and their labels: ``mixup``, ``cutmix``, ``both`` (one of
            the two at random for each batch) or ``none``. ``train/acc`` then counts a pair as its larger share.
        mix_alpha: how evenly; the shares are drawn from the Beta(mix_alpha, mix_alpha) distribution.
        test_views: tests and predicts each picture as it is (``one``), averaged with its ``mirror`` image, or also with
            both of them moved by a pixel (``shift``). Validation always takes one view.
        channels_last: keeps the numbers of a pixel side by side, which the convolutions of many processors and of all
            recent GPUs prefer.
        compile: translates the net for the hardware at hand (torch.compile) before it trains; the first steps wait
            for it.
        mean: of the pictures' channels, in [0, 1]; null measures the training pictures.
        std: likewise, the standard deviation.

    Attributes:
        backbone: from normalized pictures to features.
        head: from features to logits.
        freezing: what of a pretrained backbone is not trained; None trains everything.
        trained_before: whether a checkpoint was loaded; what a run learns of the data before it trains is then known.
    """

    backbone: nn.Module
    head: nn.Module
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int = 10,
        num_channels: int = 3,
        image_size: int = 32,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        schedule: Schedule = "one_cycle",
        warmup_fraction: float = 0.25,
        final_lr_factor: float | None = None,
        label_smoothing: float = 0.0,
        mix: Mix = "none",
        mix_alpha: float = 1.0,
        test_views: TestViews = "one",
        channels_last: bool = False,
        compile: bool = False,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        super().__init__(optimizer, lr, momentum, weight_decay, schedule, warmup_fraction, final_lr_factor)
        self.save_hyperparameters()
        for name, value, kind in (
            ("mix", mix, Mix),
            ("test_views", test_views, TestViews),
        ):
            check_choice(name, value, get_args(kind))
        if num_classes < 2:
            raise InputError(f"num_classes is {num_classes}; a classifier needs at least 2")
        if image_size < 1:
            raise InputError(f"image_size is {image_size}; it is a side in pixels, at least 1")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing is {label_smoothing}; it is from 0 up to below 1")
        check_positive("mix_alpha", mix_alpha)
        self.num_classes = num_classes
        self.num_outputs = 1 if num_classes == 2 else num_classes
        self.label_smoothing = label_smoothing
        self.mix: Mix = mix
        self.mix_alpha = mix_alpha
        self.test_views: TestViews = test_views
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.compiles = compile
        self.example_input_array = torch.zeros(1, num_channels, image_size, image_size)

        self.trained_before = False
        self.measures_pixels = mean is None
        self.register_buffer("mean", _per_channel("mean", mean, 0.5, num_channels))
        self.register_buffer("std", _per_channel("std", std, 0.25, num_channels))
        if (mean is None) != (std is None):
            raise InputError("mean and std belong together; give both, or neither to have them measured")

        self.train_metrics = StageMetrics("train", num_classes)
        self.val_metrics = StageMetrics("val", num_classes)
        self.test_metrics = StageMetrics("test", num_classes)

    def setup(self, stage: str) -> None:
        """Readies the net for a run: memory, what is frozen, the training pictures' mean, compilation.

        Raises:
            InputError: the net cannot do what its options ask for.
        """
        if self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        self.to(memory_format=self.memory_format)
        new = not self.trained_before and self.trainer.ckpt_path is None
        if self.freezing is not None:
            self.freezing.setup(self, stage)
            # neither pretrained nor from a checkpoint
            random = self.freezing.fixed and self.measures_pixels and new
            if stage == "fit" and random and self.trainer.is_global_zero:
                log.warning("what is frozen has random weights, of which little can be learnt; give --model.weights")
        statistics = getattr(getattr(self.trainer, "datamodule", None), "channel_statistics", None)
        if stage == "fit" and self.measures_pixels and new and statistics:
            mean, std = statistics()
            self.mean.copy_(torch.as_tensor(mean).view_as(self.mean))
            self.std.copy_(torch.as_tensor(std).view_as(self.std))
        data = getattr(self.trainer, "datamodule", None)
        for name, asked, off in (
            ("mix", self.mix != "none", "none"),
            ("test_views", self.test_views != "one", "one"),
            ("compile", self.compiles, "false"),
        ):
            if asked and getattr(data, "extractor", None):
                raise InputError(
                    f"{name} needs the whole net, and of this one only the end is run, on features that are kept; "
                    f"give --model.cache_features false, or --model.{name} {off}"
                )
        if stage == "fit" and self.compiles:
            compile_parts(self.backbone, self.head, self.trainer.strategy.root_device)

    def train(self, mode: bool = True) -> Self:
        """Switches to training; a frozen part stays in evaluation."""
        super().train(mode)
        if self.freezing is not None:
            self.freezing.keep_frozen_in_eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Logits of shape (B, num_outputs) for pictures in [0, 1] of shape (B, C, H, W)."""
        return cast(Tensor, self.head(self.backbone(self.normalized(image))))

    def normalized(self, image: Tensor) -> Tensor:
        """What the backbone takes, for pictures in [0, 1]; both of shape (B, C, H, W)."""
        # under --trainer.precision bf16-true the net is of another type than its pictures
        image = image.to(self.mean.dtype, memory_format=self.memory_format)
        return (image - self.mean) / self.std

    def _logits(self, batch: Batch, views: TestViews = "one") -> Tensor:
        if not batch.features:
            return averaged(self, batch.image, views)
        assert self.freezing is not None
        return self.freezing.after(batch.image.to(self.mean.dtype))

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean cross-entropy over the batch; the binary one for one logit.

        Args:
            logits: shape (B, num_outputs).
            label: class numbers, shape (B,), or shares of the classes, shape (B, num_classes).
        """
        if self.num_outputs > 1:
            return F.cross_entropy(logits, label, label_smoothing=self.label_smoothing)
        target = label[:, 1] if label.ndim > 1 else label.to(logits.dtype)
        target = target * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), target)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of all classes, float32, shape (B, num_classes)."""
        if self.num_outputs > 1:
            return logits.float().softmax(1)
        one = logits.float().sigmoid()
        return torch.cat([1 - one, one], 1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch; its randomness follows from the batch alone, so that a run resumes exactly."""
        self._seed(batch.seed)
        if self.mix == "none":
            return self._score(batch, self._logits(batch), self.train_metrics)["loss"]
        image, shares = mixed(batch.image, batch.label, self.mix, self.mix_alpha, self.num_classes)
        logits = self(image)
        loss = self.loss(logits, shares)
        self.train_metrics.update(loss, self.probabilities(logits.detach()), shares.argmax(1))
        return loss

    def _seed(self, seed: int) -> None:
        # torch.manual_seed formats the call stack three times, for devices that are not there, and keeps it
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type != "cpu":
            torch.manual_seed(seed)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and probabilities of one batch."""
        return self._score(batch, self._logits(batch), self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and probabilities of one batch."""
        return self._score(batch, self._logits(batch, self.test_views), self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities of all classes, shape (B, num_classes)."""
        return self.probabilities(self._logits(batch, self.test_views))

    def _score(self, batch: Batch, logits: Tensor, metrics: StageMetrics) -> dict[str, Tensor]:
        loss = self.loss(logits, batch.label)
        probabilities = self.probabilities(logits.detach())
        metrics.update(loss, probabilities, batch.label)
        return {"loss": loss, "probabilities": probabilities}

    def on_train_start(self) -> None:
        """Frees what this epoch trains: a run may go on in the middle of one."""
        self.follow_lr()
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Frees what this epoch trains."""
        if self.freezing is not None:
            self.freezing.start_epoch(self.current_epoch)

    # Nothing is logged per step: no step waits for the device.
    def on_train_epoch_end(self) -> None:
        """Logs the epoch's means."""
        self.train_metrics.log(self, self._class_names())

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the validation pictures."""
        self.val_metrics.log(self, self._class_names())

    def on_test_epoch_end(self) -> None:
        """Logs the means over the test pictures."""
        self.test_metrics.log(self, self._class_names())

    def _class_names(self) -> Iterable[object]:
        datamodule = getattr(self.trainer, "datamodule", None)
        return cast(Iterable[object], getattr(datamodule, "class_names", range(self.num_classes)))

    def use_pretrained_stats(self, mean: list[float], std: list[float]) -> None:
        """Makes the most of pretrained weights: their normalization, unless another is given, and an undecided head.

        A net rebuilt from the hyper-parameters then asks for no weights: it gets them from its checkpoint.
        """
        self.hparams["weights"] = "none"
        if self.measures_pixels:
            self.measures_pixels = False
            self.hparams["mean"], self.hparams["std"] = mean, std
            self.mean.copy_(torch.tensor(mean).view_as(self.mean))
            self.std.copy_(torch.tensor(std).view_as(self.std))
        # pretrained features are large: from random weights the head would start out certain and wrong
        last = cast(nn.Sequential, self.head)[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lets this run's hyper-parameters win over the optimizer state's, which would bring the old ones back."""
        self._refuse_other_data(checkpoint)
        self.trained_before = True
        # the command line's --optimizer has hyper-parameters of its own
        if self._trainer is not None and self._trainer.state.fn == "fit" and "configure_optimizers" not in vars(self):
            self.adopt_checkpoint(checkpoint)

    def _refuse_other_data(self, checkpoint: dict[str, Any]) -> None:
        # the data module itself is only asked where the checkpoint knows one of its class
        datamodule = getattr(self._trainer, "datamodule", None)
        known = [key for key, state in checkpoint.items() if isinstance(state, dict) and "fingerprint" in state]
        allowed = getattr(datamodule, "allow_other_data", True)
        if known and type(datamodule).__qualname__ not in known and not allowed:
            raise InputError(
                f"the checkpoint was trained with a {known[0]}, not with a {type(datamodule).__qualname__}; give the "
                "original data, or --data.allow_other_data true if you know that no test picture was trained on"
            )


def _per_channel(name: str, values: list[float] | None, default: float, num_channels: int) -> Tensor:
    values = [default] * num_channels if values is None else values
    if len(values) != num_channels:
        raise InputError(f"{name} has {len(values)} values for pictures of {num_channels} channels; give one for each")
    return torch.tensor(values).view(1, num_channels, 1, 1)
