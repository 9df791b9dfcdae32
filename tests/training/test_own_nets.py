"""Nets and loaders that are not of this package: `ImageClassifier.of`, batches of ``(x, y)``, and ``net.predict``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pet_cifar
from pet_cifar.callbacks import BestCheckpoint
from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError
from pet_cifar.models import ResidualCNN
from pet_cifar.training import ImageClassifier
from tests.conftest import quiet_trainer


def layers(outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs))


def loader(x: Tensor | None = None, y: Tensor | None = None) -> DataLoader[Any]:
    x = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0)) if x is None else x
    return DataLoader(TensorDataset(x, torch.arange(len(x)) % 10 if y is None else y), batch_size=8)


@pytest.mark.parametrize("net", [ResidualCNN(widths=[4]), ImageClassifier.of(layers(), lr=0.01)], ids=["ours", "own"])
def test_ordinary_loaders_train_score_and_predict(net: ImageClassifier) -> None:
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(net, loader(), loader())
    (tested,) = trainer.test(net, loader(), verbose=False)
    assert 0 <= tested["test/acc"] <= 1
    found = trainer.predict(net, loader())
    assert found is not None
    assert [tuple(one.shape) for one in found] == [(8, 10)] * 3  # type: ignore[union-attr]
    only_pictures = DataLoader(TensorDataset(torch.rand(4, 3, 32, 32)), batch_size=4)
    assert len(trainer.predict(net, only_pictures) or []) == 1


def test_bytes_are_the_same_pictures_as_floats() -> None:
    net = ResidualCNN(widths=[4])
    pixels = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    trainer = quiet_trainer()
    found: list[Any] = [trainer.predict(net, loader(one)) for one in (pixels, pixels.float() / 255)]
    assert torch.equal(found[0][0], found[1][0])


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.rand(8, 1, 32, 32), None, "num_channels"),
        (torch.rand(8, 32, 32), None, "shape"),
        (torch.rand(8, 3, 32, 32), torch.full((8,), 10), "from 0 to 9"),
        (torch.rand(8, 3, 32, 32), torch.rand(8), "whole numbers"),
    ],
)
def test_other_batches_are_refused(x: Tensor, y: Tensor | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        quiet_trainer(max_epochs=1).fit(ResidualCNN(widths=[4]), loader(x, y), loader(x, y))


def test_a_net_in_the_place_of_a_number_is_told() -> None:
    with pytest.raises(InputError, match=r"ImageClassifier\.of"):
        ImageClassifier(layers())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_classes is 5, but the net gives 10"):
        ImageClassifier.of(layers(), num_classes=5)
    with pytest.raises(InputError, match="head"):
        ImageClassifier.of(nn.Conv2d(3, 8, 3))
    with pytest.raises(InputError, match="num_channels"):
        ImageClassifier.of(layers(), num_channels=1)


def test_a_net_with_other_outputs_than_the_data_has_classes_is_refused() -> None:
    with pytest.raises(InputError, match="num_classes is 7.* 10"):
        quiet_trainer(max_epochs=1).fit(ImageClassifier.of(layers(7)), DigitsDataModule("."))


def test_a_net_of_ones_own_is_loaded_and_may_train_on(tmp_path: Path) -> None:
    own = ImageClassifier.of(layers(), lr=0.01)
    best = BestCheckpoint()
    options: dict[str, Any] = {"max_epochs": 1, "enable_checkpointing": True, "default_root_dir": tmp_path}
    trainer = quiet_trainer(callbacks=[best], limit_train_batches=2, **options)
    trainer.fit(own, DigitsDataModule("."))
    for _ in range(2):  # A cell of a notebook is run more than once.
        net = pet_cifar.load(best.best_model_path, net=own)
        assert net.class_names == tuple(map(str, range(10)))
    assert all(parameter.requires_grad for parameter in own.parameters())
    quiet_trainer(max_epochs=1, limit_train_batches=1).fit(own, DigitsDataModule("."))
    with pytest.raises(InputError, match=r"net=ImageClassifier\.of"):
        pet_cifar.load(best.best_model_path)


def test_a_net_predicts_pictures_in_any_form_and_stays_in_its_mode(tmp_path: Path) -> None:
    net = ResidualCNN(widths=[4]).train()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms: list[Any] = [tmp_path / "a.png", pixels, Image.fromarray(pixels), tensor, tensor.float() / 255]
    found = net.predict(forms)
    assert isinstance(found, list)
    for one in found[1:]:
        np.testing.assert_allclose(one.probabilities, found[0].probabilities, atol=1e-6)
    single = net.predict(forms[0])
    assert not isinstance(single, list)
    assert single.label == found[0].label
    assert net.training
    with pytest.raises(InputError, match="0 to 255|\\[0, 1\\]"):
        net.predict(tensor.float())
