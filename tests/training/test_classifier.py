import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, recall_score, roc_auc_score
from torch import Tensor

from pet_cifar.callbacks import ThroughputMonitor
from pet_cifar.data import CatsDogsDataModule, DigitsDataModule, ImageDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.data.loader import Batch, BatchLoader
from pet_cifar.data.manifest import Split
from pet_cifar.errors import InputError
from pet_cifar.models import CatsDogsCNN, PlainCNN, ResidualCNN
from pet_cifar.training import ImageClassifier, classifier
from pet_cifar.training.dropout import Dropout, number_pictures
from pet_cifar.training.lr_schedule import LRSchedule, ScheduleName
from pet_cifar.training.metrics import StageMetrics
from pet_cifar.training.muon import Muon
from pet_cifar.training.optimizer import OptimizerName
from tests.conftest import quiet_trainer, write_cats_dogs

pytestmark = [
    # The second of two runs writes beside the first,
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    # or into another directory.
    pytest.mark.filterwarnings("ignore:The dirpath has changed from"),
]

SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)


class Rates(Callback):
    """Remembers the learning rate that each step is made with."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


class StopAfter(Callback):
    """Interrupts a run without end."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


def digits(batch_size: int = 200, **options: Any) -> DigitsDataModule:
    """Seven steps of 200 an epoch."""
    return DigitsDataModule(image_size=8, batch_size=batch_size, **options)


def small(**options: Any) -> ResidualCNN:
    return ResidualCNN(image_size=8, widths=[8, 8], **options)


def weights_equal(one: ImageClassifier, other: ImageClassifier) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_freed_memory_is_kept_on_the_cpu_from_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(classifier, "keep_freed_memory", lambda: kept.append(True))
    quiet_trainer(max_steps=1, limit_val_batches=0).fit(small(), digits())
    assert kept


