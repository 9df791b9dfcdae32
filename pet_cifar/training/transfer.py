"""Transfer learning: the base of nets with a pretrained backbone that may be frozen, in part or for some epochs.

What stays frozen in all epochs can be computed once for every picture: `setup` hands a feature extractor over to the
data module, and `teardown` takes it back.
"""

import logging
from contextlib import nullcontext
from typing import Any, Self

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from pet_cifar.data.datamodule import ImageDataModule, image_data_of
from pet_cifar.data.loader import Batch, FeatureBatch
from pet_cifar.data.pixels.feature_cache import FeatureExtractor
from pet_cifar.data.scored import name_of_results
from pet_cifar.errors import InputError, check_positive
from pet_cifar.training.classifier import ImageClassifier
from pet_cifar.training.freezing import Freezing
from pet_cifar.training.metrics import SelectiveRisk, log_value
from pet_cifar.training.outlier_step import learn_outliers
from pet_cifar.training.outliers import OutlierDetector, OutlierScores
from pet_cifar.training.tta import TestViews

log = logging.getLogger(__name__)


class TransferClassifier(ImageClassifier):
    """Trains a new head on a pretrained backbone, or both; an architecture adds the two and loads the weights.

    A checkpoint carries all weights: a net rebuilt from one needs neither file nor network.

    Args:
        weights: ``none``, the path of a safetensors or pth file, or the word with which the net downloads its
            pretrained weights. The input normalization follows the weights.
        freeze_until: ``nothing`` trains all, the name of a block such as ``block4`` or ``layer3`` freezes everything
            up to its end, ``all`` trains only the head.
        unfreeze: From which epoch on, counted from 0, less is frozen, such as ``{3: block4, 6: nothing}``.
        base_lr_factor: The share of ``lr`` that the backbone learns at, such as 0.1.
        cache_features: Computes what stays frozen once for every picture, keeps it beside the data, and trains on it.
        feature_views: How many augmented views of every training picture are kept then; the epochs use them in turn,
            and with 1 all epochs train on the same.
        max_cache_gigabytes: What all features kept beside the data may take, in 10^9 bytes.
        outlier_fraction: The share of the validation pictures that may be called pictures of none of the classes, where
            features are kept; 0 asks no picture whether it is one.
        training: The other arguments of `ImageClassifier`.

    Attributes:
        freezing: Which stages of the backbone are frozen.
        outliers: Tells pictures of none of the classes; None where no features are kept.
    """

    head: nn.Sequential
    freezing: Freezing

    def __init__(
        self,
        weights: str = "none",
        freeze_until: str = "nothing",
        unfreeze: dict[int, str] | None = None,
        base_lr_factor: float = 1.0,
        cache_features: bool = False,
        feature_views: int = 1,
        max_cache_gigabytes: float = 20.0,
        outlier_fraction: float = 0.04,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        check_positive("base_lr_factor", base_lr_factor, "; --model.freeze_until all trains no backbone")
        if feature_views < 1:
            raise InputError(f"feature_views is {feature_views}; it is 1 or more")
        if feature_views > 1 and not cache_features:
            raise InputError(
                f"feature_views is {feature_views}, but no features are kept; give --model.cache_features true"
            )
        if not 0 <= outlier_fraction < 1:
            raise InputError(f"outlier_fraction is {outlier_fraction}; it is a share from 0 up to below 1")
        self.weights = weights
        self.freeze_until = freeze_until
        self.unfreeze_at = unfreeze
        self.base_lr_factor = base_lr_factor
        self.cache_features = cache_features
        self.feature_views = feature_views
        self.max_cache_gigabytes = max_cache_gigabytes
        self.outlier_fraction = outlier_fraction
        self.outliers: OutlierDetector | None = None
        self.selection = SelectiveRisk()

    # What an architecture calls

    def start_frozen(self, blocks: dict[str, int] | None = None) -> None:
        """Freezes what the options say; an architecture calls it once its backbone and head are there.

        Args:
            blocks: The names of blocks, and how many stages of the backbone there are up to the end of each; None
                takes the names of its modules.

        Raises:
            InputError: A block is not there, or the options do not go together.
        """
        self.freezing = Freezing(self.backbone, self.head, blocks, self.freeze_until, self.unfreeze_at)
        if not self.cache_features:
            return
        if not self.freezing.fixed:
            epoch = self.freezing.frozen_from_epoch[-1][0]
            why = f"unfreeze unfreezes all at epoch {epoch}" if epoch else "freeze_until is nothing"
            raise InputError(
                f"cache_features is true, but nothing stays frozen to the end: {why}; keep a block frozen, or give "
                "--model.cache_features false"
            )
        example = self.example_input_array
        assert isinstance(example, Tensor)
        if not self.freezing.can_cut(example):
            raise InputError(
                f"cache_features: this net cannot be cut after {self.freeze_until}; give --model.freeze_until all, or "
                "--model.cache_features false"
            )
        self.outliers = OutlierDetector(self.num_classes, self.freezing.feature_shape(self.normalized(example)))

    def use_pretrained_stats(self, mean: list[float], std: list[float]) -> None:
        """Takes the input normalization of pretrained weights, unless another is given, and an undecided head.

        A net that is rebuilt from the hyper-parameters asks for no weights: it gets them from its checkpoint.
        """
        self.hparams["weights"] = "none"
        if self.measures_pixels:
            self.measures_pixels = False
            self.hparams["mean"], self.hparams["std"] = mean, std
            self.mean.copy_(torch.tensor(mean).view_as(self.mean))
            self.std.copy_(torch.tensor(std).view_as(self.std))
        # Pretrained features are large: from random weights the head would start out certain and wrong.
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    # The run

    def lr_factors(self) -> tuple[float, float]:
        """The shares of ``lr`` that the backbone and the head learn at."""
        return self.base_lr_factor, 1.0

    def setup(self, stage: str) -> None:
        """Readies what is frozen, and hands the extractor over to the data where features are kept."""
        self.freezing.unfreeze()
        if stage == "fit":
            self._check_unfreezing()
        data = image_data_of(self.trainer)
        # A trial run of a few batches does not wait for the features of all pictures.
        if self.cache_features and data is not None and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._refuse_what_needs_the_whole_net(data)
            data.keep_features(self.feature_extractor())
        super().setup(stage)

    def teardown(self, stage: str) -> None:
        """Takes the extractor back."""
        data = image_data_of(self.trainer)
        if data is not None:
            data.release_features()

    def _check_unfreezing(self) -> None:
        trainer, courses = self.trainer, self.freezing.frozen_from_epoch
        waits = getattr(trainer.strategy, "_ddp_kwargs", {}).get("find_unused_parameters", False)
        if len(courses) > 1 and trainer.world_size > 1 and not waits:
            raise InputError(
                "unfreeze on several processes: they would wait for gradients of what is still frozen; give "
                "--trainer.strategy ddp_find_unused_parameters_true"
            )
        if not trainer.is_global_zero:
            return
        late = [epoch for epoch, _ in courses if 0 <= (trainer.max_epochs or -1) <= epoch]
        if late:
            log.warning("unfreeze: epoch %d never comes, the run has %d epochs", late[0], trainer.max_epochs)
        # These weights are neither pretrained nor from a checkpoint.
        if self.freezing.fixed and self.measures_pixels and self.starts_anew:
            log.warning("what is frozen has random weights, of which little can be learned; give --model.weights")

    def _refuse_what_needs_the_whole_net(self, data: ImageDataModule) -> None:
        if self.feature_views > 1 and data.augment is None:
            raise InputError(
                f"feature_views is {self.feature_views}, but all views would be the same; give --data.augment, such as "
                "--data.augment.flip true, or --model.feature_views 1"
            )
        for name, asked, off in (
            ("mix", self.mix != "none", "none"),
            ("test_views", self.test_views != "one", "one"),
            ("compile", self.compiles, "false"),
        ):
            if asked:
                raise InputError(
                    f"{name} needs the whole net, and of this one only the end is run, on features that are kept; "
                    f"give --model.cache_features false, or --model.{name} {off}"
                )

    def feature_extractor(self, device: torch.device | None = None) -> FeatureExtractor:
        """What computes the features of the frozen part, in the trainer's precision or, without one, in float32.

        Args:
            device: Moves this net and the pictures there; None leaves both where the trainer has them.
        """
        if device is not None:
            self.to(device)

        def compute(image: Tensor) -> Tensor:
            context = self.trainer.precision_plugin.forward_context() if self._trainer else nullcontext()
            with torch.inference_mode(), context:
                picture = self.normalized(image if device is None else image.to(device))
                return self.freezing.before(picture.contiguous(memory_format=layout()))

        def precision() -> str:
            return str(self.trainer.precision) if self._trainer else "32-true"

        def layout() -> torch.memory_format:
            # Convolutions of 16 bits take half as long in channels_last, which changes what float32 rounds to.
            return self.memory_format if precision().startswith(("32", "64")) else torch.channels_last

        def key() -> str:
            named = " channels_last" if layout() == torch.channels_last else ""
            return f"{self.freezing.key()} {self.mean.tolist()} {self.std.tolist()} {precision()}{named}"

        return FeatureExtractor(compute, key, self.feature_views, self.max_cache_gigabytes)

    def logits(self, batch: Batch | FeatureBatch, views: TestViews = "one") -> Tensor:
        """Logits of a batch, shape (B, num_outputs); of features only the layers after the cut are run."""
        if isinstance(batch, FeatureBatch):
            return self.freezing.after(batch.features.to(self.mean.dtype))
        return super().logits(batch, views)

    def train(self, mode: bool = True) -> Self:
        """Switches to training; what is frozen stays in evaluation."""
        super().train(mode)
        if hasattr(self, "freezing"):  # Lightning may switch a net that is still being built
            self.freezing.keep_frozen_in_eval()
        return self

    def on_train_start(self) -> None:
        """Unfreezes what this epoch trains, where a run may go on in the middle of one, and learns of outliers."""
        super().on_train_start()
        self._freeze_for_epoch()
        data = image_data_of(self.trainer)
        if self.outliers is not None and self.outlier_fraction and data is not None and data.feature_extractor:
            learn_outliers(self.outliers, data, self.outlier_fraction)

    @property
    def detects_outliers(self) -> bool:
        """Whether the net knows which pictures are of none of the classes, and is asked for it."""
        return self.outliers is not None and self.outliers.is_fitted and self.outlier_fraction > 0

    def detect_outliers(self, features: Tensor) -> OutlierScores | None:
        """How far pictures are from all classes, and whether they are of none; None for a net that cannot tell.

        Args:
            features: The features at the cut, shape (B, ...), which `feature_extractor` computes of pictures.
        """
        if self.outliers is None or not self.detects_outliers:
            return None
        scores: OutlierScores = self.outliers(features)
        return scores

    def predict_pictures(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """What a test would say of pictures; see `ImageClassifier.predict_pictures`."""
        if not self.detects_outliers:
            return super().predict_pictures(image)
        features = self.freezing.before(self.normalized(image))
        scores = self.detect_outliers(features)
        return self.probabilities(self.freezing.after(features)), None if scores is None else scores.is_outlier

    def is_outlier(self, batch: Batch | FeatureBatch) -> Tensor | None:
        """Whether each picture is of none of the classes, bool, shape (B,); None where that is not known."""
        scores = self.detect_outliers(batch.features) if isinstance(batch, FeatureBatch) else None
        return None if scores is None else scores.is_outlier

    def test_step(self, batch: Batch | FeatureBatch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and probabilities of one batch."""
        scored = super().test_step(batch, batch_idx)
        is_outlier = self.is_outlier(batch)
        if is_outlier is not None:
            self.selection.update(is_outlier, scored["probabilities"].argmax(1) == batch.label)
        return scored

    def on_test_epoch_end(self) -> None:
        """Logs the means over the test pictures, and those over the pictures that are not called outliers."""
        super().on_test_epoch_end()
        if self.selection.update_called:
            coverage, risk = self.selection.compute()
            self.selection.reset()
            kept_as = name_of_results(self.trainer, "test")
            log_value(self, "test", "coverage", coverage, kept_as)
            if coverage > 0:
                log_value(self, "test", "selective_risk", risk, kept_as)

    def on_train_epoch_start(self) -> None:
        """Unfreezes what this epoch trains."""
        super().on_train_epoch_start()
        self._freeze_for_epoch()

    def _freeze_for_epoch(self) -> None:
        changed = self.freezing.freeze_for(self.current_epoch)
        if changed and len(self.freezing.frozen_from_epoch) > 1:
            trained = sum(
                parameter.numel()
                for part in (self.backbone, self.head)
                for parameter in part.parameters()
                if parameter.requires_grad
            )
            rank_zero_info(f"epoch {self.current_epoch}: {trained:,} parameters of backbone and head are trained")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is known of pictures of none of the classes."""
        super().on_save_checkpoint(checkpoint)
        if self.outliers is not None and self.outliers.is_fitted:
            checkpoint["outliers"] = self.outliers.content()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Unfreezes all that is ever trained, which the checkpoint's optimizer holds."""
        # The search for a learning rate loads a checkpoint in the middle of an epoch.
        self.freezing.unfreeze()
        if self.outliers is not None:
            self.outliers.restore(checkpoint.get("outliers"))
        super().on_load_checkpoint(checkpoint)
