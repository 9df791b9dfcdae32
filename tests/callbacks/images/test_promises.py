"""What all image callbacks promise: they change nothing, and they work for every net."""

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import nn

from pet_cifar import callbacks
from pet_cifar.callbacks import Board, FeatureMaps, FirstLayerFilters
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback
from pet_cifar.callbacks.images.inspection import untouched
from pet_cifar.data import CatsDogsDataModule, CIFAR10DataModule, ImageDataModule
from pet_cifar.models import CatsDogsCNN, InceptionCNN, PlainCNN, ResidualCNN, TimmClassifier, VGG16Classifier
from pet_cifar.training import ImageClassifier
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import digits, every_callback, every_group, groups, run

pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")

NETS: dict[str, Callable[[], ImageClassifier]] = {
    "plain": lambda: PlainCNN(image_size=16, dropout=0.5, optimizer="adamw"),
    "residual": lambda: ResidualCNN(image_size=16, widths=[8, 16], optimizer="sgd", lr=0.05),
    "dense": lambda: CatsDogsCNN(num_classes=10, num_channels=3, image_size=16, dropout=0.3, optimizer="rmsprop"),
    "staged, on kept features": lambda: TimmClassifier(
        name="test_efficientnet",
        num_classes=10,
        image_size=16,
        freeze_until="all",
        unfreeze={1: "blocks.1"},
        cache_features=True,
        feature_views=2,
    ),
}


@pytest.mark.parametrize("net", NETS)
def test_a_run_with_all_pictures_ends_as_one_with_none(net: str) -> None:
    ends = []
    for pictures in ([], every_callback()):
        seed_everything(3)
        model = NETS[net]()
        trainer, directory = run(model, digits(), pictures)
        ends.append((model.state_dict(), trainer.optimizers[0].state_dict(), trainer.callback_metrics))
    assert len(Events(directory).images) >= 8
    (weights, optimizer, metrics), (seen_weights, seen_optimizer, seen_metrics) = ends
    torch.testing.assert_close(seen_weights, weights, rtol=0, atol=0)
    torch.testing.assert_close(seen_optimizer, optimizer, rtol=0, atol=0)
    assert seen_metrics.keys() == metrics.keys()
    torch.testing.assert_close(dict(seen_metrics), dict(metrics), rtol=0, atol=0)


# What an image callback does to the net and the random states leaves no trace.


class Fails(ImageCallback):
    """Changes whatever it can and then fails."""

    by_default = False
    draws_at_start = False

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        assert not module.training
        assert not torch.is_grad_enabled()
        torch.rand(3), np.random.rand(), random.random()
        for layer in module.modules():
            layer.register_forward_hook(lambda *_: None)
            layer.register_forward_pre_hook(lambda *_: None)
        with torch.enable_grad():
            module(torch.rand(2, 3, 32, 32)).sum().backward()
        raise RuntimeError("in the middle of it")