# Loss and probabilities


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_multiclass_loss_is_the_mean_negative_log_likelihood(smoothing: float) -> None:
    logits, label = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2])
    target = F.one_hot(label, 4) * (1 - smoothing) + smoothing / 4
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    model = small(num_classes=4, label_smoothing=smoothing)
    torch.testing.assert_close(model.loss(logits, label), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_loss_is_what_two_logits_would_give(smoothing: float) -> None:
    logit, label = torch.randn(5, 1, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    model = small(num_classes=2, label_smoothing=smoothing)
    two = torch.cat([torch.zeros_like(logit), logit], 1)
    torch.testing.assert_close(model.loss(logit, label), F.cross_entropy(two, label, label_smoothing=smoothing))
    p = logit.sigmoid().squeeze(1)
    target = label * (1 - smoothing) + smoothing / 2
    torch.testing.assert_close(model.loss(logit, label), -(target * p.log() + (1 - target) * (1 - p).log()).mean())


def test_loss_of_one_binary_picture_is_a_number() -> None:
    assert small(num_classes=2).loss(torch.zeros(1, 1), torch.tensor([1])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_are_float32_and_sum_to_one(num_classes: int, dtype: torch.dtype) -> None:
    model = small(num_classes=num_classes)
    probabilities = model.probabilities((5 * torch.randn(7, model.num_outputs)).to(dtype))
    assert probabilities.shape == (7, num_classes)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(1), torch.ones(7))
    assert (probabilities >= 0).all()


def test_the_one_logit_speaks_for_the_second_class() -> None:
    probabilities = small(num_classes=2).probabilities(torch.tensor([[math.log(4)]]))
    torch.testing.assert_close(probabilities, torch.tensor([[0.2, 0.8]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_classes": 1}, "num_classes is 1"),
        ({"filter_lr_factor": 0.5, "optimizer": "sgd"}, "filter_lr_factor is 0.5, .* sgd .* give optimizer muon"),
        ({"filter_lr_factor": 0.0, "optimizer": "muon"}, "filter_lr_factor is 0.0"),
        ({"optimizer": "adam"}, "optimizer is 'adam'; it is one of sgd, adamw, rmsprop, muon; did you mean adamw"),
        ({"schedule": "linear"}, "schedule is 'linear'; it is one of one_cycle, cosine, triangle, constant"),
        ({"mix": "mixing"}, "mix is 'mixing'; it is one of none, mixup, cutmix, both"),
        ({"test_views": "six"}, "test_views is 'six'; it is one of one, mirror, shift"),
        ({"lr": -1.0}, "lr is -1.0; it is a number, 0 or more"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"momentum": -1.0}, "momentum is -1.0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"warmup_fraction": 1.0}, "warmup_fraction is 1.0"),
        ({"warmup_fraction": -0.1}, "warmup_fraction is -0.1"),
        ({"final_lr_factor": 1.5}, "final_lr_factor is 1.5; it is a share of lr"),
        ({"final_lr_factor": float("nan")}, "final_lr_factor is nan"),
        ({"final_lr_factor": 0.1, "schedule": "constant"}, "schedule constant never falls"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"mix_alpha": 0.0}, "mix_alpha is 0.0; it is a number above 0"),
        ({"mix_alpha": float("inf")}, "mix_alpha is inf"),
        ({"mean": [0.5]}, "mean has 1 values for pictures of 3 channels"),
        ({"std": [0.5, 0.5]}, "std has 2 values for pictures of 3 channels"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ResidualCNN(**{"image_size": 8, "widths": [8, 8], **options})


# Metrics


def calibration_error(probabilities: NDArray[np.float64], label: NDArray[np.int64]) -> float:
    """Guo et al., equation 3: 15 bins of equal width."""
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == label
    error = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return error


def all_probabilities(
    model: ImageClassifier, data: ImageDataModule, split: Split
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """In one go, past loader and trainer."""
    image = data.pixels(split).take(np.arange(len(data.splits[split]))).float() / 255
    with torch.no_grad():
        return model.eval().probabilities(model(image)).double().numpy(), data.labels(split)


def hand_count(
    stage: Split, probabilities: NDArray[np.float64], label: NDArray[np.int64], names: Iterable[str]
) -> dict[str, float]:
    prediction = probabilities.argmax(1)
    classes = range(probabilities.shape[1])
    counted = {
        "loss": log_loss(label, probabilities / probabilities.sum(1, keepdims=True), labels=list(classes)),
        "acc": accuracy_score(label, prediction),
        "f1": f1_score(label, prediction, average="macro"),
        "balanced_acc": balanced_accuracy_score(label, prediction),
    }
    recalls = recall_score(label, prediction, average=None, labels=list(classes))
    counted |= {f"acc_{name}": recall for name, recall in zip(names, recalls, strict=True)}
    if len(classes) == 2:
        counted["auroc"] = roc_auc_score(label, probabilities[:, 1])
    counted["calibration_error"] = calibration_error(probabilities, label)
    return {f"{stage}/{name}": value for name, value in counted.items()}


def test_multiclass_metrics_equal_a_hand_count_over_uneven_batches() -> None:
    seed_everything(1)
    model, data = small(), digits()
    quiet_trainer(max_epochs=1).fit(model, data)
    stages: list[Split] = ["val", "test"]
    for stage in stages:
        data, trainer = digits(batch_size=26), quiet_trainer()
        (trainer.validate if stage == "val" else trainer.test)(model, data, verbose=False)
        loader = data.val_dataloader() if stage == "val" else data.test_dataloader()
        assert len({len(batch.label) for batch in loader}) == 2, "the batches are even"
        probabilities, label = all_probabilities(model, data, stage)
        expected = hand_count(stage, probabilities, label, data.class_names)
        measured = {name: value.item() for name, value in trainer.callback_metrics.items()}
        assert measured == pytest.approx(expected, abs=1e-5)
        assert 0.12 < expected[f"{stage}/acc"] < 1, "the test would not tell a right count from a wrong one"


def test_binary_metrics_equal_a_hand_count(tmp_path: Path) -> None:
    seed_everything(1)
    root = write_cats_dogs(tmp_path / "data", size=16)

    def cats_and_dogs() -> CatsDogsDataModule:
        return CatsDogsDataModule(
            root=root, image_size=16, batch_size=4, test_fraction=0.3, val_fraction=0.4, num_workers=0
        )

    model = CatsDogsCNN(image_size=16)
    stages: list[Split] = ["val", "test"]
    for stage in stages:
        data, trainer = cats_and_dogs(), quiet_trainer()
        (trainer.validate if stage == "val" else trainer.test)(model, data, verbose=False)
        probabilities, label = all_probabilities(model, data, stage)
        expected = hand_count(stage, probabilities, label, data.class_names)
        measured = {name: value.item() for name, value in trainer.callback_metrics.items()}
        assert measured == pytest.approx(expected, abs=1e-5)
        assert set(measured) >= {f"{stage}/auroc", *(f"{stage}/acc_{name}" for name in data.class_names)}


def test_training_metrics_are_means_over_the_epochs_pictures() -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
            self.losses.append(outputs["loss"].item())

    watch = Watch()
    trainer = quiet_trainer(max_epochs=1, callbacks=[watch])
    trainer.fit(small(), digits(batch_size=300))
    assert len(watch.losses) == 4
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(np.mean(watch.losses), rel=1e-5)
    assert 0 < trainer.callback_metrics["train/acc"].item() < 1


def test_a_small_batch_counts_by_its_pictures() -> None:
    metrics = StageMetrics("val", 3)
    metrics.update(torch.tensor(5.0), torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([0]))
    metrics.update(torch.tensor(1.0), torch.tensor([[0.1, 0.7, 0.2]]).expand(9, 3), torch.ones(9).long())
    assert metrics.loss.compute().item() == pytest.approx(1.4)
    assert metrics.metrics["acc"].compute().item() == pytest.approx(0.9)  # type: ignore[operator]


def test_a_loss_that_is_not_a_number_is_not_left_out() -> None:
    metrics = StageMetrics("val", 3)
    metrics.update(torch.tensor(5.0), torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([0]))
    metrics.update(torch.tensor(float("nan")), torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([0]))
    assert metrics.loss.compute().isnan()


def test_validation_metrics_start_anew_each_epoch() -> None:
    model, data = small(lr=0.0), digits()
    trainer = quiet_trainer()
    first = trainer.validate(model, data, verbose=False)
    assert trainer.validate(model, data, verbose=False) == first


# Schedules


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.9])
def test_schedule_starts_peaks_and_ends_where_it_says(schedule: ScheduleName, warmup: float) -> None:
    start = {"one_cycle": 1 / 25, "cosine": 0.0, "triangle": 0.2, "constant": 0.0}[schedule] if warmup else 1.0
    end = {"one_cycle": 1 / 10_000, "cosine": 0.0, "triangle": 0.07, "constant": 1.0}[schedule]
    assert LRSchedule(schedule, warmup).factor(0.0) == pytest.approx(start, abs=1e-12)
    assert LRSchedule(schedule, warmup).factor(warmup) == pytest.approx(1.0)
    assert LRSchedule(schedule, warmup).factor(1.0) == pytest.approx(end, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_schedule_rises_then_falls_without_a_jump(schedule: ScheduleName, warmup: float) -> None:
    progress = np.linspace(0, 1, 401)
    factor = np.array([LRSchedule(schedule, warmup).factor(p) for p in progress])
    steps = np.diff(factor)
    rising = progress[1:] <= warmup
    assert (steps[rising] > 0).all()
    assert (steps[~rising] == 0).all() if schedule == "constant" else (steps[~rising] < 0).all()
    assert np.abs(steps).max() < 0.02
    assert factor.max() == pytest.approx(1.0)


def test_schedules_halfway_down_are_at_half() -> None:
    assert LRSchedule("cosine", 0.2).factor(0.6) == pytest.approx(0.5)
    assert LRSchedule("cosine", 0.2).factor(0.1) == pytest.approx(0.5)
    assert LRSchedule("one_cycle", 0.2).factor(0.6) == pytest.approx((1 + 1e-4) / 2)
    assert LRSchedule("one_cycle", 0.2).factor(0.1) == pytest.approx((1 + 1 / 25) / 2)


@pytest.mark.parametrize("schedule", [schedule for schedule in SCHEDULES if schedule != "constant"])
@pytest.mark.parametrize("final", [0.0, 0.3, 1.0])
def test_a_schedule_ends_where_it_is_told_and_its_rise_is_the_same(schedule: ScheduleName, final: float) -> None:
    assert LRSchedule(schedule, 0.1, final).factor(1.0) == pytest.approx(final, abs=1e-12)
    assert LRSchedule(schedule, 0.1, final).factor(0.55) == pytest.approx((1 + final) / 2)
    assert LRSchedule(schedule, 0.1, final).factor(0.05) == LRSchedule(schedule, 0.1).factor(0.05)


def test_schedule_stays_at_its_end_beyond_the_run() -> None:
    assert LRSchedule("cosine", 0.25).factor(1.5) == 0.0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("length", "total"),
    [
        ({"max_epochs": 2}, 14),
        ({"max_steps": 5, "max_epochs": -1}, 5),
        ({"max_epochs": 9, "max_steps": 5}, 5),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, 6),
    ],
)
def test_the_rate_changes_at_every_step_and_ends_where_it_should(
    schedule: ScheduleName, length: dict[str, int], total: int
) -> None:
    rates = Rates()
    model = small(lr=0.01, schedule=schedule)
    trainer = quiet_trainer(**length, callbacks=[rates], limit_val_batches=0)
    trainer.fit(model, digits())
    assert trainer.global_step == total
    if length.get("accumulate_grad_batches"):
        # The optimizer steps after 3, 6 and 7 batches.
        used = [rates.rates[batch] for batch in (0, 3, 6, 7, 10, 13)]
    else:
        used = rates.rates
    assert used == pytest.approx([0.01 * LRSchedule(schedule, 0.25).factor(k / total) for k in range(total)], rel=1e-9)
    last = trainer.optimizers[0].param_groups[0]["lr"]
    assert last == pytest.approx(0.01 * LRSchedule(schedule, 0.25).factor(1.0), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_a_run_without_end_is_refused_where_the_schedule_needs_one(schedule: ScheduleName) -> None:
    trainer = quiet_trainer(max_epochs=-1, callbacks=[StopAfter(3)], limit_val_batches=0)
    with pytest.raises(InputError, match=f"schedule {schedule} needs to know how long"):
        trainer.fit(small(schedule=schedule), digits())


def test_a_run_without_end_works_at_a_constant_rate() -> None:
    rates = Rates()
    trainer = quiet_trainer(max_epochs=-1, callbacks=[rates, StopAfter(9)], limit_val_batches=0)
    trainer.fit(small(schedule="constant", warmup_fraction=0.0, lr=0.01), digits())
    assert trainer.global_step == 9
    assert rates.rates == [0.01] * 9


# Optimizers


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("rmsprop", torch.optim.RMSprop), ("muon", Muon)],
)
def test_optimizer_by_name(name: OptimizerName, kind: type[torch.optim.Optimizer]) -> None:
    made: Any = small(optimizer=name, lr=0.03, momentum=0.7).configure_optimizers()
    optimizer = made["optimizer"]
    assert type(optimizer) is kind
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.03}
    if name != "adamw":
        rest = [group for group in optimizer.param_groups if not group.get("orthogonal")]
        assert {group["momentum"] for group in rest} == {0.7}
    if name == "sgd":
        assert {group["nesterov"] for group in optimizer.param_groups} == {True}


def test_sgd_without_momentum_is_made_too() -> None:
    made: Any = small(optimizer="sgd", momentum=0.0).configure_optimizers()
    assert made["optimizer"].param_groups[0]["nesterov"] is False


def test_weight_decay_spares_biases_and_norms() -> None:
    model = small(weight_decay=0.3)
    made: Any = model.configure_optimizers()
    decay = {id(p): group["weight_decay"] for group in made["optimizer"].param_groups for p in group["params"]}
    assert len(decay) == sum(1 for _ in model.parameters())
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    spared = {id(p) for module in norms for p in module.parameters()} | {
        id(p) for name, p in model.named_parameters() if name.endswith("bias")
    }
    assert {id(p): 0.0 if id(p) in spared else 0.3 for p in model.parameters()} == decay
    assert 0 < len(spared) < len(decay)


def test_frozen_parameters_are_left_out_of_the_optimizer() -> None:
    model = small()
    model.backbone.requires_grad_(False)
    made: Any = model.configure_optimizers()
    inside = {id(p) for group in made["optimizer"].param_groups for p in group["params"]}
    assert inside == {id(p) for p in model.head.parameters()}


# Pixels


def test_mean_and_std_are_measured_from_the_training_pictures() -> None:
    model, data = small(), digits()
    quiet_trainer(max_steps=1, limit_val_batches=0).fit(model, data)
    image = data.pixels("train").take(np.arange(len(data.splits["train"]))).numpy() / 255.0
    torch.testing.assert_close(model.mean.flatten(), torch.tensor(image.mean((0, 2, 3))).float(), rtol=1e-4, atol=0)
    torch.testing.assert_close(model.std.flatten(), torch.tensor(image.std((0, 2, 3))).float(), rtol=1e-4, atol=0)


def test_a_given_mean_and_std_are_kept() -> None:
    model = small(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    quiet_trainer(max_steps=1, limit_val_batches=0).fit(model, digits())
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert model.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


@pytest.mark.parametrize("given", ["mean", "std"])
def test_one_of_mean_and_std_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="mean and std belong together"):
        small(**{given: [0.1, 0.2, 0.3]})


def test_a_test_of_a_fresh_net_measures_nothing() -> None:
    model = small()
    quiet_trainer().test(model, digits(), verbose=False)
    assert model.mean.flatten().tolist() == [0.5] * 3


def test_mean_and_std_come_back_with_a_checkpoint() -> None:
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(small(), digits())
    trainer.save_checkpoint("run.ckpt")
    checkpoint = torch.load("run.ckpt", weights_only=True)
    checkpoint["state_dict"]["mean"].fill_(0.123)
    torch.save(checkpoint, "run.ckpt")
    model = small()
    quiet_trainer(max_epochs=2, limit_val_batches=0).fit(model, digits(), ckpt_path="run.ckpt")
    assert model.mean.flatten().tolist() == pytest.approx([0.123] * 3)
    assert ResidualCNN.load_from_checkpoint("run.ckpt").mean.flatten().tolist() == pytest.approx([0.123] * 3)


# Checkpoints


def test_a_checkpoint_is_plain_and_rebuilds_an_equal_net() -> None:
    model = PlainCNN(
        image_size=8, num_classes=10, dropout=0.25, lr=0.004, optimizer="sgd", mean=[0.1, 0.2, 0.3], std=[0.2, 0.2, 0.2]
    )
    trainer = quiet_trainer(max_steps=2, limit_val_batches=0)
    trainer.fit(model, digits())
    trainer.save_checkpoint("run.ckpt")
    parameters = torch.load("run.ckpt", weights_only=True)["hyper_parameters"]
    assert parameters["dropout"] == 0.25
    assert parameters["lr"] == 0.004
    assert parameters["mean"] == [0.1, 0.2, 0.3]
    assert "training" not in parameters
    again = PlainCNN.load_from_checkpoint("run.ckpt")
    assert dict(again.hparams) == dict(model.hparams)
    assert (again.lr, again.optimizer_options.name) == (0.004, "sgd")
    assert weights_equal(again, model)
    image = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.eval()(image), model.eval()(image))


