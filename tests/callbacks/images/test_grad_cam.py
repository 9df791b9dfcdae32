import pytest
import torch

from pet_cifar.callbacks import FeatureMaps, FirstLayerFilters, GradCAM
from pet_cifar.callbacks.images.grad_cam import explain, last_layer_with_maps
from pet_cifar.callbacks.images.inspection import untouched
from pet_cifar.errors import InputError
from pet_cifar.models import PlainCNN, TimmClassifier
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import digits, layer, run, small


def test_grad_cam_finds_the_place_that_decides() -> None:
    model = PlainCNN(image_size=16, num_classes=2)
    with torch.no_grad():  # The logit is the brightness of the upper left quarter.
        for parameter in model.parameters():
            parameter.zero_()
        for number in (0, 2, 4, 6):
            weight = layer(model, f"backbone.{number}").weight
            weight[0, 0, weight.shape[2] // 2, weight.shape[3] // 2] = 1
        layer(model, "backbone.8").weight.fill_(1)
        layer(model, "head.2").weight.view(128, 16, 16)[0, :8, :8] = 1
    model.mean.zero_(), model.std.fill_(1)
    image = torch.zeros(1, 3, 16, 16)
    image[0, :, 2:6, 2:6] = 1
    with untouched(model):
        weight, said, _ = explain(model, "backbone", image, 16)
    assert said == 1
    assert weight.shape == (16, 16)
    assert weight[2:6, 2:6].min() > 0.9
    assert weight[:, 8:].max() < 0.1
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext"])
def test_grad_cam_takes_the_last_maps_of_a_net_that_pools_within(name: str) -> None:
    model = TimmClassifier(name=name, num_classes=10, image_size=64)
    with untouched(model):
        last = last_layer_with_maps(model, torch.rand(1, 3, 64, 64))
    assert last is not None
    assert last.startswith("backbone.")
    _, directory = run(model, digits(64), [GradCAM(pictures=1), FeatureMaps(pictures=1), FirstLayerFilters()])
    assert {"grad_cam", "first_layer_filters"} <= set(Events(directory).images)
    assert any(tag.startswith("feature_maps/backbone.") for tag in Events(directory).images)


def test_an_unknown_layer_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(InputError, match="GradCAM's layer: ResidualCNN has no layer stem; it has backbone"):
        run(small(), digits(), [GradCAM(layer="stem")])
    with pytest.raises(InputError, match="GradCAM's layer: head gives no maps"):
        run(small(), digits(), [GradCAM(layer="head")])
