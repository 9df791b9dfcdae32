import numpy as np
import pytest
import torch
from torch import nn

from pet_cifar.callbacks.images import inspection
from pet_cifar.models import InceptionCNN, VGG16Classifier


def slow_map(values: np.ndarray) -> np.ndarray:
    """Computes the formula of the original Keras exercise, one number at a time."""
    mean = sum(values.flat) / values.size
    deviation = (sum((value - mean) ** 2 for value in values.flat) / values.size) ** 0.5
    out = np.empty(values.shape, np.uint8)
    for place, value in np.ndenumerate(values):
        out[place] = int(min(max((value - mean) / deviation * 64 + 128, 0), 255))
    return out


def test_maps_are_normalized_as_in_the_original_exercise() -> None:
    output = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0)) * 9 + 4
    maps = inspection.normalized_maps(output, 3, 64)
    assert maps.shape == (2, 3, 6, 7)
    assert maps.dtype == torch.uint8
    for picture in range(2):
        for place, channel in enumerate((0, 2, 4)):
            expected = slow_map(output[picture, channel].double().numpy())
            assert np.abs(maps[picture, place].numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("value", [0.0, 1e-30, 3.7, -12345.678])
def test_a_constant_map_is_gray(value: float) -> None:
    assert (inspection.normalized_maps(torch.full((1, 1, 50, 50), value), 1, 50) == 128).all()


def test_what_is_not_a_number_is_black() -> None:
    output = torch.randn(1, 1, 4, 4)
    output[0, 0, 1, 1] = float("nan")
    assert (inspection.normalized_maps(output, 1, 4) == 0).all()


def test_large_maps_are_reduced_by_the_mean_over_areas() -> None:
    output = torch.randn(1, 1, 8, 4)
    full = inspection.normalized_maps(output, 1, 8).float()
    small = inspection.normalized_maps(output, 1, 4)
    assert small.shape == (1, 1, 4, 2)
    expected = full.view(4, 2, 2, 2).mean((1, 3))
    assert (small[0, 0] - expected).abs().max() <= 1


def test_rows_are_balanced_and_follow_from_the_seed_alone() -> None:
    labels = np.repeat([0, 1, 2], [50, 5, 20])
    rows = inspection.balanced_rows(labels, 9, 0)
    assert np.bincount(labels[rows]).tolist() == [3, 3, 3]
    assert len(set(rows.tolist())) == 9
    assert rows.tolist() == inspection.balanced_rows(labels, 9, 0).tolist()
    assert rows.tolist() != inspection.balanced_rows(labels, 9, 1).tolist()
    assert np.bincount(labels[inspection.balanced_rows(labels, 20, 0)]).tolist() == [8, 5, 7]
    assert sorted(inspection.balanced_rows(labels, 1000, 0)) == list(range(75))


def test_items_are_spread_over_all() -> None:
    assert inspection.spread(range(10), 4) == [0, 3, 6, 9]
    assert inspection.spread("ab", 5) == ["a", "b"]
    assert inspection.spread([], 5) == []


def test_layers_are_found_by_name_and_pattern() -> None:
    model = InceptionCNN(widths=[8], blocks=1)
    assert list(inspection.layers_like(model, ["backbone.0.0"])) == ["backbone.0.0"]
    assert next(iter(inspection.layers_like(model, ["backbone.2.*.0", "backbone.0.0"]))) == "backbone.0.0"
    with pytest.raises(KeyError, match="stem"):
        inspection.layers_like(model, ["backbone.*", "stem"])
    assert len(inspection.convolutions(VGG16Classifier())) == 13


def test_a_wrapped_net_keeps_its_layers_names() -> None:
    model = InceptionCNN(widths=[8], blocks=1)
    names = list(inspection.convolutions(model))
    model.backbone = torch.compile(model.backbone, backend="eager")  # type: ignore[assignment]
    assert list(inspection.convolutions(model)) == names


def test_outputs_are_taken_before_an_in_place_activation_and_hooks_are_gone() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    image = torch.randn(1, 1, 5, 5)
    with inspection.outputs_of({"0": net[0]}, lambda name, output: output.clone()) as found:
        net(image)
    torch.testing.assert_close(found["0"][0], net[0](image).detach())
    assert (found["0"][0] < 0).any()
    assert not net[0]._forward_hooks
    with pytest.raises(ZeroDivisionError), inspection.outputs_of({"0": net[0]}, lambda name, output: output):
        raise ZeroDivisionError
    assert not net[0]._forward_hooks


def test_filters_are_copies() -> None:
    layer = nn.Conv2d(5, 3, 3)
    filters = inspection.filters_of(layer)
    assert filters.shape == (3, 1, 3, 3)
    np.testing.assert_allclose(filters[:, 0], layer.weight.detach().numpy().mean(1), rtol=1e-5, atol=1e-7)
    color = nn.Conv2d(3, 2, 3)
    filters = inspection.filters_of(color)
    with torch.no_grad():
        color.weight.zero_()
    assert np.abs(filters).min() > 0