def test_a_resumed_run_takes_its_own_rate_and_decay_from_its_first_step_on() -> None:
    first = quiet_trainer(max_epochs=1, limit_val_batches=0)
    first.fit(small(lr=0.01, weight_decay=0.1, schedule="constant", warmup_fraction=0.0), digits())
    first.save_checkpoint("run.ckpt")
    rates = Rates()
    second = quiet_trainer(max_epochs=2, limit_val_batches=0, callbacks=[rates])
    model = small(lr=0.002, weight_decay=0.3, schedule="constant", warmup_fraction=0.0)
    second.fit(model, digits(), ckpt_path="run.ckpt")
    groups = second.optimizers[0].param_groups
    assert [group["initial_lr"] for group in groups] == [0.002, 0.002]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    scheduler: Any = second.lr_scheduler_configs[0].scheduler
    assert scheduler.base_lrs == [0.002, 0.002]
    assert rates.rates[1:] == [0.002] * 6
    assert rates.rates[0] == 0.002, "the first step went by the old rate"


def test_a_resumed_run_takes_its_own_factor() -> None:
    options: dict[str, Any] = {"image_size": 8, "lr": 0.01, "schedule": "constant", "warmup_fraction": 0.0}
    first = quiet_trainer(max_epochs=1, limit_val_batches=0)
    first.fit(PlainCNN(head_lr_factor=0.5, **options), digits())
    first.save_checkpoint("run.ckpt")
    second = quiet_trainer(max_epochs=2, limit_val_batches=0)
    second.fit(PlainCNN(head_lr_factor=0.1, **options), digits(), ckpt_path="run.ckpt")
    rates = {group["lr_factor"]: group["lr"] for group in second.optimizers[0].param_groups}
    assert rates == pytest.approx({1.0: 0.01, 0.1: 0.001})
    third = quiet_trainer(max_epochs=2, limit_val_batches=0)
    with pytest.raises(InputError, match="or not all of them at one learning rate; go on with the options"):
        third.fit(PlainCNN(head_lr_factor=1.0, **options), digits(), ckpt_path="run.ckpt")


