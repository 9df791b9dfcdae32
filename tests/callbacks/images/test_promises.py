"""What all pictures promise: they look and never touch, they fit their budget, and they work for every net."""

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from pet_cifar import callbacks
from pet_cifar.callbacks import Board, FeatureMaps, FirstLayerFilters
from pet_cifar.callbacks.images.base import Drawn, ImageCallback
from pet_cifar.callbacks.images.inspection import untouched
from pet_cifar.data import CatsDogsDataModule, CIFAR10DataModule, DigitsDataModule, ImageDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.errors import InputError
from pet_cifar.models import CatsDogsCNN, InceptionCNN, PlainCNN, ResidualCNN, TimmClassifier, VGG16Classifier
from pet_cifar.training import ImageClassifier
from tests.callbacks.event_files import Events, size
from tests.conftest import quiet_trainer

pytestmark = [
    # Lightning 2.6 with torch 2.11 and newer
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

PICTURES = [kind for kind in ImageCallback.__subclasses__() if kind.__module__.startswith("pet_cifar.")]


def every_picture(every_n_epochs: int = 1) -> list[Callback]:
    made: list[Callback] = [*(kind() for kind in PICTURES), callbacks.CustomScalars(), callbacks.HyperParameters()]
    for callback in made:
        if isinstance(callback, ImageCallback) and callback.every_n_epochs:
            callback.every_n_epochs = every_n_epochs
    return made


def digits(size: int = 16, **options: Any) -> DigitsDataModule:
    return DigitsDataModule(image_size=size, batch_size=101, augment=Augment(flip=True, translate=2), **options)


def run(
    model: ImageClassifier, data: ImageDataModule, pictures: Sequence[Callback], *, epochs: int = 2, **options: Any
) -> tuple[Trainer, Path]:
    logger = TensorBoardLogger("logs", "run")
    options = {"limit_train_batches": 3, "logger": logger, "max_epochs": epochs, "callbacks": list(pictures), **options}
    trainer = quiet_trainer(**options)
    trainer.fit(model, data)
    return trainer, Path(logger.log_dir)


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
    for pictures in ([], every_picture()):
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


class Fails(ImageCallback):
    """Changes whatever it can and then fails."""

    by_default = False
    draws_at_start = False

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: Drawn, when: str) -> None:
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
        self.state = everything(pl_module)


def everything(module: LightningModule) -> dict[str, Any]:
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
    model.get_submodule("head.2").eval()  # a mode of its own
    fails = Fails()
    with pytest.raises(RuntimeError, match="in the middle"):
        run(model, digits(32), [before, fails], limit_train_batches=1)
    torch.testing.assert_close(everything(model), before.state, rtol=0, atol=0)
    assert before.state["modes"].count(False) > 10


# Every kind of net and picture


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


def drawn(directory: Path) -> set[str]:
    return {tag.partition("/")[0] for tag in Events(directory).images}


EVERYTHING = {
    "grad_cam", "feature_maps", "first_layer_filters", "sample_pictures", "training_batch", "confusion_matrix",
    "calibration", "worst_mistakes",
}  # fmt: skip


@pytest.mark.parametrize("grayscale", [True, False])
def test_one_logit_gray_and_color(cats_dogs_root: Path, grayscale: bool) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8, grayscale=grayscale)
    model = CatsDogsCNN(num_channels=1 if grayscale else 3, image_size=40)
    _, directory = run(model, data, every_picture(), max_epochs=1)
    assert drawn(directory) >= EVERYTHING - {"worst_mistakes"}
    assert {"pr/val_cat", "pr/val_dog"} <= set(Events(directory).tensors)


def test_large_pictures_and_a_frozen_base(cats_dogs_root: Path) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=500, batch_size=1, grayscale=False)
    model = VGG16Classifier(image_size=500, freeze_until="all")
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
    _, directory = run(model, digits(), every_picture(), precision=precision)
    assert drawn(directory) == EVERYTHING


# torch 2.11's compiler looks at gradients of its own
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
    _, directory = run(model, digits(), [*every_picture(), callbacks.Embeddings(pictures=20)])
    # every training step; torch 2.11 makes two graphs of the net
    assert calls.count(True) in (6, 12)
    assert drawn(directory) == EVERYTHING
    assert list(directory.glob("*/embeddings/tensors.tsv"))
    assert Events(directory).picture("feature_maps/backbone.0").std() > 10


def test_ten_classes_from_a_folder(cifar10_root: Path) -> None:
    data = CIFAR10DataModule(cifar10_root, batch_size=16)
    _, directory = run(ResidualCNN(widths=[8, 8, 8]), data, every_picture())
    assert drawn(directory) == EVERYTHING


# Loggers


@pytest.mark.parametrize("logger", [False, "csv"])
def test_without_tensorboard_one_line_and_training_goes_on(
    logger: bool | str, caplog: pytest.LogCaptureFixture
) -> None:
    # Python users have not asked for more than warnings
    trainer = quiet_trainer(
        logger=CSVLogger("logs") if logger else False,
        max_epochs=1,
        limit_train_batches=2,
        callbacks=every_picture(),
    )
    trainer.fit(ResidualCNN(image_size=8, widths=[8]), digits(8))
    assert trainer.global_step == 2
    assert [record.message for record in caplog.records if "pictures" in record.message] == [
        "no pictures are drawn: they need a TensorBoardLogger, and this run has none"
    ]


