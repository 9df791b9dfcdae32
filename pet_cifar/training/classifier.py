"""The one base of all nets: loss, metrics, optimizer, schedule."""

import math
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from pet_cifar import __version__
from pet_cifar.data.datamodule import ImageDataModule, image_data_of
from pet_cifar.data.loader import Batch, FeatureBatch
from pet_cifar.data.pixels.convert import Picture
from pet_cifar.data.plain_batch import as_batch
from pet_cifar.data.scored import name_of_results
from pet_cifar.errors import InputError, check_choice, check_positive
from pet_cifar.hardware import keep_freed_memory
from pet_cifar.names import printable
from pet_cifar.training import own_module, prediction
from pet_cifar.training.budget import TimeBudget, time_budget
from pet_cifar.training.checkpoint_paths import check_paths
from pet_cifar.training.class_weights import ClassWeights, check_class_weights, class_weights
from pet_cifar.training.compile import compile_parts
from pet_cifar.training.dropout import Dropout, number_pictures
from pet_cifar.training.epoch_position import note_step_size, recount_steps
from pet_cifar.training.loss import class_probabilities, classification_loss
from pet_cifar.training.loss_watch import LossWatch, OnNan
from pet_cifar.training.lr_schedule import LRSchedule, ScheduleName, change_highest_lr, total_steps
from pet_cifar.training.metrics import StageMetrics
from pet_cifar.training.mixup import Mix, mixed
from pet_cifar.training.optimizer import (
    Groups,
    OptimizerName,
    OptimizerOptions,
    adopt_options,
    build_optimizer,
    can_fuse,
    decay_groups,
    is_in_bfloat16,
)
from pet_cifar.training.prediction import Prediction
from pet_cifar.training.state_dicts import adopt_weights
from pet_cifar.training.tta import TestViews, averaged

MOST_CLASSES = 10**6
"""No set of pictures comes near; a name is kept for each class."""