def test_another_optimizer_cannot_go_on() -> None:
    first = quiet_trainer(max_epochs=1, limit_val_batches=0)
    first.fit(small(optimizer="adamw"), digits())
    first.save_checkpoint("run.ckpt")
    second = quiet_trainer(max_epochs=2, limit_val_batches=0)
    with pytest.raises(InputError, match="was trained with the optimizer adamw, .* give --model.optimizer adamw, or"):
        second.fit(small(optimizer="sgd"), digits(), ckpt_path="run.ckpt")


def test_a_resumed_run_takes_its_own_momentum() -> None:
    first = quiet_trainer(max_epochs=1, limit_val_batches=0)
    first.fit(small(optimizer="sgd", momentum=0.9), digits())
    first.save_checkpoint("run.ckpt")
    second = quiet_trainer(max_epochs=2, limit_val_batches=0)
    second.fit(small(optimizer="sgd", momentum=0.5), digits(), ckpt_path="run.ckpt")
    assert [group["momentum"] for group in second.optimizers[0].param_groups] == [0.5, 0.5]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("after", ["channels_last", "clipping"])
def test_a_run_goes_on_in_another_layout_or_form(name: OptimizerName, after: str) -> None:
    options: dict[str, Any] = {"optimizer": name, "schedule": "constant", "lr": 0.01}
    first = quiet_trainer(max_epochs=1, limit_val_batches=0)
    first.fit(small(**options), digits())
    first.save_checkpoint("run.ckpt")

    def gone_on(channels_last: bool = False, clip: float | None = None) -> dict[str, torch.Tensor]:
        trainer = quiet_trainer(max_epochs=2, limit_val_batches=0, gradient_clip_val=clip)
        model = small(channels_last=channels_last, **options)
        trainer.fit(model, digits(), ckpt_path="run.ckpt")
        (optimizer,) = trainer.optimizers
        assert {group["fused"] for group in optimizer.param_groups} == {None if clip else True}
        for parameter, state in optimizer.state.items():
            kept = [value for value in state.values() if value.shape == parameter.shape]
            assert kept
            assert {value.stride() for value in kept} == {parameter.stride()}
        return model.state_dict()

    same = gone_on()
    other = gone_on(channels_last=True) if after == "channels_last" else gone_on(clip=1e9)
    for key, value in same.items():
        torch.testing.assert_close(other[key], value, atol=1e-4, rtol=1e-3)


