"""What is measured in training, validation and test."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassCalibrationError

Stage = Literal["train", "val", "test"]


class MeanLoss(Metric):
    """The mean loss over all pictures.

    It replaces torchmetrics' MeanMetric, which asks at every update whether a value is not a number, and so waits for
    the device.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, pictures: int) -> None:
        """Takes one batch's mean loss."""
        self.total += loss.float() * pictures
        self.count += pictures

    def compute(self) -> Tensor:
        """The mean so far."""
        return self.total / self.count


class ClassScores(Metric):
    """The macro F1 score, the balanced accuracy and each class's accuracy.

    It replaces torchmetrics' own, which count with ``torch.bincount`` and so wait for a GPU at every update.

    Args:
        num_classes: The number of classes, 2 or more.
    """

    full_state_update = False
    right: Tensor
    labeled: Tensor
    predicted: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("right", "labeled", "predicted"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Takes one batch: probabilities (B, num_classes) and class numbers (B,)."""
        numbers = torch.arange(len(self.right), device=label.device)
        truth, guess = (one[:, None] == numbers for one in (label, probabilities.argmax(1)))
        self.right += (truth & guess).sum(0)
        self.labeled += truth.sum(0)
        self.predicted += guess.sum(0)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """The scores over all batches.

        Returns:
            The mean F1 score of the classes that occur in labels or predictions; the mean accuracy of the classes that
            have pictures; and each class's accuracy, shape (num_classes,), not a number for a class without pictures.
        """
        both = self.labeled + self.predicted
        f1 = 2 * self.right / both.clamp(min=1)
        each = self.right / self.labeled
        return f1.sum() / (both > 0).sum().clamp(min=1), each.nanmean(), each


class StageMetrics(nn.Module):
    """The metrics of one stage, updated by batch, logged by epoch under ``<stage>/<name>``.

    All are means over the pictures of all processes: loss and accuracy; beyond training also the macro F1 score, the
    balanced accuracy (the mean of the classes' accuracies) and each class's accuracy, the expected calibration error
    (15 bins of confidence, Guo et al., arXiv 1706.04599), and the area under the ROC curve for two classes.

    Args:
        stage: The prefix of the names.
        num_classes: The number of classes, 2 or more.
    """

    def __init__(self, stage: Stage, num_classes: int) -> None:
        super().__init__()
        self.stage = stage
        self.loss = MeanLoss()
        metrics: dict[str, Metric] = {"acc": MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
        if stage != "train":
            metrics["classes"] = ClassScores(num_classes)
            if num_classes == 2:
                metrics["auroc"] = MulticlassAUROC(num_classes, validate_args=False)
            metrics["calibration_error"] = MulticlassCalibrationError(num_classes, validate_args=False)
        self.metrics = nn.ModuleDict(metrics)

    def update(self, loss: Tensor, probabilities: Tensor, label: Tensor) -> None:
        """Takes one batch: its mean loss, probabilities (B, num_classes) and class numbers (B,)."""
        self.loss.update(loss.detach(), len(label))
        for metric in self.metrics.values():
            assert isinstance(metric, Metric)
            metric.update(probabilities.detach(), label)

    def state(self, reduce: Callable[..., Any] | None = None) -> dict[str, dict[str, Tensor]]:
        """What has been counted so far, by metric, for a checkpoint within an epoch; empty where nothing has.

        Args:
            reduce: Adds up over all processes, as a strategy of Lightning does, and may write into what it is given;
                None stands for one process. All that is kept here are counts and sums.
        """
        found = [("loss", self.loss), *self.metrics.items()]
        return {
            name: {
                key: value if reduce is None else reduce(value.clone(), reduce_op="sum")
                for key, value in one.metric_state.items()
                if isinstance(value, Tensor)
            }
            for name, one in found
            if isinstance(one, Metric) and one.update_called
        }

    def reset(self) -> None:
        """Forgets what has been counted."""
        for metric in (self.loss, *self.metrics.values()):
            assert isinstance(metric, Metric)
            metric.reset()

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]], *, counts: bool = True) -> None:
        """Goes on counting from what `state` gave.

        Args:
            state: What all processes have counted together.
            counts: Whether this is the process that takes it; the others go on from zero.
        """
        for name, metric in [("loss", self.loss), *self.metrics.items()]:
            assert isinstance(metric, Metric)
            for key, value in state.get(name, {}).items():
                if counts:
                    setattr(metric, key, value.to(metric.device))
                # torchmetrics warns of a value that no update has led to.
                metric._update_count = 1

    def log(self, module: LightningModule, class_names: Iterable[object], kept_as: str = "") -> None:
        """Logs everything and starts anew; called on all processes at the end of an epoch.

        Args:
            module: The net.
            class_names: The names of the classes.
            kept_as: The name that the loggers get in the place of the stage's; callbacks know the stage's.
        """
        values: dict[str, Tensor] = {}
        for name, metric in [("loss", self.loss), *self.metrics.items()]:
            assert isinstance(metric, Metric)
            if isinstance(metric, ClassScores):
                values["f1"], values["balanced_acc"], each = metric.compute()
                values |= {f"acc_{one}": value for one, value in zip(class_names, each, strict=True)}
            else:
                with warnings.catch_warnings():
                    # The area under the curve of one class alone is left out below.
                    warnings.filterwarnings("ignore", message="No (positive|negative) samples in targets")
                    values[name] = metric.compute()
            metric.reset()
        # They are copied at once, since each copy to the host waits for the device.
        numbers = torch.stack(list(values.values())).cpu()
        lacks_class = any(
            name.startswith("acc_") and value.isnan() for name, value in zip(values, numbers, strict=True)
        )
        for name, value in zip(values, numbers, strict=True):
            # A class without pictures has no accuracy, and nothing to be told apart from.
            if (name.startswith("acc_") and value.isnan()) or (name == "auroc" and lacks_class):
                continue
            log_value(module, self.stage, name, value, kept_as, prog_bar=name in ("loss", "acc"))


def log_value(
    module: LightningModule, stage: Stage, name: str, value: Tensor, kept_as: str, *, prog_bar: bool = False
) -> None:
    """Logs one value of a stage.

    Args:
        module: The net.
        stage: The stage, which is the prefix of the name that callbacks know.
        name: The name of the value.
        value: The value, of all processes.
        kept_as: The prefix that the loggers get; empty where it is the stage's own.
        prog_bar: Whether the progress bar shows the value.
    """
    own = kept_as in ("", stage)
    module.log(f"{stage}/{name}", value, prog_bar=prog_bar, logger=None if own else False)
    if not own:
        module.log(f"{kept_as}/{name}", value)


class SelectiveRisk(Metric):
    """How many pictures are not refused, and how often the net errs on these (El-Yaniv and Wiener, 2010)."""

    full_state_update = False
    count: Tensor
    accepted: Tensor
    wrong: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("count", "accepted", "wrong"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, refused: Tensor, right: Tensor) -> None:
        """Takes one batch: whether each picture is refused, and whether the net is right; both bool, shape (B,)."""
        self.count += refused.numel()
        self.accepted += (~refused).sum()
        self.wrong += (~refused & ~right).sum()

    def compute(self) -> tuple[Tensor, Tensor]:
        """The coverage, which is the share that is not refused, and the share of these on which the net errs."""
        return self.accepted / self.count.clamp(min=1), self.wrong / self.accepted.clamp(min=1)
