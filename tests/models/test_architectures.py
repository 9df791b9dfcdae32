import inspect
import math
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pet_cifar import models
from pet_cifar.errors import InputError
from pet_cifar.models import CatsDogsCNN, InceptionCNN, PlainCNN, ResidualCNN, SpeedrunCNN, VGG16Classifier
from pet_cifar.models.inception import InceptionBlock
from pet_cifar.models.residual import ResidualBlock
from pet_cifar.training import ImageClassifier

# These are all nets of the package, so that a new one is tested by itself.
NETS: list[type[ImageClassifier]] = [net for net in vars(models).values() if isinstance(net, type)]
every_net = pytest.mark.parametrize("net", NETS, ids=lambda net: str(net.__name__))


def build(net: type[ImageClassifier], **options: Any) -> ImageClassifier:
    """Without dropout, which would hide what is checked here."""
    torch.manual_seed(0)
    if "dropout" in inspect.signature(net.__init__).parameters:
        options.setdefault("dropout", 0.0)
    options = {"image_size": 32, "num_channels": 3, **options}
    return net(**options)


def parameter_counts(model: ImageClassifier) -> list[int]:
    """Of all layers that have any."""
    layers = [layer for layer in model.modules() if not list(layer.children())]
    counts = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers]
    return [count for count in counts if count]


def trained(model: ImageClassifier) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def forward_flops(model: ImageClassifier) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(model.example_input_array)
    return counter.get_total_flops()


# The two nets of the original Keras exercise


def test_cats_dogs_cnn_has_the_original_parameters() -> None:
    model = CatsDogsCNN()
    assert parameter_counts(model) == [320, 18_496, 4_718_624, 33]
    assert trained(model) == 4_737_473


def test_cats_dogs_cnn_has_the_original_shapes() -> None:
    model = CatsDogsCNN()
    image = torch.rand(2, 1, 200, 200)
    shapes = []
    features = image
    for layer in model.backbone:  # type: ignore[attr-defined]
        features = layer(features)
        shapes.append(tuple(features.shape[1:]))
    assert [shapes[0], shapes[2], shapes[3], shapes[5]] == [
        (32, 198, 198),
        (32, 99, 99),
        (64, 97, 97),
        (64, 48, 48),
    ]
    assert features.flatten(1).shape == (2, 147_456)
    assert model(image).shape == (2, 1)


def test_plain_cnn_has_the_original_parameters() -> None:
    model = PlainCNN()
    assert parameter_counts(model) == [2_432, 18_496, 36_928, 73_856, 256, 1_310_730]
    assert trained(model) == 1_442_698
    statistics = [buffer for buffer in model.backbone.buffers() if buffer.is_floating_point()]
    assert sum(buffer.numel() for buffer in statistics) == 256


def test_plain_cnn_keeps_the_full_resolution() -> None:
    assert PlainCNN().backbone(torch.rand(1, 3, 32, 32)).shape == (1, 128, 32, 32)


@pytest.mark.parametrize("model_class", [PlainCNN, CatsDogsCNN])
def test_wide_dense_layers_have_a_rate_of_their_own(model_class: type[PlainCNN] | type[CatsDogsCNN]) -> None:
    model = model_class(image_size=12, lr=0.5, head_lr_factor=0.1, weight_decay=0.3)
    optimizer = cast(dict[str, Any], model.configure_optimizers())["optimizer"]
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = {names[p]: group for group in optimizer.param_groups for p in group["params"]}
    assert set(groups) == set(names.values())
    for name, group in groups.items():
        assert group["initial_lr"] == pytest.approx(0.05 if name.startswith("head") else 0.5)
        assert group["weight_decay"] == (0 if name.endswith("bias") or name == "backbone.8.weight" else 0.3)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_factors_that_are_no_factors_are_refused(factor: float) -> None:
    with pytest.raises(InputError, match=f"head_lr_factor is {factor}; it is a number above 0"):
        PlainCNN(head_lr_factor=factor)
    with pytest.raises(InputError, match=f"head_lr_factor is {factor}; it is a number above 0"):
        CatsDogsCNN(head_lr_factor=factor)
    with pytest.raises(InputError, match=f"bias_lr_factor is {factor}; it is a number above 0"):
        SpeedrunCNN(bias_lr_factor=factor)