def test_nothing_is_drawn_in_a_rehearsal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pet_cifar"):
        trainer = quiet_trainer(fast_dev_run=True, callbacks=every_picture())
        trainer.fit(ResidualCNN(image_size=8, widths=[8]), digits(8))
    assert "pictures are drawn" not in caplog.text


def test_pictures_refuse_what_they_cannot_show() -> None:
    loader = digits(8)
    loader.setup("fit")
    trainer = quiet_trainer(max_epochs=1, callbacks=[FeatureMaps()])
    with pytest.raises(InputError, match="FeatureMaps shows what an ImageClassifier makes of .* with loaders"):
        trainer.fit(ResidualCNN(image_size=8, widths=[8]), loader.train_dataloader())


# Cadence and budget


def test_pictures_come_at_the_start_every_few_epochs_and_at_the_end() -> None:
    _, directory = run(ResidualCNN(image_size=8, widths=[8]), digits(8), every_picture(every_n_epochs=2), epochs=5)
    events = Events(directory)
    assert events.steps("feature_maps/backbone.0") == [0, 6, 12, 15]
    assert events.steps("first_layer_filters") == [0, 6, 12, 15]
    assert events.steps("confusion_matrix/val") == events.steps("calibration/val") == [6, 12, 15]
    assert events.steps("sample_pictures") == [0]
    assert events.steps("training_batch") == [0]


def test_near_the_limit_pictures_come_more_rarely_and_scalars_stay(caplog: pytest.LogCaptureFixture) -> None:
    megabytes = 1.5
    with caplog.at_level(logging.INFO, "pet_cifar"):
        pictures = [Board(megabytes), *every_picture()]
        _, directory = run(ResidualCNN(image_size=8, widths=[8]), digits(8), pictures, epochs=16)
    events = Events(directory)
    drawn = events.steps("confusion_matrix/val")
    gaps = np.diff(drawn)
    assert gaps.max() >= 12, "every fourth epoch or more rarely"
    assert len(events.values("val/acc")) == len(events.values("hparams/best_val_acc")) == 16
    scalars = sum(len(events.values(tag)) for tag in events.scalars)
    assert size(directory) <= megabytes * 1e6 + 100 * scalars
    said = [record.message for record in caplog.records if "MB" in record.message]
    assert sum("more rarely" in line for line in said) == 1
    assert sum("was left out" in line for line in said) <= 1
    assert f"of at most {megabytes} MB" in said[-1]


def test_a_budget_of_nothing_draws_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pet_cifar"):
        _, directory = run(ResidualCNN(image_size=8, widths=[8]), digits(8), [Board(0), *every_picture()])
    events = Events(directory)
    assert events.images == []
    _, full = run(ResidualCNN(image_size=8, widths=[8]), digits(8), every_picture())
    assert {tag: len(events.values(tag)) for tag in events.scalars} == {
        tag: len(Events(full).values(tag)) for tag in Events(full).scalars
    }
    assert "custom_scalars__config__" in events.tensors
    assert "MB" not in caplog.text.partition("of at most 50 MB")[0]


def test_a_test_goes_on_spending_the_runs_budget() -> None:
    model, data = ResidualCNN(image_size=8, widths=[8]), digits(8)
    _, directory = run(model, data, [Board(), *every_picture()])
    board = Board()
    logger = TensorBoardLogger("logs", "run", version=0)
    trainer = quiet_trainer(logger=logger, callbacks=[board, callbacks.ConfusionMatrix()])
    held = size(directory) / 1e6
    trainer.test(model, data, verbose=False)
    assert board.megabytes > held > 0.1
    assert "confusion_matrix/test" in Events(directory).images


def test_a_test_keeps_to_its_runs_budget_unless_told_otherwise() -> None:
    model, data = ResidualCNN(image_size=8, widths=[8]), digits(8)
    trainer, _ = run(model, data, [Board(0.123), callbacks.ConfusionMatrix()], epochs=1)
    trainer.save_checkpoint("run.ckpt")
    for given, kept in ((None, 0.123), (7.0, 7.0)):
        board = Board(given)
        logger = TensorBoardLogger("logs", f"test{given}")
        tester = quiet_trainer(logger=logger, callbacks=[board, callbacks.ConfusionMatrix()])
        tester.test(model, data, ckpt_path="run.ckpt", weights_only=True, verbose=False)
        assert board.max_megabytes == kept
        # and it stands at the step that the checkpoint was saved at
        assert Events(Path(logger.log_dir)).steps("confusion_matrix/test") == [3]


