from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from torch import Tensor, nn

from pet_cifar.data import DigitsDataModule, ImageDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.data.loader import Batch, FeatureBatch
from pet_cifar.errors import InputError
from pet_cifar.models import TimmClassifier, VGG16Classifier
from pet_cifar.training import ImageClassifier, TransferClassifier
from pet_cifar.training.freezing import Freezing, ends_of, is_chain, stages_of
from tests.conftest import quiet_trainer


def small(**options: Any) -> TimmClassifier:
    """A real net of timm's with batch norms; 0.5 million parameters."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"name": "test_efficientnet", "num_classes": 10, "image_size": 32}
    return TimmClassifier(**{**defaults, **options})


def digits(**options: Any) -> DigitsDataModule:
    return DigitsDataModule(**{"root": "digits", "image_size": 32, "num_workers": 0, "batch_size": 32, **options})


def names_of_trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def part(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)


def freezing_of(model: ImageClassifier) -> Freezing:
    assert isinstance(model, TransferClassifier)
    return model.freezing


class Look(Callback):
    """Keeps what ``look`` makes of the data module in the run: afterwards it gives pictures again."""

    def __init__(self, look: Callable[[ImageDataModule], Any]) -> None:
        self.look = look
        self.seen: list[Any] = []

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(self.look(trainer.datamodule))  # type: ignore[attr-defined]

    on_predict_end = on_train_end


# Stages


def test_the_parts_of_a_sequence_are_stages() -> None:
    base = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))
    assert stages_of(base) == ["0", "1.0", "1.1"]
    assert ends_of(stages_of(base)) == {"0": 1, "1": 3, "1.0": 2, "1.1": 3}
    assert is_chain(base, stages_of(base), torch.rand(1, 2))


def test_what_is_not_a_sequence_is_no_chain() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return x + cast(Tensor, self.one(x))

    assert not is_chain(Twice(), stages_of(Twice()), torch.rand(1, 2))


def test_vgg16s_blocks_end_with_their_poolings() -> None:
    model = VGG16Classifier(image_size=32, freeze_until="block3")
    for name, end in freezing_of(model).ends.items():
        if name.startswith("block"):
            assert isinstance(model.backbone[end - 1], nn.MaxPool2d), name  # type: ignore[index]
    trained = {name for name in names_of_trained(model) if name.startswith("backbone")}
    assert trained == {f"backbone.{layer}.{kind}" for layer in (17, 19, 21, 24, 26, 28) for kind in ("weight", "bias")}


# Frozen


@pytest.mark.parametrize("until", ["nothing", "conv_stem", "blocks.2", "blocks", "all"])
def test_what_is_frozen_does_not_change(until: str) -> None:
    model = small(freeze_until=until)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=1)
    trainer.fit(model, datamodule=digits())
    freezing = freezing_of(model)
    still = {f"backbone.{name}" for name in freezing.stages[: freezing.fixed]}
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    # This holds for running averages, too: a batch norm that is frozen does not go on averaging.
    assert not [name for name in changed if any(name.startswith(f"{stage}.") for stage in still)]
    free = names_of_trained(model)
    assert free <= changed | {name for name in free if name.startswith(("mean", "std"))}
    assert not freezing._modules(0, 1)[0].training if until != "nothing" else model.backbone.training


def test_frozen_parts_stay_in_evaluation() -> None:
    model = small(freeze_until="blocks.1").train()
    modes = {name: model.backbone.get_submodule(name).training for name in freezing_of(model).stages}
    assert not any(modes[name] for name in ("conv_stem", "bn1", "blocks.0.0", "blocks.1.0"))
    assert all(modes[name] for name in ("blocks.2.0", "conv_head", "bn2"))
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_class_token_is_frozen_with_the_rest() -> None:
    model = small(name="test_vit", image_size=160, freeze_until="all")
    assert names_of_trained(model) == {"head.1.weight", "head.1.bias"}


def test_the_base_gets_its_own_learning_rate() -> None:
    model = small(freeze_until="blocks.1", lr=0.1, base_lr_factor=0.01)
    made: Any = model.configure_optimizers()
    rates = {
        parameter: group["initial_lr"] for group in made["optimizer"].param_groups for parameter in group["params"]
    }
    assert {rates[parameter] for parameter in model.head.parameters()} == {0.1}
    free = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    assert [rates[parameter] for parameter in free] == pytest.approx([0.001] * len(free))
    assert len(rates) == len(free) + 2


# Staged

STAGES = {1: "blocks.2", 2: "nothing"}


class Recorder(Callback):
    """Which tensors each epoch changed."""

    def __init__(self) -> None:
        self.changed: list[set[str]] = []
        self._before: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = pl_module.state_dict()
        self.changed.append(
            {name for name, value in state.items() if "_metrics" not in name and not value.equal(self._before[name])}
        )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop", "muon"])
def test_stages_are_freed_at_their_epochs(optimizer: str) -> None:
    recorder = Recorder()
    model = small(freeze_until="all", unfreeze=STAGES, lr=0.01, optimizer=optimizer)
    trainer = quiet_trainer(max_epochs=3, limit_train_batches=4, limit_val_batches=1, callbacks=[recorder])
    trainer.fit(model, datamodule=digits())
    assert recorder.changed[0] == {"head.1.weight", "head.1.bias"}
    assert "backbone.conv_head.weight" in recorder.changed[1]
    assert "backbone.bn2.running_mean" in recorder.changed[1]
    assert not [name for name in recorder.changed[1] if name.startswith(("backbone.conv_stem", "backbone.blocks.2"))]
    assert {"backbone.conv_stem.weight", "backbone.bn1.running_mean"} <= recorder.changed[2]


def test_a_staged_runs_learning_rate_is_searched() -> None:
    model = small(freeze_until="all", unfreeze=STAGES, base_lr_factor=0.1, schedule="constant", warmup_fraction=0.0)
    recorder = Recorder()
    finder = LearningRateFinder(num_training_steps=20, max_lr=1.0)
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=22, limit_val_batches=0, callbacks=[finder, recorder])
    trainer.fit(model, datamodule=digits())
    assert finder.optimal_lr is not None
    assert model.lr == finder.optimal_lr.suggestion()
    assert {group["lr"] / group["lr_factor"] for group in trainer.optimizers[0].param_groups} == {model.lr}
    assert recorder.changed[-2] == {"head.1.weight", "head.1.bias"}
    assert "backbone.conv_head.weight" in recorder.changed[-1]
    assert "backbone.conv_stem.weight" not in recorder.changed[-1]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_staged_run_resumes_exactly(tmp_path: Path, optimizer: str) -> None:
    def trained(epochs: int, checkpoint: str | None = None) -> tuple[Trainer, TimmClassifier]:
        model = small(
            freeze_until="all",
            unfreeze=STAGES,
            lr=0.01,
            optimizer=optimizer,
            base_lr_factor=0.1,
            schedule="constant",  # Other schedules follow from the length of the run.
            warmup_fraction=0.0,
        )
        trainer = quiet_trainer(max_epochs=epochs, limit_train_batches=4, limit_val_batches=0)
        trainer.fit(model, datamodule=digits(), ckpt_path=checkpoint, weights_only=True)
        return trainer, model

    _, whole = trained(4)
    first, _ = trained(2)
    first.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = trained(4, str(tmp_path / "half.ckpt"))
    state = resumed.state_dict()
    assert all(value.equal(state[name]) for name, value in whole.state_dict().items())


def test_stages_are_refused_where_processes_would_wait() -> None:
    model = small(freeze_until="all", unfreeze=STAGES)
    model._trainer = quiet_trainer(devices=2, strategy="ddp")
    with pytest.raises(InputError, match="ddp_find_unused_parameters_true"):
        model.setup("fit")
    model._trainer = quiet_trainer(devices=2, strategy="ddp_find_unused_parameters_true")
    model.setup("fit")
    model._trainer = quiet_trainer(devices=2, strategy="ddp")
    model.setup("test")


# The cut


def cut(until: str, **options: Any) -> TimmClassifier:
    return small(freeze_until=until, cache_features=True, **options)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
@pytest.mark.parametrize("until", ["first", "middle", "all"])
def test_before_and_after_are_the_whole(name: str, until: str) -> None:
    stages = stages_of(small(name=name).backbone)
    where = {"first": stages[0], "middle": stages[len(stages) // 2], "all": "all"}[until]
    model = cut(where, name=name).eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(
            freezing_of(model).after(freezing_of(model).before(model.normalized(image))), model(image)
        )


@pytest.mark.parametrize("head", ["pooled", "flattened"])
@pytest.mark.parametrize("until", ["block4", "all"])
def test_vgg16_is_cut_before_what_is_trained(until: str, head: Any) -> None:
    model = VGG16Classifier(image_size=64, freeze_until=until, head=head, cache_features=True).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = freezing_of(model).before(model.normalized(image))
        assert torch.allclose(freezing_of(model).after(features), model(image), atol=1e-6)
    wanted = {"block4": (2, 512, 4, 4), "all": (2, 512) if head == "pooled" else (2, 2048)}
    assert features.shape == wanted[until]


@pytest.mark.parametrize("until", ["blocks.1", "all"])
def test_features_give_the_predictions_of_pictures(until: str) -> None:
    trained = cut(until, lr=0.01)
    quiet_trainer(max_epochs=2, limit_train_batches=10).fit(trained, datamodule=digits())
    probabilities: list[Tensor] = []
    for cached in (True, False):
        model = small(freeze_until=until, cache_features=cached)
        model.load_state_dict(trained.state_dict())
        data, look = digits(), Look(lambda data: data.feature_extractor is not None)
        trainer = quiet_trainer(callbacks=[look])
        probabilities.append(torch.cat(cast(list[Tensor], trainer.predict(model, datamodule=data))))
        assert look.seen == [cached]
        # The net takes its extractor back.
        assert data.feature_extractor is None
    # A float16 has eleven bits.
    found, wanted = probabilities
    assert torch.allclose(found, wanted, atol=2e-3)
    assert (found.argmax(1) == wanted.argmax(1)).float().mean() > 0.99


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("until", ["blocks.1", "all"])
def test_training_on_features_is_training_on_pictures(until: str, precision: Any) -> None:
    losses = []
    for cached in (True, False):
        model = small(freeze_until=until, cache_features=cached, lr=0.01, dropout=0.3)
        with torch.no_grad():  # Pretrained features are this large, and random ones are not.
            part(model, "backbone.bn2" if until == "all" else "backbone.blocks.1.0.bn2").weight.mul_(300)
        trainer = quiet_trainer(max_epochs=2, limit_train_batches=10, limit_val_batches=0, precision=precision)
        # Most of the digits are left out, because some processors take long for bfloat16.
        trainer.fit(model, datamodule=digits(test_fraction=0.75))
        losses.append(float(trainer.callback_metrics["train/loss"]))
    assert losses[0] < 2.2
    # A bfloat16 has eight bits, of which the weights lose the last ones at every step where they are kept in it; how
    # many depends on the processor.
    near = {"32-true": 3e-3, "bf16-mixed": 0.02, "bf16-true": 0.04}[precision]
    assert losses[0] == pytest.approx(losses[1], rel=near)


@pytest.mark.parametrize(("precision", "last"), [("32-true", False), ("32-true", True), ("bf16-mixed", False)])
def test_features_are_those_of_the_runs_precision_and_layout(precision: Any, last: bool) -> None:
    def look_at(data: ImageDataModule) -> tuple[torch.Tensor, str]:
        extractor = data.feature_extractor
        assert extractor is not None
        return data.features("train").take(np.arange(64)), extractor.key()

    look, model, data = Look(look_at), cut("all", channels_last=last), digits(test_fraction=0.75)
    quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0, precision=precision, callbacks=[look]).fit(
        model, datamodule=data
    )
    ((found, key),) = look.seen
    assert precision in key
    layout = torch.channels_last if last or precision == "bf16-mixed" else torch.contiguous_format
    assert ("channels_last" in key) == (layout == torch.channels_last)
    image = data.view("train", np.arange(64), 0)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"):
        wanted = [
            freezing_of(model).before(model.normalized(some).contiguous(memory_format=layout))
            for rows in torch.split(image, 32)
            for some in torch.split(rows, data.batch_size)
        ]
    # They are the very numbers, whatever was done meanwhile.
    assert torch.equal(found, torch.cat(wanted).half())


def test_epochs_use_the_views_in_turn() -> None:
    def first_batches(data: ImageDataModule) -> list[FeatureBatch]:
        loader = data.train_dataloader()
        return [loader.load(epoch, 0, loader._places(0)) for epoch in range(3)]

    data, look = digits(augment=Augment(flip=True, translate=2)), Look(first_batches)
    model = cut("all", feature_views=2)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1, callbacks=[look])
    trainer.fit(model, datamodule=data)
    (batches,) = look.seen
    assert all(isinstance(batch, FeatureBatch) for batch in batches)
    assert torch.equal(batches[0].features, batches[2].features)
    assert not torch.equal(batches[0].features, batches[1].features)
    # What is stored is what the frozen layers make of the views.
    for batch, number in zip(batches, (1, 2), strict=False):
        with torch.no_grad():
            wanted = freezing_of(model).before(model.normalized(data.view("train", batch.row.numpy(), number)))
        assert torch.allclose(batch.features.float(), wanted, rtol=2e-3, atol=2e-3)
    assert torch.equal(
        data.view("train", batches[0].row.numpy(), 0), data.pixels("train").take(batches[0].row.numpy()) / 255
    )


@pytest.mark.parametrize(("name", "value"), [("mix", "mixup"), ("test_views", "mirror"), ("compile", True)])
def test_what_needs_the_whole_net_is_refused_where_features_are_kept(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} needs the whole net, .* give --model.cache_features false, or --mod"):
        quiet_trainer(max_epochs=1).fit(cut("all", **{name: value}), datamodule=digits())


def test_a_trial_run_computes_no_features() -> None:
    look = Look(lambda data: data.feature_extractor)
    quiet_trainer(fast_dev_run=True, callbacks=[look]).fit(cut("all"), datamodule=digits())
    assert look.seen == [None]


def test_another_net_gets_no_features() -> None:
    class Stopped(Exception):
        pass

    def stop(data: ImageDataModule) -> None:
        raise Stopped

    # A run that ends in an error does not reach its teardown.
    data, look = digits(), Look(lambda data: type(data.train_dataloader().load(0, 0)))
    short: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}
    with pytest.raises(Stopped):
        quiet_trainer(**short, callbacks=[Look(stop)]).fit(cut("all"), datamodule=data)
    quiet_trainer(**short, callbacks=[look]).fit(small(), datamodule=data)
    assert look.seen == [Batch]


def test_other_weights_get_other_features() -> None:
    model = cut("blocks.1")
    key = freezing_of(model).key()
    with torch.no_grad():
        next(model.head.parameters()).add_(1)
        freezing_of(model)._modules(-3, -2)[0].running_mean.add_(1)  # type: ignore[operator]
    assert freezing_of(model).key() == key
    with torch.no_grad():
        freezing_of(model)._modules(1, 2)[0].running_mean.add_(1)  # type: ignore[operator]
    assert freezing_of(model).key() != key
    other = cut("blocks.0")
    assert freezing_of(other).key() != key


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_until": "layer9"}, "freeze_until layer9: there is no such block; it is one of nothing, conv_stem"),
        ({"freeze_until": "all", "unfreeze": {1: "blok"}}, "unfreeze: epoch 1 blok: there is no such block"),
        ({"freeze_until": "blocks.1", "unfreeze": {1: "all"}}, "all unfreezes nothing more"),
        ({"freeze_until": "all", "unfreeze": {0: "nothing"}}, "give 1 or more"),
        ({"freeze_until": "all", "feature_views": 0}, "feature_views is 0"),
        ({"base_lr_factor": 0.0}, "base_lr_factor is 0.0; it is a number above 0"),
        ({"cache_features": True}, "nothing stays frozen to the end: freeze_until is nothing"),
        (
            {"cache_features": True, "freeze_until": "all", "unfreeze": {3: "nothing"}},
            "nothing stays frozen to the end: unfreeze unfreezes all at epoch 3",
        ),
        ({"freeze_until": "block2"}, "did you mean blocks.2?"),
        ({"freeze_until": "all", "feature_views": 2}, "but no features are kept"),
        (
            {"name": "test_vit", "image_size": 160, "cache_features": True, "freeze_until": "blocks.0"},
            "cannot be cut after blocks.0",
        ),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        small(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_views_without_augmentation_are_refused() -> None:
    with pytest.raises(InputError, match="all views would be the same"):
        quiet_trainer(max_epochs=1).fit(cut("all", feature_views=3), datamodule=digits())


def test_another_normalization_gets_other_features() -> None:
    features = []
    for mean in (0.2, 0.5):
        look = Look(lambda data: data.train_dataloader().load(0, 0).features)
        model = cut("blocks.1", mean=[mean] * 3, std=[0.5] * 3)
        short: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}
        quiet_trainer(**short, callbacks=[look]).fit(model, datamodule=digits())
        features += look.seen
    assert not torch.equal(*features)


def test_synchronized_batch_norms_stay_frozen() -> None:
    model = small(freeze_until="blocks.1")
    # Lightning does this before training.
    model.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.backbone)  # type: ignore[no-untyped-call]
    model.train()
    assert isinstance(part(model, "backbone.bn1"), nn.SyncBatchNorm)
    assert not part(model, "backbone.bn1").training
    assert part(model, "backbone.bn2").training


def test_going_on_with_other_blocks_is_refused(tmp_path: Path) -> None:
    first = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    first.fit(small(freeze_until="blocks.1"), datamodule=digits())
    first.save_checkpoint(tmp_path / "last.ckpt")
    second = quiet_trainer(max_epochs=2, limit_train_batches=1, limit_val_batches=0)
    with pytest.raises(InputError, match="trained other parameters"):
        second.fit(
            small(freeze_until="blocks.2"), datamodule=digits(), ckpt_path=tmp_path / "last.ckpt", weights_only=True
        )


def test_there_must_be_room_for_all_parts_before_training(tmp_path: Path) -> None:
    # The training split alone takes this: 1,437 pictures of 256 numbers.
    enough_for_one = 1437 * 256 * 2 * 1.01e-9
    with pytest.raises(InputError, match="max_cache_gigabytes"):
        quiet_trainer(max_epochs=1).fit(cut("all", max_cache_gigabytes=enough_for_one), datamodule=digits())


def test_what_a_run_does_with_its_blocks_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = small(freeze_until="all", unfreeze={1: "blocks.2", 7: "blocks.1"})
    with caplog.at_level("INFO"):
        quiet_trainer(max_epochs=2, limit_train_batches=1, limit_val_batches=0).fit(model, datamodule=digits())
    assert "what is frozen has random weights" in caplog.text
    assert "unfreeze: epoch 7 never comes, the run has 2 epochs" in caplog.text
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert f"epoch 1: {trained:,} parameters of backbone and head" in caplog.text