def test_what_goes_through_the_plain_nets_convolutions_keeps_its_size() -> None:
    torch.manual_seed(0)
    model = PlainCNN()
    with torch.no_grad():
        features = cast(nn.Sequential, model.backbone)[:8](torch.randn(8, 3, 32, 32))
    assert 0.5 < features.square().mean().item() < 2.5


# The two nets that must be cheaper


@pytest.mark.parametrize("net", [ResidualCNN, InceptionCNN])
def test_small_nets_are_smaller_and_cheaper_than_their_bounds(net: type[ImageClassifier]) -> None:
    assert trained(net()) <= 2_000_000
    assert forward_flops(net()) < forward_flops(PlainCNN())


def test_plain_cnn_flops_are_what_one_counts_by_hand() -> None:
    multiplications = 32 * 32 * (3 * 32 * 25 + 32 * 64 * 9 + 64 * 64 * 9 + 64 * 128 * 9) + 128 * 32 * 32 * 10
    assert forward_flops(PlainCNN()) == 2 * multiplications


@pytest.mark.parametrize("net", [ResidualCNN, InceptionCNN])
def test_each_width_halves_the_resolution(net: type[ResidualCNN | InceptionCNN]) -> None:
    model = net(widths=[8, 16], image_size=20)
    assert model.backbone(torch.rand(2, 3, 20, 20)).shape == (2, 16, 5, 5)


def test_transitions_widen_before_each_pooling_and_leave_the_shortcuts_alone() -> None:
    model = ResidualCNN(transitions=True)
    convolutions = [layer for layer in model.backbone.children() if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == [
        (3, 16),
        (16, 64),
        (64, 128),
        (128, 256),
    ]
    blocks = [layer for layer in model.modules() if isinstance(layer, ResidualBlock)]
    assert len(blocks) == 3
    assert all(isinstance(block.shortcut, nn.Identity) for block in blocks)
    assert model.backbone(torch.rand(2, 3, 32, 32)).shape == (2, 256, 4, 4)
    assert trained(model) == 1_931_866
    assert forward_flops(model) < forward_flops(PlainCNN())


@pytest.mark.parametrize("net", [ResidualCNN, InceptionCNN])
def test_blocks_says_how_many_blocks_a_stage_has(net: type[ResidualCNN | InceptionCNN]) -> None:
    model = net(widths=[8, 16], blocks=3)
    blocks = [layer for layer in model.modules() if isinstance(layer, ResidualBlock | InceptionBlock)]
    assert len(blocks) == 6


@pytest.mark.parametrize("net", [ResidualCNN, InceptionCNN])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": []}, r"widths are \[\]; give the channels"),
        ({"widths": [16, -8]}, r"widths are \[16, -8\]"),
        ({"blocks": 0}, "blocks is 0; give the blocks of a stage, at least 1"),
    ],
)
def test_stages_without_layers_are_refused(
    net: type[ResidualCNN | InceptionCNN], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        net(**options)


def test_inception_widths_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(InputError, match=r"widths are \[8, 12\]"):
        InceptionCNN(widths=[8, 12])


# Every net


@every_net
@pytest.mark.parametrize(("image_size", "num_classes"), [(32, 2), (45, 3), (32, 10)])
def test_one_logit_for_two_classes_and_one_each_for_more(
    net: type[ImageClassifier], image_size: int, num_classes: int
) -> None:
    model = build(net, image_size=image_size, num_classes=num_classes, num_channels=3).eval()
    with torch.no_grad():
        logits = model(torch.rand(2, 3, image_size, image_size))
        probabilities = model.probabilities(logits)
    assert logits.shape == (2, 1 if num_classes == 2 else num_classes)
    assert probabilities.shape == (2, num_classes)
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])