class Before(Callback):
    """Remembers everything as it was just before `Fails`."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.state = state_of(pl_module)


def state_of(module: LightningModule) -> dict[str, Any]:
    return {
        "modes": [layer.training for layer in module.modules()],
        "hooks": [(len(layer._forward_hooks), len(layer._forward_pre_hooks)) for layer in module.modules()],
        "gradients": [None if one.grad is None else one.grad.clone() for one in module.parameters()],
        "torch": torch.get_rng_state(),
        "numpy": list(np.random.get_state()[1]),  # type: ignore[index]
        "python": list(random.getstate()[1]),
        "grad": torch.is_grad_enabled(),
    }


def test_an_exception_in_a_picture_leaves_no_trace() -> None:
    seed_everything(0)
    before = Before()
    model = VGG16Classifier(num_classes=10, image_size=32, freeze_until="all")
    model.get_submodule("head.2").eval()  # This layer keeps a mode of its own.
    fails = Fails()
    with pytest.raises(RuntimeError, match="in the middle"):
        run(model, digits(32), [before, fails], limit_train_batches=1)
    torch.testing.assert_close(state_of(model), before.state, rtol=0, atol=0)
    assert before.state["modes"].count(False) > 10


def test_gradients_survive_a_backward_inside() -> None:
    model = ResidualCNN(image_size=8, widths=[8])
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    def fail() -> None:
        with untouched(model):
            with torch.enable_grad():
                model(torch.rand(2, 3, 8, 8)).sum().backward()
            model.head.register_full_backward_hook(lambda *_: None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not model.head._backward_hooks


# Image callbacks work for every kind of net, data and precision.


class Dense(ImageClassifier):
    """No convolution."""

    def __init__(self) -> None:
        super().__init__(image_size=8)
        self.backbone = nn.Flatten()
        self.head = nn.Linear(3 * 64, 10)


def test_a_net_without_a_convolution_gets_a_line(caplog: pytest.LogCaptureFixture) -> None:
    pictures: list[Callback] = [FeatureMaps(), FirstLayerFilters(), callbacks.GradCAM()]
    with caplog.at_level(logging.INFO, "pet_cifar"):
        _, directory = run(Dense(), digits(8), pictures)
    assert "no feature maps are drawn: Dense has no convolution" in caplog.text
    assert "no first-layer filters are drawn: Dense has no convolution" in caplog.text
    assert "no Grad-CAM is drawn: no layer of Dense gives maps" in caplog.text
    assert Events(directory).images == []


@pytest.mark.parametrize("grayscale", [True, False])
def test_one_logit_gray_and_color(cats_dogs_root: Path, grayscale: bool) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8, grayscale=grayscale)
    model = CatsDogsCNN(num_channels=1 if grayscale else 3, image_size=40)
    _, directory = run(model, data, every_callback(), max_epochs=1)
    assert groups(directory) >= every_group() - {"mistakes"}
    assert {"pr/val_cat", "pr/val_dog"} <= set(Events(directory).tensors)


def test_pictures_larger_than_a_cell_and_a_frozen_base(cats_dogs_root: Path) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=160, batch_size=1, grayscale=False)
    model = VGG16Classifier(image_size=160, freeze_until="all")
    pictures: list[Callback] = [
        FeatureMaps(pictures=1, every_n_epochs=0),
        callbacks.GradCAM(pictures=1, every_n_epochs=0),
    ]
    options: dict[str, Any] = {"limit_train_batches": 1, "limit_val_batches": 0, "max_epochs": 1}
    _, directory = run(model, data, pictures, **options)
    assert {f"feature_maps/backbone.{layer}" for layer in (0, 28)} <= set(Events(directory).images)
    assert "grad_cam" in Events(directory).images
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bfloat16(precision: str) -> None:
    model = InceptionCNN(image_size=16, widths=[8], blocks=1)
    _, directory = run(model, digits(), every_callback(), precision=precision)
    assert groups(directory) == every_group()


# The compiler of torch 2.11 looks at gradients by itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("how", ["in place", "wrapped"])
def test_a_compiled_net_is_looked_into_and_stays_compiled(how: str) -> None:
    calls: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(model.training)
            return graph.forward(*arguments)

        return call

    model = ResidualCNN(image_size=16, widths=[8, 16])
    if how == "in place":
        model.backbone.compile(backend=backend)
    else:
        model.backbone = torch.compile(model.backbone, backend=backend)  # type: ignore[assignment]
    _, directory = run(model, digits(), [*every_callback(), callbacks.Embeddings(pictures=20)])
    # There is one call for each training step; torch 2.11 makes two graphs of the net.
    assert calls.count(True) in (6, 12)
    assert groups(directory) == every_group()
    assert list(directory.glob("*/embeddings/tensors.tsv"))
    assert Events(directory).picture("feature_maps/backbone.0").std() > 10


def test_ten_classes_from_a_folder(cifar10_root: Path) -> None:
    data = CIFAR10DataModule(cifar10_root, batch_size=16)
    _, directory = run(ResidualCNN(widths=[8, 8, 8]), data, every_callback())
    assert groups(directory) == every_group()
