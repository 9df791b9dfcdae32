"""What each picture shows."""

import csv
import logging
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata
from torchmetrics.functional.classification import multiclass_calibration_error

from pet_cifar.callbacks import (
    Board,
    Calibration,
    ConfusionMatrix,
    CustomScalars,
    Embeddings,
    FeatureMaps,
    FirstLayerFilters,
    GradCAM,
    HyperParameters,
    RunCard,
    SamplePictures,
    ThroughputMonitor,
    WorstMistakes,
)
from pet_cifar.callbacks.images.base import escape
from pet_cifar.callbacks.images.calibration import bin_scores
from pet_cifar.callbacks.images.drawing import channels_last, fit
from pet_cifar.callbacks.images.embeddings import _features
from pet_cifar.callbacks.images.grad_cam import last_maps
from pet_cifar.callbacks.images.inspection import balanced_rows, untouched
from pet_cifar.callbacks.predictions import Scores
from pet_cifar.callbacks.run_card import wrapped
from pet_cifar.data import CatsDogsDataModule, DigitsDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.errors import InputError
from pet_cifar.models import CatsDogsCNN, PlainCNN, ResidualCNN, TimmClassifier
from pet_cifar.training import ImageClassifier
from tests.callbacks.event_files import Events
from tests.callbacks.images.test_drawing import holds
from tests.callbacks.images.test_promises import digits, run
from tests.conftest import quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.. is deprecated")


def small(**options: Any) -> ResidualCNN:
    return ResidualCNN(**{"image_size": 16, "widths": [8, 16], "lr": 0.01, **options})


def part(model: ImageClassifier, name: str) -> Any:
    return model.get_submodule(name)


