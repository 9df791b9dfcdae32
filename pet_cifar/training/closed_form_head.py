"""A head that is solved instead of trained, on the kept features of a frozen backbone."""

import logging

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from pet_cifar.data.datamodule import image_data_of
from pet_cifar.errors import InputError
from pet_cifar.training.ridge import accuracy_interval, fit_ridge, logit_scale
from pet_cifar.training.transfer import TransferClassifier

log = logging.getLogger(__name__)


class ClosedFormHead(Callback):
    """Solves the head of a net whose backbone is frozen, and tells how well it does on pictures that were left out.

    The head is a ridge regression of the training pictures' kept features; see `fit_ridge`. Each training picture is
    scored by a head that has seen neither it nor any picture of its group (see `ImageDataModule.group_numbers`), which
    gives an accuracy of all of them, with its 95 % interval. With ``lr`` 0 the epoch that follows changes nothing, and
    validation, checkpoints and tests are those of any other net.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Solves the head before the first step.

        Raises:
            InputError: The net keeps no features, or its head is more than one dense layer.
        """
        if trainer.global_step:  # A run that goes on has its head.
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_info("ClosedFormHead solves nothing in a fast_dev_run, which keeps no features")
            return
        data = image_data_of(trainer)
        if not isinstance(pl_module, TransferClassifier) or data is None or data.feature_extractor is None:
            raise InputError(
                f"ClosedFormHead solves the head of a frozen backbone's kept features, and {type(pl_module).__name__} "
                "keeps none; give --model TimmClassifier --model.freeze_until all --model.cache_features true"
            )
        freezing, last = pl_module.freezing, pl_module.head[-1]
        dense = [layer for layer in pl_module.head if list(layer.parameters())]
        if dense != [last] or not isinstance(last, nn.Linear) or freezing.fixed < len(freezing.stages):
            raise InputError(
                "ClosedFormHead solves a head of one dense layer over a backbone that is frozen as a whole; give "
                "--model.freeze_until all, and for VGG16Classifier --model.head pooled"
            )
        if pl_module.class_weights != "none":
            raise InputError(
                f"class_weights is {pl_module.class_weights}, and ClosedFormHead weighs all pictures alike; give "
                "class_weights none, or train the head with another config such as folder_efficientnet"
            )
        labels, groups = data.labels("train"), data.group_numbers("train")
        if len(np.unique(groups)) < 2:
            raise InputError(
                f"group_by puts all {len(labels)} training pictures into one group, so that none can be left out; give "
                "another group_by, or leave it out"
            )
        features = data.features("train").take(np.arange(len(labels))).flatten(1).numpy().astype(np.float32)
        found = fit_ridge(features, labels, pl_module.num_classes, groups)
        scale = logit_scale(found.left_out, labels)
        weight, bias = scale * found.weight, scale * found.bias
        if pl_module.num_outputs == 1:  # The one logit is the difference of the two.
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        with torch.no_grad():
            last.weight.copy_(torch.from_numpy(weight))
            last.bias.copy_(torch.from_numpy(bias))
        is_right = found.left_out.argmax(1) == labels
        right = int(is_right.sum())
        low, high = accuracy_interval(is_right, groups)
        number = len(np.unique(groups))
        in_groups = "" if number == len(labels) else f" in {number:,} groups, each left out as a whole"
        if trainer.is_global_zero:
            log.info(
                "left-out accuracy: %.2f %% of %s training pictures%s, 95 %% interval %.2f to %.2f (penalty %g)",
                *(100 * right / len(labels), f"{len(labels):,}", in_groups, 100 * low, 100 * high, found.penalty),
            )
        for logger in trainer.loggers:
            shares = {"acc": right / len(labels), "acc_low": low, "acc_high": high}
            logger.log_metrics({f"left_out/{name}": share for name, share in shares.items()}, 0)