def test_sgd_is_not_fused_where_steps_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # The fused SGD of torch 2.11 spoils the momentum where 16-mixed leaves a step out
    for name, fused in (("sgd", None), ("adamw", True)):
        trainer = quiet_trainer(max_epochs=1)
        monkeypatch.setattr(trainer.precision_plugin, "scaler", object(), raising=False)
        model = small(optimizer=name)
        model.trainer = trainer
        made: Any = model.configure_optimizers()
        assert {group["fused"] for group in made["optimizer"].param_groups} == {fused}


def run(net: str, checkpoints: ModelCheckpoint, ckpt_path: str | None = None, burn: int = 0) -> ImageClassifier:
    """A run of two epochs of seven steps with dropout and augmentation; ``burn`` disturbs the global generators."""
    seed_everything(5)
    torch.rand(burn)
    np.random.rand(burn)
    model: ImageClassifier = PlainCNN(image_size=8, optimizer="adamw") if net == "plain" else small(optimizer="sgd")
    augment = Augment(flip=True, translate=1, brightness=0.2)
    trainer = quiet_trainer(max_epochs=2, enable_checkpointing=True, callbacks=[checkpoints])
    trainer.fit(model, digits(45, test_fraction=0.8, augment=augment, num_workers=1), ckpt_path=ckpt_path)
    assert trainer.global_step == 14
    return model