class Record(Board):
    """Keeps the arrays that are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, list[np.ndarray]] = {}

    def image(self, tag: str, picture: np.ndarray) -> None:
        self.drawn.setdefault(tag, []).append(picture)
        super().image(tag, picture)


def test_feature_maps_show_the_layers_own_output() -> None:
    board, model, data = Record(), small(), digits()
    run(model, data, [board, FeatureMaps(layers=["backbone.0"], pictures=3, maps=4)])
    sheet = board.drawn["feature_maps/backbone.0"][-1]
    assert len(board.drawn) == 1
    with untouched(model):
        image = torch.from_numpy(data.pixels("val").take(np.arange(180)).numpy())
        outputs = part(model, "backbone.0")((image.float() / 255 - model.mean) / model.std)
    seen = 0
    for picture, maps in zip(image, outputs, strict=True):
        if holds(sheet, fit(channels_last(picture.numpy()), 64)):
            seen += 1
            deviation = maps[7].std(unbiased=False)
            expected = ((maps[7] - maps[7].mean()) / deviation * 64 + 128).clamp(0, 255).byte().numpy()
            block = fit(channels_last(expected[None]), 64).astype(int)
            windows = np.lib.stride_tricks.sliding_window_view(sheet, block.shape)
            assert min(np.abs(window - block).max() for window in windows[:, -80:, 0].reshape(-1, *block.shape)) <= 1
    assert seen == 3


def test_an_unknown_layer_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"ResidualCNN has no layer like stem\.\*; it has backbone.0, backbone.1"):
        run(small(), digits(), [FeatureMaps(layers=["stem.*"])])
    with pytest.raises(InputError, match="head.2 gives 10 numbers a picture and no maps"):
        run(small(), digits(), [FeatureMaps(layers=["head.2"])])
    with pytest.raises(InputError, match="GradCAM's layer: ResidualCNN has no layer stem; it has backbone"):
        run(small(), digits(), [GradCAM(layer="stem")])
    with pytest.raises(InputError, match="GradCAM's layer: head gives no maps"):
        run(small(), digits(), [GradCAM(layer="head")])


def test_at_most_eight_layers_by_default() -> None:
    _, directory = run(small(widths=[8, 8, 8], blocks=2), digits(), [FeatureMaps()])
    assert len(Events(directory).images) == 8


@pytest.mark.parametrize("scale", ["layer", "filter"])
def test_filters_stand_beside_those_of_the_start(scale: Any) -> None:
    board, model = Record(), small(num_channels=3, lr=0.1, optimizer="sgd")
    before = part(model, "backbone.0").weight.detach().numpy().copy()
    run(model, digits(), [board, FirstLayerFilters(scale=scale)], epochs=3)
    first, *_, last = board.drawn["first_layer_filters"]
    assert len(board.drawn["first_layer_filters"]) == 4

    def shown(filters: np.ndarray, number: int) -> np.ndarray:
        among = filters if scale == "layer" else filters[number]
        shade = np.round((filters[number] - among.min()) / (among.max() - among.min()) * 255).astype(np.uint8)
        return fit(channels_last(shade), 48)

    after = part(model, "backbone.0").weight.detach().numpy()
    for number in range(8):
        assert holds(first, shown(before, number))
        assert holds(last[:, : last.shape[1] // 2], shown(before, number))
        assert holds(last[:, last.shape[1] // 2 :], shown(after, number))
    assert np.abs(after - before).max() > 0.01


def test_a_run_that_goes_on_keeps_the_filters_of_its_start() -> None:
    model = small()
    start = part(model, "backbone.0").weight.detach().numpy().copy()
    trainer, _ = run(model, digits(), [FirstLayerFilters()], epochs=1)
    trainer.save_checkpoint("half.ckpt")
    again = FirstLayerFilters()
    resumed = quiet_trainer(max_epochs=2, limit_train_batches=3, callbacks=[again], logger=TensorBoardLogger("more"))
    resumed.fit(small(), digits(), ckpt_path="half.ckpt", weights_only=True)
    assert again._initial is not None
    np.testing.assert_array_equal(again._initial, start)


def test_constant_filters_are_gray() -> None:
    model = small(lr=1e-9)
    torch.nn.init.zeros_(part(model, "backbone.0").weight)
    board = Record()
    run(model, digits(), [board, FirstLayerFilters()], epochs=1)
    assert holds(board.drawn["first_layer_filters"][0], np.full((48, 48, 3), 128, np.uint8))


def test_samples_show_every_class_and_the_batch_as_the_net_gets_it() -> None:
    board, model = Record(), small()
    data = DigitsDataModule(image_size=16, batch_size=101, augment=Augment(translate=5, brightness=0.5))
    received: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: received.append(inputs[0].clone()))
    run(model, data, [board, SamplePictures(per_class=2, batch=4, side=32)], limit_val_batches=0)
    batch = (received[0][:4] * 255).round().byte().numpy()
    for picture in batch:
        assert holds(board.drawn["training_batch"][0], fit(channels_last(picture), 32))
    pixels, labels = data.pixels("train").take(np.arange(1437)).numpy(), data.labels("train")
    sheet = board.drawn["sample_pictures"][0]
    rows = balanced_rows(labels, 20, data.split_seed)
    assert np.bincount(labels[rows]).tolist() == [2] * 10
    assert all(holds(sheet, fit(channels_last(pixels[row]), 32)) for row in rows)
    assert len(board.drawn["sample_pictures"]) == len(board.drawn["training_batch"]) == 1


def test_the_confusion_matrix_counts_every_validation_picture(tmp_path: Path) -> None:
    seed_everything(0)
    model = small()
    trainer, directory = run(model, digits(), [ConfusionMatrix()], epochs=1)
    with (directory / "val" / "confusion_matrix.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header == ["label", *(f"predicted_{name}" for name in range(10))]
    counts = np.array([[int(x) for x in line[1:]] for line in lines])
    assert counts.sum() == 180
    assert counts.trace() / 180 == pytest.approx(trainer.callback_metrics["val/acc"].item())
    assert Events(directory).images == ["confusion_matrix/val"]


class Certain(ImageClassifier):
    """Says class 1 of every picture, the more certainly the brighter it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.backbone = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        self.head = torch.nn.Linear(3, self.num_outputs)
        torch.nn.init.ones_(self.head.weight)
        torch.nn.init.constant_(self.head.bias, 5.0)