@every_net
@pytest.mark.parametrize("image_size", [32, 37])
def test_gray_pictures_are_taken_or_refused_in_words(net: type[ImageClassifier], image_size: int) -> None:
    if net is VGG16Classifier:
        with pytest.raises(InputError, match="grayscale"):
            build(net, image_size=image_size, num_channels=1)
        return
    model = build(net, image_size=image_size, num_channels=1, num_classes=3).eval()
    assert model(torch.rand(2, 1, image_size, image_size)).shape == (2, 3)


@every_net
def test_example_input_array_runs_and_backbone_and_head_are_the_whole_net(net: type[ImageClassifier]) -> None:
    model = build(net, num_classes=3).eval()
    example = model.example_input_array
    assert isinstance(example, Tensor)
    assert example.shape[1:] == (3, 32, 32)
    with torch.no_grad():
        assert model(example).shape == (1, 3)
    assert isinstance(model.backbone, nn.Module)
    assert isinstance(model.head, nn.Module)
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"backbone", "head"}
    assert sum(1 for _ in model.head.parameters()) > 0
    assert sum(1 for _ in model.backbone.parameters()) > 0


@every_net
def test_gradients_lie_in_memory_as_what_batch_norm_has_seen(net: type[ImageClassifier]) -> None:
    """Where they do not, torch 2.15's batch norm takes most of the plain net's step."""
    model = build(net, channels_last=True).to(memory_format=torch.channels_last)
    orders: list[bool] = []

    def look(_: nn.Module, __: Any, output: Tensor) -> None:
        assert output.grad_fn is not None
        # What a tensor's own hooks change comes before this one.
        output.grad_fn.register_prehook(
            lambda grads: orders.append(grads[0].is_contiguous(memory_format=torch.channels_last))
        )

    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d) and layer.training]
    for layer in layers:
        layer.register_forward_hook(look)
    model(torch.rand(4, 3, 32, 32)).sum().backward()
    assert orders == [True] * len(layers)


@every_net
def test_the_net_normalizes_pictures_itself(net: type[ImageClassifier]) -> None:
    model = build(net, num_classes=3, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2.0]).eval()
    image = torch.rand(2, 3, 32, 32)
    normal = torch.stack([(image[:, 0] - 0.1) / 0.5, (image[:, 1] - 0.2) / 0.25, (image[:, 2] - 0.3) / 2], 1)
    with torch.no_grad():
        torch.testing.assert_close(model(image), model.head(model.backbone(normal)))


@every_net
def test_every_trained_parameter_gets_a_gradient_and_one_batch_is_overfitted(
    net: type[ImageClassifier],
) -> None:
    model = build(net, num_classes=3).train()
    image, label = torch.rand(3, 3, 32, 32), torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(model.parameters(), 1e-4 if net is VGG16Classifier else 1e-3)
    losses = []
    for step in range(60):
        loss = model.loss(model(image), label)
        losses.append(loss.item())
        if losses[-1] < losses[0] / 10:
            break
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if step == 0:
            trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
            empty = [name for name, p in trained if p.grad is None or not p.grad.any()]
            assert empty == []
        optimizer.step()
    assert losses[-1] < losses[0] / 10


@every_net
def test_a_size_that_the_net_cannot_take_is_refused_by_name(net: type[ImageClassifier]) -> None:
    least = {CatsDogsCNN: 10, ResidualCNN: 8, InceptionCNN: 8, SpeedrunCNN: 9, VGG16Classifier: 32}.get(net, 1)
    with pytest.raises(InputError, match=f"image_size is {least - 1}") as caught:
        build(net, image_size=least - 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("net", "least"), [(CatsDogsCNN, 10), (PlainCNN, 1), (ResidualCNN, 8), (InceptionCNN, 8)])