@pytest.mark.parametrize("net", ["plain", "residual"])
@pytest.mark.parametrize(
    ("when", "steps"),
    [
        ({"every_n_train_steps": 3}, [3, 9]),
        ({"every_n_epochs": 1}, [7]),
        ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, [7]),
    ],
    ids=["middle", "end", "train_end"],
)
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    net: str, when: dict[str, Any], steps: list[int]
) -> None:
    def checkpoints(folder: str) -> ModelCheckpoint:
        return ModelCheckpoint(folder, "{step}", save_top_k=-1, **when)

    whole = run(net, checkpoints("whole"))
    for step in steps:
        path = f"whole/step={step}.ckpt"
        assert torch.load(path, weights_only=True)["global_step"] == step
        resumed = run(net, checkpoints(f"after{step}"), path, burn=17)
        assert weights_equal(resumed, whole), f"resumed after step {step}"


class Interrupt(Callback):
    """Ctrl-C at a point of the third step of the second epoch."""

    def __init__(self, hook: str) -> None:
        self.validated: list[int] = []
        self.times = 0
        setattr(self, hook, self.act)

    def act(self, trainer: Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:
            self.times += 1
            if self.times == 3:
                trainer.save_checkpoint("interrupted.ckpt")
                raise KeyboardInterrupt

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated.append(trainer.current_epoch)


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_before_zero_grad", "on_before_backward"])
def test_an_interrupted_step_is_done_again_and_its_epoch_validated(hook: str) -> None:
    def fit(callback: Interrupt, path: str | None = None) -> ImageClassifier:
        seed_everything(2)
        model = small()
        trainer = quiet_trainer(max_epochs=2, callbacks=[callback, ThroughputMonitor()], logger=CSVLogger("logs"))
        trainer.fit(model, digits(240), ckpt_path=path, weights_only=True)
        if path:
            assert float(trainer.callback_metrics["epoch_seconds"]) < 60
        return model

    whole = fit(Interrupt("on_never"))
    with pytest.raises(SystemExit):
        fit(Interrupt(hook))
    again = Interrupt("on_never")
    resumed = fit(again, "interrupted.ckpt")
    # A forward pass of the interrupted step may have left something in running statistics, which are not compared.
    torch.testing.assert_close(list(resumed.parameters()), list(whole.parameters()), rtol=0, atol=0)
    assert weights_equal(resumed, whole) or hook != "on_train_batch_start"
    assert again.validated == [1]


def fitted(seed: int, **options: Any) -> ImageClassifier:
    seed_everything(seed)
    model = PlainCNN(image_size=8)
    augment = Augment(flip=True, translate=1)
    data = digits(45, test_fraction=0.8, augment=augment, **options)
    quiet_trainer(max_epochs=1, limit_train_batches=4).fit(model, data)
    return model


def test_the_same_seed_gives_the_same_weights_for_any_number_of_workers() -> None:
    one = fitted(3, num_workers=0)
    assert weights_equal(one, fitted(3, num_workers=2))
    assert weights_equal(one, fitted(3, num_workers=2, cache="none"))
    assert not weights_equal(one, fitted(4, num_workers=0))


def loss_of(model: ImageClassifier, batch: Batch) -> Tensor:
    loss = model.training_step(batch, 0)
    assert loss is not None
    return loss


def test_a_steps_dropout_follows_from_its_batch_alone() -> None:
    model, data = PlainCNN(image_size=8).train(), digits()
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    batch = replace(batch, image=batch.image.float() / 255)
    losses: list[Tensor] = []
    for burn in (0, 5):
        torch.rand(burn)
        losses.append(loss_of(model, batch))
    assert torch.equal(*losses)
    assert not torch.equal(losses[0], loss_of(model, replace(batch, seed=batch.seed - 1)))


def test_two_processes_make_the_step_that_one_would() -> None:
    model = CatsDogsCNN(image_size=20, dropout=0.5, mean=[0.5], std=[0.25])
    data = DigitsDataModule(image_size=20, batch_size=8)
    data.setup("fit")
    model._dropouts = [layer for layer in model.modules() if isinstance(layer, Dropout)]
    assert model._dropouts

    def gradients(rank: int, world_size: int) -> list[Tensor]:
        loader = BatchLoader(
            data.pixels("train"), data.labels("train") % 2, 8 // world_size, shuffle=True, rank=rank,
            world_size=world_size,
        )  # fmt: skip
        batch = loader.load(0, 0)
        model.train().zero_grad()
        number_pictures(model._dropouts, batch.shared_seed, batch.first)
        model.loss(model(batch.image[:, :1] / 255), batch.label).backward()  # type: ignore[no-untyped-call]
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    alone, first, second = gradients(0, 1), gradients(0, 2), gradients(1, 2)
    for one, a, b in zip(alone, first, second, strict=True):
        torch.testing.assert_close((a + b) / 2, one, atol=1e-6, rtol=1e-4)
        assert not torch.allclose(a, b, atol=1e-6)
