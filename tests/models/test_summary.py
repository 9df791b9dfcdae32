import pytest
import torch
from torch import nn

from pet_cifar.models import CatsDogsCNN, PlainCNN, ResidualCNN, TimmClassifier
from pet_cifar.models.summary import summary
from pet_cifar.training import ImageClassifier


def line(text: str, layer: str) -> list[str]:
    """The cells of one layer's row."""
    (found,) = [row.split("  ") for row in text.splitlines() if row.startswith(layer)]
    return [cell.strip() for cell in found if cell.strip()]


def test_cats_dogs_cnn_is_listed_as_keras_printed_it() -> None:
    text = summary(CatsDogsCNN())
    assert "CatsDogsCNN for pictures of 1 x 200 x 200" in text
    assert line(text, "backbone.0 ") == ["backbone.0", "Conv2d", "32 x 198 x 198", "320"]
    assert line(text, "backbone.3 ") == ["backbone.3", "Conv2d", "64 x 97 x 97", "18,496"]
    assert line(text, "head.0 ") == ["head.0", "Flatten", "147456"]
    assert line(text, "head.2 ") == ["head.2", "Linear", "32", "4,718,624"]
    assert line(text, "head.4 ") == ["head.4", "Linear", "1", "33"]
    assert "total parameters 4,737,473: trained 4,737,473, not trained 0" in text


def test_plain_cnn_counts_running_statistics_as_not_trained() -> None:
    text = summary(PlainCNN())
    assert line(text, "backbone.0 ") == ["backbone.0", "Conv2d", "32 x 32 x 32", "2,432"]
    assert line(text, "backbone.8 ") == ["backbone.8", "BatchNorm2d", "128 x 32 x 32", "512"]
    assert line(text, "head.2 ") == ["head.2", "Linear", "10", "1,310,730"]
    assert "total parameters 1,442,954: trained 1,442,698, not trained 256" in text


def test_frozen_parameters_count_as_not_trained() -> None:
    model = CatsDogsCNN(image_size=20)
    model.backbone.requires_grad_(False)
    fixed = 320 + 18_496
    trained = sum(parameter.numel() for parameter in model.head.parameters())
    assert f"trained {trained:,}, not trained {fixed:,}" in summary(model)


def test_every_row_is_equally_long() -> None:
    rows = summary(ResidualCNN()).splitlines()[1:-1]
    assert len({len(row) for row in rows}) == 1


class Surroundings:
    """All of a net that looking at it could change."""

    def __init__(self, model: ImageClassifier) -> None:
        self.modes = [module.training for module in model.modules()]
        self.hooks = [len(module._forward_hooks) for module in model.modules()]
        self.state = {key: value.clone() for key, value in model.state_dict().items()}
        self.random = torch.get_rng_state()

    def check(self, model: ImageClassifier) -> None:
        now = Surroundings(model)
        assert now.modes == self.modes
        assert now.hooks == self.hooks
        assert all(torch.equal(now.state[key], self.state[key]) for key in self.state)
        assert torch.equal(now.random, self.random)
        assert all(parameter.grad is None for parameter in model.parameters())


def mixed_modes() -> PlainCNN:
    model = PlainCNN(image_size=8).train()
    model.backbone.eval()
    model.backbone.register_forward_hook(lambda *_: None)
    return model


def test_the_net_is_left_as_it_was() -> None:
    model = mixed_modes()
    before = Surroundings(model)
    summary(model)
    before.check(model)
    assert model.training
    assert not model.backbone.training
    assert any(isinstance(module, nn.Dropout) and module.training for module in model.modules())


def test_the_net_is_left_as_it_was_when_it_fails() -> None:
    model = mixed_modes()
    model.example_input_array = torch.zeros(1, 3, 9, 9)
    before = Surroundings(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        summary(model)
    before.check(model)


def test_parts_with_parameters_of_their_own_are_counted() -> None:
    # The norms of timm bring their activation along.
    model = TimmClassifier(name="test_efficientnet", image_size=32)
    text = summary(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    averages = sum(one.numel() for name, one in model.named_buffers() if name.endswith(("running_mean", "running_var")))
    assert f"total parameters {parameters + averages:,}: trained {parameters:,}, not trained {averages:,}" in text
    assert "backbone.bn1 " in text
    assert "Identity" not in text
    token = TimmClassifier(name="test_vit", image_size=160)
    assert f"trained {sum(parameter.numel() for parameter in token.parameters()):,}" in summary(token)
