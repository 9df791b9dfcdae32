import numpy as np
import pytest
import torch

from pet_cifar.callbacks import Embeddings
from pet_cifar.callbacks.images.embeddings import _last_layer_input
from pet_cifar.callbacks.images.inspection import untouched
from pet_cifar.errors import InputError
from pet_cifar.models import CatsDogsCNN, PlainCNN
from pet_cifar.training import ImageClassifier
from tests.callbacks.small_runs import digits, layer, run, small


def test_embeddings_are_what_goes_into_the_last_layer() -> None:
    model = CatsDogsCNN(num_classes=10, num_channels=3, image_size=16)
    image = torch.rand(3, 3, 16, 16)
    with untouched(model):
        features, probabilities = _last_layer_input(model, image)
        expected = layer(model, "head")[:-1](model.backbone((image - model.mean) / model.std))
        torch.testing.assert_close(features, expected)
        torch.testing.assert_close(probabilities, model.probabilities(model(image)))
        plain = PlainCNN(image_size=16).eval()
        features, _ = _last_layer_input(plain, image)
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