def test_the_worst_mistakes_are_the_most_certain_wrong_ones(cats_dogs_root: Path) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8, val_fraction=0.3, grayscale=False)
    model = Certain(num_classes=2, image_size=40, lr=1e-9, mean=[0.5] * 3, std=[0.25] * 3)
    board = Record()
    _, directory = run(model, data, [board, WorstMistakes(most=3)], epochs=1)
    cats = [row for row, picture in enumerate(data.splits["val"]) if picture.label == data.class_names[0]]
    pixels = data.pixels("val").take(np.arange(len(data.splits["val"]))).numpy()
    brightest = sorted(cats, key=lambda row: -pixels[row].mean())[:3]
    text = Events(directory).text("worst_mistakes/val")
    places = [text.index(escape(data.splits["val"][row].path)) for row in brightest]
    assert places == sorted(places)
    assert text.count("| cat | dog |") == 3
    for row in brightest:
        assert holds(board.drawn["worst_mistakes/val"][-1], fit(channels_last(pixels[row]), 128))


def test_a_net_without_mistakes_is_told_so(cats_dogs_root: Path) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8, val_fraction=0.3, grayscale=False)
    board = Board()
    trainer, directory = run(Certain(num_classes=2, image_size=40, lr=1e-9), data, [board], epochs=1)
    row = torch.arange(4)
    board.scores = Scores(row, row % 2, torch.nn.functional.one_hot(row % 2, 2).float())
    WorstMistakes().draw(trainer.lightning_module, data, board, "val", "after 1 epochs")  # type: ignore[arg-type]
    board.writer.flush()
    assert "no mistake in 4 pictures" in Events(directory).text("worst_mistakes/val")


def test_the_calibration_error_is_the_one_that_torchmetrics_computes() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 10, (500,), generator=generator)
    probabilities = (3 * torch.randn(500, 10, generator=generator)).softmax(1)
    scores = Scores(torch.arange(500), label, probabilities)
    counts, confidence, accuracy = bin_scores(scores, np.linspace(0, 1, 16))
    error = (counts * np.abs(confidence - accuracy)).sum() / counts.sum()
    assert counts.sum() == 500
    assert error == pytest.approx(multiclass_calibration_error(probabilities, label, 10, n_bins=15).item(), abs=1e-6)


def test_calibration_draws_and_writes_curves_of_every_class() -> None:
    _, directory = run(small(), digits(), [Calibration()])
    events = Events(directory)
    assert events.images == ["calibration/val"]
    assert len(events.values("val/calibration_error")) == 2
    assert {f"pr/val_{name}" for name in range(10)} <= set(events.tensors)


