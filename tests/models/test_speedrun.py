"""Every ingredient of SpeedrunCNN against a slow and plain computation, and the whole on the CPU."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pet_cifar.data import DigitsDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.errors import InputError
from pet_cifar.models import SpeedrunCNN
from pet_cifar.models.speedrun import PATCH, Activation, ConvGroup
from pet_cifar.training.lr_schedule import LRSchedule
from pet_cifar.training.tta import averaged
from pet_cifar.training.whitening import whitening_filters
from tests.conftest import quiet_trainer


def narrow(**options: Any) -> SpeedrunCNN:
    defaults: dict[str, Any] = {
        "image_size": 16,
        "widths": [8, 16, 16],
        "optimizer": "sgd",
        "lr": 0.3,
        "momentum": 0.85,
        "weight_decay": 0.00133,
        "schedule": "triangle",
        "warmup_fraction": 0.23,
        "label_smoothing": 0.2,
    }
    return SpeedrunCNN(**(defaults | options))


def digits(**options: Any) -> DigitsDataModule:
    return DigitsDataModule(image_size=16, batch_size=100, **options)


# The net


def test_the_published_size() -> None:
    model = SpeedrunCNN()
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    # 24 biases of the whitening, six convolutions, 2 x (64 + 256 + 256) biases of norms, 10 x 256
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256)
    assert trained == 24 + convolutions + 2 * (64 + 256 + 256) + 2560
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_a_group_starts_by_handing_its_input_on() -> None:
    group = ConvGroup(4, 6, 2, 0.4)
    image = torch.rand(2, 4, 8, 8)
    assert torch.equal(group.convs[0](image)[:, :4], image)
    wide = torch.rand(2, 6, 4, 4)
    assert torch.equal(group.convs[1](wide), wide)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_group_written_out(depth: int, activation: Activation) -> None:
    torch.manual_seed(0)
    group = ConvGroup(3, 5, depth, 0.4, activation)
    active: nn.Module = nn.GELU() if activation == "gelu" else nn.ReLU()
    for norm in group.norms:
        nn.init.normal_(cast(nn.BatchNorm2d, norm).bias)
    image = torch.rand(4, 3, 8, 8)

    def normed(value: Tensor, number: int) -> Tensor:
        mean = value.mean((0, 2, 3), keepdim=True)
        variance = value.var((0, 2, 3), keepdim=True, correction=0)
        bias = cast(nn.BatchNorm2d, group.norms[number]).bias
        return (value - mean) / (variance + 1e-12).sqrt() + bias.view(1, -1, 1, 1)

    def filters(number: int) -> Tensor:
        return cast(nn.Conv2d, group.convs[number]).weight

    first = active(normed(F.max_pool2d(F.conv2d(image, filters(0), padding=1), 2), 0))
    expected = first
    if depth == 2:
        expected = active(normed(F.conv2d(first, filters(1), padding=1), 1))
    if depth == 3:
        second = active(normed(F.conv2d(first, filters(1), padding=1), 1))
        expected = active(normed(F.conv2d(second, filters(2), padding=1), 2) + first)
    torch.testing.assert_close(group(image), expected, atol=1e-4, rtol=1e-4)


def test_logits_are_divided() -> None:
    one, nine = narrow(logit_divisor=1.0), narrow(logit_divisor=9.0)
    nine.load_state_dict(one.state_dict())
    image = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(nine.eval()(image) * 9, one.eval()(image))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 8}, "image_size is 8; SpeedrunCNN halves it 3 times and needs at least 9 pixels"),
        ({"widths": []}, "widths are []"),
        ({"widths": [8, 0]}, "widths are [8, 0]"),
        ({"depth": 0}, "depth is 0"),
        ({"bn_momentum": 0.0}, "bn_momentum is 0.0"),
        ({"bias_lr_factor": 0.0}, "bias_lr_factor is 0.0"),
        ({"logit_divisor": -1.0}, "logit_divisor is -1.0"),
        ({"lookahead": -1}, "lookahead is -1"),
        ({"whitening_bias_epochs": -1}, "whitening_bias_epochs is -1"),
        ({"activation": "rely"}, "activation is 'rely'; it is one of gelu, relu; did you mean relu"),
    ],
)
def test_wrong_options_are_told_in_a_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        narrow(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_smallest_picture_works() -> None:
    assert narrow(image_size=9)(torch.rand(2, 3, 9, 9)).shape == (2, 10)


# Whitening


def test_whitened_patches_are_uncorrelated_and_of_variance_one() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    image = torch.from_numpy(np.einsum("ij,njhw->nihw", mixing, rng.normal(size=(300, 3, 8, 8)))).float()
    filters = whitening_filters(image, 2, epsilon=1e-9)
    assert filters.shape == (12, 3, 2, 2)
    found = F.conv2d(image, filters).permute(1, 0, 2, 3).reshape(12, -1)
    torch.testing.assert_close(found @ found.T / found.shape[1], torch.eye(12), atol=2e-3, rtol=0)


def test_whitening_is_that_of_a_loop_over_all_patches() -> None:
    image = torch.rand(5, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moment = np.zeros((8, 8))
    count = 0
    for picture in image.numpy():
        for row in range(3):
            for column in range(3):
                patch = picture[:, row : row + 2, column : column + 2].reshape(-1)
                moment += np.outer(patch, patch)
                count += 1
    values, vectors = np.linalg.eigh(moment / count)
    expected = (vectors / np.sqrt(values + 5e-4)).T[::-1].reshape(8, 2, 2, 2)
    found = whitening_filters(image, 2).numpy()
    for ours, theirs in zip(found, expected, strict=True):  # an eigenvector's sign is arbitrary
        assert np.allclose(ours, theirs, atol=1e-8) or np.allclose(ours, -theirs, atol=1e-8)


class Watch(Callback):
    """Copies the first layer after every epoch, and the norms' rates."""

    def __init__(self) -> None:
        self.filters: list[Tensor] = []
        self.biases: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._copy(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._copy(pl_module)

    def _copy(self, model: LightningModule) -> None:
        first = cast(nn.Conv2d, model.get_submodule("backbone.0"))
        self.filters.append(first.weight.detach().clone())
        self.biases.append(cast(Tensor, first.bias).detach().clone())


def test_the_whitening_follows_from_the_training_pictures_and_only_its_bias_learns_for_a_while() -> None:
    seed_everything(0)
    watch, data, model = Watch(), digits(), narrow(lookahead=0, whitening_bias_epochs=2)
    trainer = quiet_trainer(max_epochs=4, callbacks=[watch])
    trainer.fit(model, data)
    image = data.pixels("train").take(np.arange(len(data.splits["train"]))).float() / 255
    expected = whitening_filters((image - model.mean) / model.std, PATCH)
    assert torch.equal(watch.filters[0], torch.cat([expected, -expected]))
    assert all(torch.equal(one, watch.filters[0]) for one in watch.filters)
    start, first, second, third, fourth = watch.biases
    assert not start.any()
    assert not torch.equal(start, first)
    assert not torch.equal(first, second)
    assert torch.equal(second, third)
    assert torch.equal(third, fourth)


def test_without_epochs_for_the_whitening_bias_the_gradients_end_before_it() -> None:
    watch, model = Watch(), narrow(lookahead=0, whitening_bias_epochs=0, activation="relu")
    reached: list[bool] = []
    group = model.backbone.get_submodule("2")
    group.register_forward_hook(lambda _, features, __: reached.append(features[0].requires_grad))
    quiet_trainer(max_epochs=1, callbacks=[watch]).fit(model, digits())
    assert reached
    assert not any(reached)
    assert not any(bias.any() for bias in watch.biases)
    assert not [module for module in model.modules() if isinstance(module, nn.GELU)]


# Optimizer, schedule, lookahead


def test_a_net_that_was_loaded_keeps_its_filters_on_other_pictures() -> None:
    first = quiet_trainer(max_epochs=1, limit_val_batches=0)
    first.fit(narrow(), digits())
    first.save_checkpoint("run.ckpt")
    model = SpeedrunCNN.load_from_checkpoint("run.ckpt", weights_only=True)
    before = {name: model.state_dict()[name].clone() for name in ("backbone.0.weight", "mean")}
    quiet_trainer(max_epochs=1, limit_val_batches=0).fit(model, digits(split_seed=7))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_synchronized_norms_learn_as_fast() -> None:
    model = narrow()
    plain = [len(group["params"]) for group in model.parameter_groups()]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    assert [len(group["params"]) for group in converted.parameter_groups()] == plain


def test_biases_of_norms_learn_fast_and_decay_by_the_same_amount_a_step() -> None:
    model = narrow(lr=1.5, weight_decay=0.00133)
    fast, slow = model.parameter_groups()
    assert fast["lr"] == pytest.approx(96)
    assert slow["lr"] == 1.5
    assert fast["lr"] * fast["weight_decay"] == pytest.approx(slow["lr"] * slow["weight_decay"])
    assert {tuple(one.shape) for one in fast["params"]} == {(8,), (16,)}
    assert len(fast["params"]) == 6
    assert len(fast["params"]) + len(slow["params"]) == sum(one.requires_grad for one in model.parameters())


@pytest.mark.parametrize(("warmup", "final", "end"), [(0.23, None, 0.07), (0.1, 0.0, 0.0)])
def test_the_triangle_is_that_of_interpolation(warmup: float, final: float | None, end: float) -> None:
    points = np.linspace(0, 1, 101)
    expected = np.interp(points, [0, warmup, 1], [0.2, 1.0, end])
    assert [LRSchedule("triangle", warmup, final).factor(point) for point in points] == pytest.approx(expected)


class StopAfter(Callback):
    """Stops in the middle of an epoch."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= 17


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")
def test_a_run_resumes_exactly_with_its_average(tmp_path: Path) -> None:
    def model() -> SpeedrunCNN:
        seed_everything(0)
        return narrow(whitening_bias_epochs=1)

    def data() -> DigitsDataModule:
        return digits(augment=Augment(flip="alternating", translate=1))

    whole = model()
    quiet_trainer(max_epochs=3).fit(whole, data())
    kept = ModelCheckpoint(tmp_path / "kept", save_last=True, every_n_train_steps=1)
    first = quiet_trainer(max_epochs=3, callbacks=[StopAfter(), kept], enable_checkpointing=True, min_epochs=0)
    first.fit(model(), data())
    assert first.global_step == 17
    again = model()
    quiet_trainer(max_epochs=3).fit(again, data(), ckpt_path=kept.last_model_path)
    one, other = whole.state_dict(), again.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


# Alternating flip, test-time augmentation


def test_alternating_flip_shows_each_side_every_second_epoch() -> None:
    data = digits(augment=Augment(flip="alternating"), num_workers=0)
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    seen: dict[int, dict[int, bool]] = {}
    for epoch in range(4):
        loader.epoch = lambda epoch=epoch: epoch  # type: ignore[misc]
        for batch in loader:
            for row, number in zip(batch.row.tolist(), batch.uniform[:, 0].tolist(), strict=True):
                seen.setdefault(row, {})[epoch] = number < 0.5
    complete = [list(sides.values()) for sides in seen.values() if len(sides) == 4]
    assert len(complete) > 1000
    assert all(sides == [sides[0], not sides[0], sides[0], not sides[0]] for sides in complete)
    assert 0.45 < np.mean([sides[0] for sides in complete]) < 0.55


def test_alternating_flip_mirrors_the_very_pictures() -> None:
    data = digits(augment=Augment(flip="alternating"), num_workers=0)
    data.prepare_data()
    data.setup("fit")
    augment, loader = data.augment, data.train_dataloader()
    assert augment is not None
    pictures = {}
    for epoch in range(2):
        for step in range(len(loader)):
            batch = loader.load(epoch, step)
            image = augment(batch.image.float(), batch.uniform)
            pictures.update({(epoch, row): one for row, one in zip(batch.row.tolist(), image, strict=True)})
    both = [row for epoch, row in pictures if epoch == 0 and (1, row) in pictures]
    assert len(both) > 1000
    assert all(torch.equal(pictures[0, row], pictures[1, row].flip(-1)) for row in both)


@pytest.mark.parametrize("views", ["one", "mirror", "shift"])
def test_views_written_out(views: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    image = torch.rand(5, 3, 8, 8)
    found = averaged(net, image, views)
    for row, picture in enumerate(image.numpy()):
        padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)), mode="reflect")
        seen = {0: picture, 1: padded[:, :8, :8], 2: padded[:, 2:, 2:]}
        logits = {
            (number, mirror): net(torch.from_numpy((view[:, :, ::-1] if mirror else view).copy())[None])[0]
            for number, view in seen.items()
            for mirror in (False, True)
        }
        expected = {
            "one": logits[0, False],
            "mirror": (logits[0, False] + logits[0, True]) / 2,
            "shift": (logits[0, False] + logits[0, True]) / 4
            + sum(logits[number, mirror] for number in (1, 2) for mirror in (False, True)) / 8,
        }[views]
        torch.testing.assert_close(found[row], expected)


# The whole


def test_a_narrow_net_learns_on_the_cpu_and_views_change_its_test_only() -> None:
    seed_everything(0)
    model, data = narrow(test_views="shift", channels_last=True), digits(augment=Augment(translate=1))
    trainer = quiet_trainer(max_epochs=10)
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/acc"] > 0.9
    (with_views,) = trainer.test(model, data, verbose=False)
    model.test_views = "one"
    (without,) = trainer.test(model, data, verbose=False)
    assert with_views["test/acc"] > 0.85
    assert with_views["test/loss"] != without["test/loss"]
    assert cast(Tensor, model.backbone.get_submodule("2.convs.0").weight).is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.filterwarnings("ignore:You defined a .validation_step. but have no .val_dataloader.")
def test_training_without_a_data_module_of_ours_says_that_nothing_is_whitened(caplog: pytest.LogCaptureFixture) -> None:
    data = digits(num_workers=0)
    data.prepare_data()
    data.setup("fit")
    model = narrow(mean=[0.3] * 3, std=[0.3] * 3)
    before = model.state_dict()["backbone.0.weight"].clone()
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    batch = data.train_dataloader().load(0, 0)
    whole = [replace(batch, image=batch.image.float() / 255)]
    trainer.fit(model, DataLoader(cast(Any, whole), batch_size=None))
    assert "its filters stay random" in caplog.text
    assert torch.equal(model.state_dict()["backbone.0.weight"], before)