class ImageClassifier(LightningModule):
    """Trains and scores a net; an architecture adds ``backbone`` and ``head`` and nothing else.

    The net takes float pictures in [0, 1] of shape (B, num_channels, image_size, image_size) and normalizes them
    itself. Two classes have one logit, more have one each. `of` takes the layers of any other net.

    Batches come from a data module of this package or from any loader of ``(x, y)``; see `as_batch`.

    Args:
        num_classes: The number of classes, 2 or more.
        num_channels: 1 for gray pictures, 3 for color.
        image_size: The side of the pictures in pixels.
        optimizer: ``sgd`` (with Nesterov's momentum), ``adamw``, ``rmsprop`` or ``muon``, which is for nets whose
            convolutions are followed by batch normalization; see `Muon`.
        lr: The schedule's highest learning rate.
        momentum: The momentum of ``sgd`` and ``rmsprop``, and of what are no filters under ``muon``.
        weight_decay: The weight decay of weights; biases and norms are spared.
        filter_lr_factor: The share of ``lr`` that the filters of convolutions learn at under ``muon``.
        schedule: The learning rate's course over the whole run, set at every step. ``one_cycle`` rises from lr / 25
            and falls to lr / 10,000 along cosines (Smith and Topin, arXiv 1708.07120, as fastai does it), ``cosine``
            rises linearly and falls to 0 along a cosine (Loshchilov and Hutter, arXiv 1608.03983), ``constant``
            only rises, ``triangle`` rises linearly from lr / 5 and falls linearly to 0.07 lr (Jordan, arXiv
            2404.00498).
        warmup_fraction: The share of the run in which the learning rate rises.
        final_lr_factor: The share of ``lr`` at which the schedule ends; null takes the schedule's own.
        label_smoothing: The share of the target that is spread evenly over all classes.
        class_weights: How much a picture of each class counts in the training loss: ``none`` (all alike), ``balanced``
            (the rarer a class, the more) or a mapping from names of classes to weights, such as ``{dog: 3}``.
            Validation and test weigh all alike.
        mix: Mixes the training pictures of a batch in pairs, and their labels: ``mixup``, ``cutmix``, ``both`` (one of
            the two at random for each batch) or ``none``. ``train/acc`` then counts a pair as its larger share.
        mix_alpha: How evenly pictures are mixed; the shares are drawn from the Beta(mix_alpha, mix_alpha) distribution.
        test_views: Tests and predicts each picture as it is (``one``), averaged with its ``mirror`` image, or also with
            both of them moved by a pixel (``shift``). Validation always takes one view.
        channels_last: Keeps the numbers of a pixel side by side, which the convolutions of many processors and of all
            recent GPUs prefer.
        compile: Translates the net for the hardware at hand (torch.compile) before it trains; the first steps wait
            for it.
        on_nan: What a training loss does that is infinite or not a number: ``stop`` ends the run and names the step
            and its files, ``skip`` leaves the step out, for which a GPU is waited for at every step.
        mean: The mean of the pictures' channels, in [0, 1]; null measures the training pictures.
        std: The standard deviation of the pictures' channels; null measures the training pictures.

    Attributes:
        backbone: The layers from normalized pictures to features.
        head: The layers from features to logits.
        head_lr_factor: The share of ``lr`` that the head learns at.
        class_names: The names of the classes in the order of their numbers; those of the data module it was trained
            with, or of its checkpoint, or else the numbers.
        trained_before: Whether a checkpoint was loaded; the net then knows what it learns of the data before training.
        epoch_start: The number of the epoch that began last, and how many steps were made before it.
    """

    backbone: nn.Module
    head: nn.Module
    head_lr_factor: float = 1.0
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
        filter_lr_factor: float = 1.0,
        schedule: ScheduleName = "one_cycle",
        warmup_fraction: float = 0.25,
        final_lr_factor: float | None = None,
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = "none",
        mix: Mix = "none",
        mix_alpha: float = 1.0,
        test_views: TestViews = "one",
        channels_last: bool = False,
        compile: bool = False,
        on_nan: OnNan = "stop",
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(num_classes, nn.Module):
            raise InputError(
                f"num_classes is a {type(num_classes).__name__}; a net of your own goes into ImageClassifier.of(net), "
                "or ImageClassifier.of(backbone, head)"
            )
        self.save_hyperparameters()
        self.optimizer_options = OptimizerOptions(optimizer, momentum, weight_decay, filter_lr_factor)
        self.schedule = LRSchedule(schedule, warmup_fraction, final_lr_factor)
        check_choice("mix", mix, get_args(Mix))
        check_choice("test_views", test_views, get_args(TestViews))
        if not 0 <= lr < math.inf:
            raise InputError(f"lr is {lr}; it is a number, 0 or more")
        if not 2 <= num_classes <= MOST_CLASSES:
            raise InputError(f"num_classes is {num_classes}; a classifier has 2 to {MOST_CLASSES:,}")
        if image_size < 1:
            raise InputError(f"image_size is {image_size}; it is a side in pixels, at least 1")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing is {label_smoothing}; it is from 0 up to below 1")
        check_choice("on_nan", on_nan, get_args(OnNan))
        check_positive("mix_alpha", mix_alpha)
        check_class_weights(class_weights)
        # A search may change lr; the schedule then still has the old one.
        self.lr = self._scheduled_lr = lr
        self.num_classes = num_classes
        self.num_outputs = 1 if num_classes == 2 else num_classes
        self.class_names = tuple(map(str, range(num_classes)))
        self.label_smoothing = label_smoothing
        self.class_weights: ClassWeights = (
            class_weights
            if isinstance(class_weights, str)
            # YAML makes numbers of names such as 1.
            else {str(name): weight for name, weight in class_weights.items()}
        )
        self._weight: Tensor | None = None
        self._time_budget: TimeBudget | None = None
        self._dropouts: list[Dropout] = []
        self.mix: Mix = mix
        self.mix_alpha = mix_alpha
        self.test_views: TestViews = test_views
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.compiles = compile
        self.loss_watch = LossWatch(on_nan)
        self.example_input_array = torch.zeros(1, num_channels, image_size, image_size)

        self.trained_before = False
        self.epoch_start = (0, 0)
        self.measures_pixels = mean is None
        self.register_buffer("mean", _per_channel("mean", mean, 0.5, num_channels))
        self.register_buffer("std", _per_channel("std", std, 0.25, num_channels))
        if (mean is None) != (std is None):
            raise InputError("mean and std belong together; give both, or neither to have them measured")

        self.train_metrics = StageMetrics("train", num_classes)
        self.val_metrics = StageMetrics("val", num_classes)
        self.test_metrics = StageMetrics("test", num_classes)

    @classmethod
    def of(
        cls,
        backbone: nn.Module,
        head: nn.Module | None = None,
        *,
        num_classes: int | None = None,
        num_channels: int = 3,
        image_size: int = 32,
        class_names: Sequence[str] | None = None,
        **training: Any,
    ) -> Self:
        """Makes a classifier of any net's layers, which it takes as they are.

        A checkpoint does not hold how to build them: `pet_cifar.load` asks for such a net as its argument ``net``.

        Args:
            backbone: The layers from normalized pictures to features, or the whole net.
            head: The layers from features to logits; None where the backbone gives logits.
            num_classes: The number of classes; None counts the logits, or the names.
            num_channels: 1 for gray pictures, 3 for color.
            image_size: The side of the pictures in pixels.
            class_names: The names of the classes; None takes those of the data module, or numbers.
            training: The other arguments of `ImageClassifier`. Pictures that a loader has normalized are left as they
                are with a ``mean`` of 0 and a ``std`` of 1 for each channel.

        Raises:
            InputError: The net cannot take such pictures, or has not as many logits as there are classes.
        """
        head = nn.Identity() if head is None else head
        outputs = own_module.count_outputs(backbone, head, num_channels, image_size)
        count = num_classes or (len(class_names) if class_names else max(2, outputs))
        own_module.check_outputs(outputs, count)
        net = cls(num_classes=count, num_channels=num_channels, image_size=image_size, **training)
        net.backbone, net.head, net.num_outputs = backbone, head, outputs
        if class_names is not None:
            net.class_names = prediction.check_names(class_names, count)
        return net

    # What an architecture may add

    def lr_factors(self) -> tuple[float, float]:
        """The shares of ``lr`` that the backbone and the head learn at."""
        return 1.0, self.head_lr_factor

    def parameter_groups(self) -> Groups:
        """The parameters that are trained, with their learning rates and weight decays."""
        backbone_factor, head_factor = self.lr_factors()
        backbone = set(self.backbone.parameters()) if backbone_factor != head_factor else set()
        parts = (
            (head_factor, [p for p in self.parameters() if p not in backbone]),
            (backbone_factor, [p for p in self.parameters() if p in backbone]),
        )
        return decay_groups(parts, self.lr, self.optimizer_options.weight_decay)

    def learn_from_pictures(self, data: ImageDataModule | None) -> None:
        """Measures the training pictures before a run that starts anew; here they are decoded first.

        Args:
            data: The data module of the run; None where the trainer has none of this package.
        """
        if self.measures_pixels and data is not None:
            for buffer, values in zip((self.mean, self.std), data.channel_statistics(), strict=True):
                buffer.copy_(torch.as_tensor(values).view_as(buffer))

    # The run

    def setup(self, stage: str) -> None:
        """Readies the net for a run.

        Raises:
            InputError: The net cannot do what its options ask for.
        """
        self._arrange_memory()
        if stage == "fit":
            self.class_names = tuple(self._class_names())
            self._start_anew_or_go_on()
            self._weigh_classes()
            self._time_budget = time_budget(self.trainer)
            self._dropouts = [layer for layer in self.modules() if isinstance(layer, Dropout)]
            self._compile()

    def on_fit_start(self) -> None:
        """Refuses data of more or fewer classes; where a checkpoint does not fit, its own refusal has said so before.

        Raises:
            InputError: The numbers of classes differ.
        """
        data = image_data_of(self.trainer)
        if data is not None and data.num_classes != self.num_classes:
            raise InputError(
                f"num_classes is {self.num_classes}: the net tells {self.num_classes} classes apart, and the data has "
                f"{data.num_classes}; give a net of {data.num_classes} classes"
            )

    def _arrange_memory(self) -> None:
        if self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        self.to(memory_format=self.memory_format)

    def _start_anew_or_go_on(self) -> None:
        self.epoch_start = (0, 0)
        if self.starts_anew:
            self.learn_from_pictures(image_data_of(self.trainer))

    def _weigh_classes(self) -> None:
        data = image_data_of(self.trainer)
        if data is None and self.class_weights != "none":
            raise InputError(
                f"class_weights is {self.class_weights}, but the trainer has no ImageDataModule that names classes; "
                "give one, or class_weights none"
            )
        if data is not None:
            self._weight = class_weights(self.class_weights, data.class_names, data.labels("train"))

    def _compile(self) -> None:
        if self.compiles:
            compile_parts(self.backbone, self.head, self.trainer.strategy.root_device)

    @property
    def starts_anew(self) -> bool:
        """Whether no checkpoint has brought weights, and none will in this run."""
        return not self.trained_before and self.trainer.ckpt_path is None

    @property
    def picture_shape(self) -> tuple[Literal[1, 3], int]:
        """The channels of the pictures that the net takes, and their side in pixels."""
        _, channels, _, size = cast(Tensor, self.example_input_array).shape
        return cast(Literal[1, 3], channels), size

    def forward(self, image: Tensor) -> Tensor:
        """Logits of shape (B, num_outputs) for pictures in [0, 1] of shape (B, C, H, W)."""
        features = self.backbone(self.normalized(image))
        if self.memory_format is torch.channels_last and features.requires_grad and features.ndim == 4:
            # A head that flattens hands back a gradient in the other order, for which torch 2.15's batch norm has no
            # fast form: that of the plain CIFAR net took 72 % of its step in bfloat16.
            features.register_hook(_in_channels_last)
        return cast(Tensor, self.head(features))

    def normalized(self, image: Tensor) -> Tensor:
        """What the backbone takes, for pictures in [0, 1]; both of shape (B, C, H, W)."""
        # Under --trainer.precision bf16-true the net is of another type than its pictures.
        image = image.to(self.mean.dtype, memory_format=self.memory_format)
        return (image - self.mean) / self.std

    def logits(self, batch: Batch | FeatureBatch, views: TestViews = "one") -> Tensor:
        """Logits of a batch, shape (B, num_outputs), averaged over ``views`` of each picture."""
        assert isinstance(batch, Batch), "only a net with frozen layers takes features"
        return averaged(self, batch.image, views)

    def loss(self, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean cross-entropy over the batch; see `classification_loss`."""
        return classification_loss(logits, label, self.label_smoothing, weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of all classes, float32, shape (B, num_classes)."""
        return class_probabilities(logits)

    def training_step(self, batch: object, batch_idx: int) -> Tensor | None:
        """The loss of one batch; its randomness follows from the batch alone, so that a run resumes exactly.

        With a loader that is not of this package it follows from torch's random state.

        Returns:
            The loss; None for a batch that is left out, because its loss is not finite.

        Raises:
            NotFiniteError: The loss is not finite, and ``on_nan`` is ``stop``.
        """
        if isinstance(batch, Batch | FeatureBatch):
            self._seed(batch.seed)
            if self._dropouts:
                number_pictures(self._dropouts, batch.shared_seed, batch.first)
        else:
            batch = self._as_batch(batch)
        # What is to be learned by heart is not mixed.
        if self.mix == "none" or self.trainer.overfit_batches > 0:  # type: ignore[attr-defined]
            logits, label = self.logits(batch), batch.label
            loss = self.loss(logits, label, self._class_weight())
        else:
            assert isinstance(batch, Batch), "a net that mixes pictures refuses to train on features"
            image, shares = mixed(batch.image, batch.label, self.mix, self.mix_alpha, self.num_classes)
            logits, label = self(image), shares.argmax(1)
            loss = self.loss(logits, shares, self._class_weight())
        if not self.loss_watch.accepts(self, loss, batch):
            return None
        self.train_metrics.update(loss, self.probabilities(logits.detach()), label)
        return loss

    def _seed(self, seed: int) -> None:
        # torch.manual_seed formats the call stack three times, for devices that are not there, and keeps it.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type != "cpu":
            torch.manual_seed(seed)

    def _as_batch(self, batch: object, *, labeled: bool = True) -> Batch | FeatureBatch:
        return as_batch(batch, self.picture_shape[0], self.num_classes, labeled=labeled)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Loss and probabilities of one batch."""
        batch = self._as_batch(batch)
        return self._score(batch, self.logits(batch), self.val_metrics)

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Loss and probabilities of one batch."""
        batch = self._as_batch(batch)
        return self._score(batch, self.logits(batch, self.test_views), self.test_metrics)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Probabilities of all classes, shape (B, num_classes); a loader's batch needs no labels."""
        return self.probabilities(self.logits(self._as_batch(batch, labeled=False), self.test_views))

    def predict(self, pictures: "Picture | Iterable[Picture]") -> Prediction | list[Prediction]:
        """Says what is in one picture, or in several; the net stays in the mode that it is in.

        Args:
            pictures: A path, the bytes of a file, a PIL picture, a uint8 array of shape (H, W, C), a tensor of shape
                (C, H, W) that is uint8 or floats in [0, 1]; or several of these.

        Returns:
            A `Prediction` for one picture, a list for several.

        Raises:
            InputError: A picture is not there, is none, or has another shape.
        """
        with prediction.evaluating(self):
            return prediction.predict(self, pictures)

    def predict_pictures(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """What a test would say of pictures, for programs that have pictures and no batches.

        Args:
            image: Floats in [0, 1] on the net's device, shape (B, C, H, W).

        Returns:
            The probabilities of all classes, float32, shape (B, num_classes), and whether each picture is of none of
            the classes, bool, shape (B,), or None for a net that cannot tell.
        """
        return self.probabilities(averaged(self, image, self.test_views)), None

    def to_onnx(self, file_path: str | Path | BytesIO | None = None, input_sample: Any = None, **options: Any) -> Any:
        """Exports the bare net, from floats in [0, 1] to logits; see Lightning's ``to_onnx``.

        It is exported as it is in evaluation, also within training, and stays in the mode that it is in. The command
        ``pet-cifar export`` writes a file that takes pictures and is proved to answer as the run does.
        """
        with prediction.evaluating(self):
            return super().to_onnx(file_path, input_sample, **options)

    def is_outlier(self, batch: Batch | FeatureBatch) -> Tensor | None:
        """Whether each picture is of none of the classes, bool, shape (B,); None for a net that cannot tell."""
        return None

    def _class_weight(self) -> Tensor | None:
        if self._weight is not None and self._weight.device != self.device:
            self._weight = self._weight.to(self.device)
        return self._weight

    def _score(self, batch: Batch | FeatureBatch, logits: Tensor, metrics: StageMetrics) -> dict[str, Tensor]:
        loss = self.loss(logits, batch.label)
        probabilities = self.probabilities(logits.detach())
        metrics.update(loss, probabilities, batch.label)
        return {"loss": loss, "probabilities": probabilities}

    # Values are logged once an epoch and not at every step, so that no step waits for the device.

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's means."""
        self.loss_watch.check(self)
        if self.loss_watch.end_epoch(self):
            self.train_metrics.log(self, self._class_names())

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the validation pictures."""
        self.val_metrics.log(self, self._class_names())

    def on_test_epoch_end(self) -> None:
        """Logs the means over the test pictures."""
        self.test_metrics.log(self, self._class_names(), kept_as=name_of_results(self.trainer, "test"))

    def _class_names(self) -> tuple[str, ...]:
        data = image_data_of(self.trainer)
        return data.class_names if data is not None else self.class_names

    # The optimizer

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over what is trained, and the schedule, stepped at every step."""
        options = self.optimizer_options
        groups = options.arranged(self.parameter_groups())
        fused = can_fuse(options.name, self._trainer, self.device)
        bfloat16 = is_in_bfloat16(self._trainer)
        optimizer = build_optimizer(options.name, groups, self.lr, options.momentum, fused=fused, bfloat16=bfloat16)
        self._scheduled_lr = self.lr
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self._lr_factor), "interval": "step"},
        }

    def progress(self, step: int) -> float | None:
        """The share of the run that is over after ``step`` steps of the optimizer; None where the run has no end.

        A `TimeBudget` counts its time, and whichever of time, epochs and steps is nearer to its end decides.
        """
        if not step:  # The trainer does not know its length yet.
            return 0.0
        total = total_steps(self.trainer, self.schedule, *self.epoch_start)
        if self._time_budget is None:
            return None if math.isinf(total) else step / total
        return max(self._time_budget.plan.progress(step), step / total)

    def _lr_factor(self, step: int) -> float:
        progress = self.progress(step)
        # Only the constant schedule runs without an end, and a share of nothing is no warm-up.
        return 1.0 if progress is None else self.schedule.factor(progress)

    def on_train_start(self) -> None:
        """Hands a learning rate that a search has found on to the schedule, which has the old one."""
        schedule = self.lr_schedulers()
        # The search leaves all groups at the same rate; their factors come on top.
        if self.lr != self._scheduled_lr and isinstance(schedule, LambdaLR):
            change_highest_lr(schedule, self.lr)
            self._scheduled_lr = self.lr

    def on_train_epoch_start(self) -> None:
        """Remembers the step, from which the length of the run is counted, and counts from zero."""
        # A checkpoint of an epoch's end may bring what that epoch has counted.
        self.train_metrics.reset()
        self.epoch_start = (self.current_epoch, self.global_step)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the names of the net and of its classes, and where the epoch began, since a run may go on within one.

        Raises:
            NotFiniteError: The net has learned from a loss that is not finite; it is not kept.
        """
        if self._trainer is not None:
            self.loss_watch.check(self)
            note_step_size(checkpoint, self._trainer)
        checkpoint["epoch_start"] = list(self.epoch_start)
        checkpoint["net"] = type(self).__name__
        checkpoint["class_names"] = list(self.class_names)
        checkpoint["pet_cifar_version"] = __version__
        # All processes come here, each with the counts of its own pictures, and only the first one saves.
        if self._trainer is not None and (state := self.train_metrics.state(self._trainer.strategy.reduce)):
            checkpoint["train_metrics"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses other data and another net, and lets this run's options win over those in the optimizer's state."""
        if self._trainer is not None:
            check_paths(self._trainer, checkpoint)
        # Lightning asks a data module itself only where the checkpoint knows one of its class.
        data = image_data_of(self._trainer)
        if data is not None:
            data.refuse_other_data(checkpoint)
        adopt_weights(self, ImageClassifier, checkpoint, self._trainer.ckpt_path if self._trainer else None)
        if self._trainer is not None:
            # Lightning changes the net to the precision of 64-true after it has loaded the weights, which would have
            # been rounded to single precision by then.
            self._trainer.precision_plugin.convert_module(self)
        self.trained_before = True
        names = checkpoint.get("class_names")
        if isinstance(names, list | tuple) and len(names) == self.num_classes:
            self.class_names = tuple(printable(str(name)) for name in names)
        if data is not None and self._trainer is not None and self._trainer.state.fn == "fit":
            recount_steps(checkpoint, self._trainer, data)
        epoch, step = checkpoint.get("epoch_start", (0, 0))
        self.epoch_start = (epoch, step)
        if self._trainer is None or self._trainer.state.fn != "fit":
            return
        self.train_metrics.load_state(checkpoint.get("train_metrics", {}), counts=self._trainer.is_global_zero)
        # The command line's --optimizer replaces configure_optimizers, and has options of its own.
        if "configure_optimizers" in vars(self):
            return
        options = self.optimizer_options
        fused = can_fuse(options.name, self._trainer, self.device)
        if self._trainer.strategy.restore_checkpoint_after_setup:
            # A strategy that divides the net has given each process its part of the optimizer's state by now, and
            # reads the checkpoint's no more.
            own = [{"state": own.state, "param_groups": own.param_groups} for own in self._trainer.optimizers]
            checkpoint = {**checkpoint, "optimizer_states": own}
        adopt_options(checkpoint, options, options.arranged(self.parameter_groups()), fused=fused)


def _in_channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def _per_channel(name: str, values: list[float] | None, default: float, num_channels: int) -> Tensor:
    values = [default] * num_channels if values is None else values
    if len(values) != num_channels:
        raise InputError(f"{name} has {len(values)} values for pictures of {num_channels} channels; give one for each")
    return torch.tensor(values).view(1, num_channels, 1, 1)