def test_the_smallest_size_works(net: type[ImageClassifier], least: int) -> None:
    model = build(net, image_size=least, num_channels=3).eval()
    with torch.no_grad():
        assert torch.isfinite(model(torch.rand(2, 3, least, least))).all()


@every_net
def test_no_training_option_is_hidden_from_the_command_line(net: type[ImageClassifier]) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(net, "m")
    keys = {key.removeprefix("m.") for key in parser.get_defaults().as_flat().__dict__}
    # Every base takes the arguments that the net hands on.
    for base in net.__mro__[: net.__mro__.index(ImageClassifier) + 1]:
        own = [one for one in inspect.signature(base).parameters.values() if one.kind is not one.VAR_KEYWORD]
        assert {one.name for one in own} <= keys
    assert not {"training", "transfer"} & keys


@every_net
def test_a_misspelt_option_is_refused(net: type[ImageClassifier]) -> None:
    with pytest.raises(TypeError, match="learning_rate"):
        build(net, learning_rate=0.1)


# Blocks


def test_inception_block_divides_its_width_as_the_paper_does() -> None:
    block = InceptionBlock(48, 96)
    shapes = [
        [tuple(layer.weight.shape) for layer in branch.modules() if isinstance(layer, nn.Conv2d)]
        for branch in block.branches
    ]
    assert shapes == [
        [(24, 48, 1, 1)],
        [(36, 48, 1, 1), (48, 36, 3, 3)],
        [(6, 48, 1, 1), (12, 6, 5, 5)],
        [(12, 48, 1, 1)],
    ]
    assert block(torch.rand(2, 48, 7, 5)).shape == (2, 96, 7, 5)


def randomise_statistics(block: nn.Module) -> None:
    """A fresh batch norm does nothing in evaluation, so that leaving it out would not show."""
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)


def norm(layer: Any, features: Tensor) -> Tensor:
    def column(values: Tensor) -> Tensor:
        return values.view(1, -1, 1, 1)

    scale = column(layer.weight) / torch.sqrt(column(layer.running_var) + layer.eps)
    return (features - column(layer.running_mean)) * scale + column(layer.bias)


@torch.no_grad()
def test_inception_block_against_a_hand_computation() -> None:
    torch.manual_seed(0)
    block = InceptionBlock(5, 16).eval()
    randomise_statistics(block)

    def unit(unit: Any, features: Tensor) -> Tensor:
        convolution, batch_norm, _ = unit
        weight = convolution.weight
        return norm(batch_norm, F.conv2d(features, weight, padding=weight.shape[-1] // 2)).clamp_min(0)

    image = torch.randn(2, 5, 6, 6)
    one, three, five, pool = block.branches
    expected = torch.cat(
        [
            unit(one, image),
            unit(three[1], unit(three[0], image)),  # type: ignore[index]
            unit(five[1], unit(five[0], image)),  # type: ignore[index]
            unit(pool[1], F.max_pool2d(image, 3, 1, 1)),  # type: ignore[index]
        ],
        1,
    )
    torch.testing.assert_close(block(image), expected)


@torch.no_grad()
@pytest.mark.parametrize(("in_channels", "out_channels"), [(4, 4), (4, 6)])
def test_residual_block_against_a_hand_computation(in_channels: int, out_channels: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(in_channels, out_channels).eval()
    randomise_statistics(block)
    image = torch.randn(2, in_channels, 5, 5)
    first, norm1, _, second, norm2 = block.residual
    inner = norm(norm1, F.conv2d(image, first.weight, padding=1)).clamp_min(0)  # type: ignore[arg-type]
    out = norm(norm2, F.conv2d(inner, second.weight, padding=1))  # type: ignore[arg-type]
    shortcut = image
    if in_channels != out_channels:
        assert isinstance(block.shortcut, nn.Sequential)
        projection: Any = block.shortcut[0]
        shortcut = norm(block.shortcut[1], F.conv2d(image, projection.weight))
    expected = (out + shortcut).clamp_min(0)
    torch.testing.assert_close(block(image.clone()), expected)