def test_grad_cam_finds_the_place_that_decides() -> None:
    model = PlainCNN(image_size=16, num_classes=2)
    with torch.no_grad():  # the logit is the brightness of the upper left quarter
        for parameter in model.parameters():
            parameter.zero_()
        for layer in (0, 2, 4, 6):
            weight = part(model, f"backbone.{layer}").weight
            weight[0, 0, weight.shape[2] // 2, weight.shape[3] // 2] = 1
        part(model, "backbone.8").weight.fill_(1)
        part(model, "head.2").weight.view(128, 16, 16)[0, :8, :8] = 1
    model.mean.zero_(), model.std.fill_(1)
    image = torch.zeros(1, 3, 16, 16)
    image[0, :, 2:6, 2:6] = 1
    with untouched(model):
        weight, said, _ = GradCAM(side=16)._explain(model, model.backbone, image)
    assert said == 1
    assert weight.shape == (16, 16)
    assert weight[2:6, 2:6].min() > 0.9
    assert weight[:, 8:].max() < 0.1
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext"])
def test_grad_cam_takes_the_last_maps_of_a_net_that_pools_within(name: str) -> None:
    model = TimmClassifier(name=name, num_classes=10, image_size=64)
    with untouched(model):
        last = last_maps(model, torch.rand(1, 3, 64, 64))
    assert last is not None
    assert last.startswith("backbone.")
    _, directory = run(model, digits(64), [GradCAM(pictures=1), FeatureMaps(pictures=1), FirstLayerFilters()])
    assert {"grad_cam", "first_layer_filters"} <= set(Events(directory).images)
    assert any(tag.startswith("feature_maps/backbone.") for tag in Events(directory).images)


def test_embeddings_are_what_goes_into_the_last_layer() -> None:
    model = CatsDogsCNN(num_classes=10, num_channels=3, image_size=16)
    image = torch.rand(3, 3, 16, 16)
    with untouched(model):
        features, probabilities = _features(model, image)
        expected = part(model, "head")[:-1](model.backbone((image - model.mean) / model.std))
        torch.testing.assert_close(features, expected)
        torch.testing.assert_close(probabilities, model.probabilities(model(image)))
        plain = PlainCNN(image_size=16).eval()
        features, _ = _features(plain, image)
        pooled = plain.backbone((image - plain.mean) / plain.std).mean((2, 3))
        torch.testing.assert_close(features, pooled)
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def test_embeddings_bring_labels_files_and_thumbnails() -> None:
    data = digits()
    _, directory = run(small(widths=[8, 80]), data, [Embeddings(pictures=70)])
    (folder,) = directory.glob("*/embeddings")
    vectors = np.loadtxt(folder / "tensors.tsv")
    assert vectors.shape == (70, 64)
    header, *lines = (folder / "metadata.tsv").read_text().splitlines()
    assert header.split("\t") == ["label", "prediction", "file"]
    assert len(lines) == 70
    assert {line.split("\t")[2] for line in lines} <= {picture.path for picture in data.splits["val"]}
    assert (folder / "sprite.png").stat().st_size > 1000
    with pytest.raises(InputError, match="Flat has none"):
        run(Flat(), digits(8), [Embeddings()])


class Flat(ImageClassifier):
    """Without a dense layer."""

    def __init__(self) -> None:
        super().__init__(image_size=8)
        self.backbone = torch.nn.AdaptiveAvgPool2d(1)
        self.head = torch.nn.Sequential(torch.nn.Conv2d(3, 10, 1), torch.nn.Flatten())


def test_a_long_command_is_wrapped_so_that_a_shell_takes_it() -> None:
    command = "pet-cifar fit --config 'a file --with spaces.yaml' " + " ".join(
        f"--model.option_{number} value" for number in range(9)
    )
    lines = wrapped(command).splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) < 120
    assert shlex.split("".join(line.removesuffix("\\") for line in lines)) == shlex.split(command)
    assert wrapped("pet-cifar fit") == "pet-cifar fit"


def test_the_run_card_says_what_the_run_was() -> None:
    seed_everything(7)
    model = small(lr=0.0123)
    _, directory = run(model, digits(), [RunCard(command="pet-cifar fit --seed_everything 7")])
    events = Events(directory)
    assert "    pet-cifar fit --seed_everything 7" in events.text("run/command")
    assert "lr: 0.0123" in events.text("run/config")
    card = events.text("run/data")
    assert "| all | 1437 | 180 | 180 |" in card
    assert "no file was left out" in card
    assert "backbone.0" in events.text("run/net")
    environment = events.text("run/environment")
    assert f"| torch | {torch.__version__} |" in environment
    assert "| seed | 7 |" in environment
    here = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(here, capture_output=True, text=True, check=False).stdout.strip()
    assert (f"git {commit[:12]}" if commit else "not from a git checkout") in environment


def test_the_run_card_names_bad_files(cats_dogs_root: Path) -> None:
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8)
    _, directory = run(CatsDogsCNN(image_size=40), data, [RunCard()])
    assert "Cat/20.jpg" in Events(directory).text("run/data")


def test_names_are_shown_as_they_are() -> None:
    assert escape("__a__|*b*.jpg") == r"\_\_a\_\_\|\*b\*.jpg"
    assert escape("Cat/20.jpg") == "Cat/20.jpg"