def test_twenty_epochs_of_the_largest_drawings_stay_under_twenty_megabytes(cats_dogs_root: Path) -> None:
    # noise does not compress, and 13 convolutions are the most that a config has
    data = CatsDogsDataModule(cats_dogs_root, image_size=64, batch_size=8, grayscale=False)
    pictures = [kind() for kind in PICTURES if kind.by_default]
    options: dict[str, Any] = {"limit_train_batches": 1, "limit_val_batches": 1, "max_epochs": 20}
    _, directory = run(VGG16Classifier(image_size=64, freeze_until="all"), data, pictures, **options)
    assert len(Events(directory).images) >= 12
    assert size(directory) < 20e6


# Scores


def scores_are_drawn_at(every: int = 1, **options: Any) -> list[int]:
    pictures = [callbacks.ConfusionMatrix(every_n_epochs=every), callbacks.Calibration(every_n_epochs=every)]
    _, directory = run(ResidualCNN(image_size=8, widths=[8]), digits(8), pictures, **options)
    events = Events(directory)
    assert events.steps("confusion_matrix/val") == events.steps("calibration/val")
    return events.steps("confusion_matrix/val")


def test_scores_are_drawn_once_and_at_the_step_that_they_belong_to() -> None:
    assert scores_are_drawn_at(epochs=5, check_val_every_n_epoch=2) == [6, 12]
    assert scores_are_drawn_at(epochs=2, limit_train_batches=4, val_check_interval=2) == [2, 4, 6, 8]
    assert scores_are_drawn_at(every=3, epochs=4) == [9, 12]
    assert scores_are_drawn_at(epochs=9, max_steps=4) == [3]


def test_validate_and_then_test_with_one_trainer() -> None:
    model, data = ResidualCNN(image_size=8, widths=[8]), digits(8)
    trainer, directory = run(model, data, [callbacks.ConfusionMatrix(), callbacks.WorstMistakes()], epochs=1)
    trainer.validate(model, data, verbose=False)
    trainer.test(model, data, verbose=False)
    assert Events(directory).steps("confusion_matrix/val") == [3, 3]
    assert Events(directory).steps("confusion_matrix/test") == [3]


class Diverged(ImageClassifier):
    """Says something about every second picture only."""

    def __init__(self) -> None:
        super().__init__(image_size=8)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
        self.head = nn.Linear(4 * 64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = super().forward(image).clone()
        logits[::2] = float("nan")
        return logits


def test_what_is_not_a_number_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    pictures = [one for one in every_picture() if not isinstance(one, callbacks.GradCAM)]
    _, directory = run(Diverged(), digits(8), pictures, epochs=1)
    assert {"confusion_matrix", "calibration", "worst_mistakes"} <= drawn(directory)
    assert "90 of 180 pictures have probabilities that are not numbers" in caplog.text or "91 of 180" in caplog.text


def test_on_kept_features_pictures_are_drawn_more_rarely() -> None:
    model = TimmClassifier(
        name="test_efficientnet", num_classes=10, image_size=32, freeze_until="all", cache_features=True
    )
    data = DigitsDataModule(root=".", image_size=32, num_workers=0)
    options: dict[str, Any] = {"limit_train_batches": 2, "limit_val_batches": 1, "epochs": 12}
    _, directory = run(model, data, [callbacks.ConfusionMatrix(), FirstLayerFilters()], **options)
    assert Events(directory).steps("confusion_matrix/val") == [20, 24]
    assert Events(directory).steps("first_layer_filters") == [0, 20, 24]


def test_nothing_else_needs_scores(cats_dogs_root: Path) -> None:
    board = Board()
    run(ResidualCNN(image_size=8, widths=[8]), digits(8), [board, FirstLayerFilters()], epochs=1)
    assert not board._collects


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


class Auxiliary(ImageClassifier):
    """Has a convolution that does not run."""

    def __init__(self) -> None:
        super().__init__(image_size=8)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
        self.head = nn.Linear(4 * 64, 10)
        self.auxiliary = nn.Conv2d(4, 4, 1)


def test_a_convolution_that_does_not_run_is_told(caplog: pytest.LogCaptureFixture) -> None:
    _, directory = run(Auxiliary(), digits(8), [FeatureMaps()], epochs=1)
    assert Events(directory).images == ["feature_maps/backbone.0"]
    assert "no feature maps of auxiliary are drawn" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Board(-1), "Board's max_megabytes is -1"),
        (lambda: FeatureMaps(every_n_epochs=-1), "FeatureMaps' every_n_epochs is -1"),
        (lambda: FeatureMaps(pictures=0), "FeatureMaps' pictures is 0"),
        (lambda: FirstLayerFilters(most=0), "FirstLayerFilters' most is 0"),
        (lambda: callbacks.SamplePictures(per_class=0), "SamplePictures' per_class is 0"),
        (lambda: callbacks.WorstMistakes(most=0), "WorstMistakes' most is 0"),
        (lambda: callbacks.Calibration(bins=0), "Calibration's bins is 0"),
        (lambda: callbacks.GradCAM(pictures=0), "GradCAM's pictures is 0"),
        (lambda: callbacks.Embeddings(pictures=3000), "Embeddings' pictures is 3000"),
        (lambda: callbacks.Embeddings(side=0), "Embeddings' side is 0"),
    ],
)
def test_wrong_options_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