def test_a_pretrained_net_is_not_shown_as_an_untrained_one(tmp_path: Path) -> None:
    model = small()
    model.hparams["widths"] = "forgotten"
    model.configure_optimizers = lambda: torch.optim.Adagrad(model.parameters(), lr=0.5)  # type: ignore[method-assign]
    _, directory = run(model, digits(), [HyperParameters(), RunCard()], epochs=1)
    values = hparams(directory)[2]
    assert "widths [8, 16]" in values["options"]
    assert (values["optimizer"], values["lr"]) == ("Adagrad", 0.5)
    assert "forgotten" not in Events(directory).text("run/config")


def test_curves_put_training_and_validation_into_one_chart() -> None:
    _, directory = run(small(), digits(), [ThroughputMonitor(), CustomScalars()])
    events = Events(directory)
    layout = Layout.FromString(events.tensor("custom_scalars__config__"))
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["accuracy"] == ["^train/acc$", "^val/acc$"]
    # every chart has something to show
    for patterns in charts.values():
        assert any(re.search(pattern, tag) for pattern in patterns for tag in events.scalars), patterns


def hparams(directory: Path) -> tuple[list[str], list[str], dict[str, Any]]:
    events = Events(directory)
    experiment = metadata.parse_experiment_plugin_data(events.message(metadata.EXPERIMENT_TAG))
    session = metadata.parse_session_start_info_plugin_data(events.message(metadata.SESSION_START_INFO_TAG))
    values = {key: value.string_value or value.number_value for key, value in session.hparams.items()}
    return [info.name for info in experiment.hparam_infos], [i.name.tag for i in experiment.metric_infos], values


def test_hyper_parameters_of_several_runs_share_their_columns(cats_dogs_root: Path) -> None:
    seed_everything(5)
    _, first = run(small(lr=0.02), digits(), [HyperParameters()], epochs=3)
    data = CatsDogsDataModule(cats_dogs_root, image_size=40, batch_size=8)
    _, second = run(CatsDogsCNN(image_size=40, dropout=0.25), data, [HyperParameters()])
    assert hparams(first)[:2] == hparams(second)[:2]
    columns, metrics, values = hparams(first)
    assert metrics == ["hparams/best_val_acc", "test/acc", "hparams/parameters", "hparams/train_seconds"]
    assert values.keys() <= set(columns)
    assert values["lr"] == 0.02
    assert values["net"] == "ResidualCNN"
    assert values["augment"] == "flip True, translate 2"
    assert values["seed"] == 5
    assert "widths [8, 16]" in values["options"]
    assert "dropout 0.25" in hparams(second)[2]["options"]
    events = Events(first)
    assert events.values("hparams/best_val_acc") == list(np.maximum.accumulate(events.values("val/acc")))
    assert events.values("hparams/parameters") == [sum(parameter.numel() for parameter in small().parameters())]
    assert 0 < events.values("hparams/train_seconds")[-1] < 60
    assert "hp_metric" not in events.scalars


def test_a_run_that_goes_on_keeps_its_best_and_its_seconds() -> None:
    first = HyperParameters()
    trainer, _ = run(small(), digits(), [first], epochs=1)
    first._best, first._seconds = 0.99, 1000.0
    trainer.save_checkpoint("half.ckpt")
    logger = TensorBoardLogger("more")
    resumed = quiet_trainer(max_epochs=2, limit_train_batches=3, callbacks=[HyperParameters()], logger=logger)
    resumed.fit(small(), digits(), ckpt_path="half.ckpt", weights_only=True)
    events = Events(Path(logger.log_dir))
    assert events.values("hparams/best_val_acc") == [pytest.approx(0.99)]
    assert events.values("hparams/train_seconds")[-1] > 1000


def test_what_was_spent_is_said_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pet_cifar"):
        run(small(), digits(), [FirstLayerFilters()], epochs=1)
    assert "of at most 50 MB" in caplog.records[-1].message
