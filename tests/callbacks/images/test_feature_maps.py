import pytest
from torch import nn

from pet_cifar.callbacks import FeatureMaps
from pet_cifar.callbacks.images.drawing import channels_last, scale_to
from pet_cifar.callbacks.images.inspection import balanced_rows, pictures_of, untouched
from pet_cifar.errors import InputError
from pet_cifar.training import ImageClassifier
from tests.callbacks.event_files import Events
from tests.callbacks.small_runs import RecordingBoard, digits, holds, layer, run, small


def test_feature_maps_show_the_layers_own_output() -> None:
    board, model, data = RecordingBoard(), small(), digits()
    run(model, data, [board, FeatureMaps(layers=["backbone.0"], pictures=3, maps=4)])
    sheet = board.drawn["feature_maps/backbone.0"][-1]
    assert len(board.drawn) == 1
    rows = balanced_rows(data.labels("val"), 3, data.split_seed)
    with untouched(model):
        images = pictures_of(data, "val", rows)
        outputs = layer(model, "backbone.0")((images.float() / 255 - model.mean) / model.std)
    for image, maps in zip(images, outputs, strict=True):
        assert holds(sheet, scale_to(channels_last(image.numpy()), 64))
        deviation = maps[7].std(unbiased=False)
        expected = ((maps[7] - maps[7].mean()) / deviation * 64 + 128).clamp(0, 255).byte().numpy()
        assert holds(sheet, scale_to(channels_last(expected[None]), 64), tolerance=1)


def test_at_most_eight_layers_by_default() -> None:
    _, directory = run(small(widths=[8, 8, 8], blocks=2), digits(), [FeatureMaps()])
    assert len(Events(directory).images) == 8


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


def test_an_unknown_layer_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"ResidualCNN has no layer like stem\.\*; it has backbone.0, backbone.1"):
        run(small(), digits(), [FeatureMaps(layers=["stem.*"])])
    with pytest.raises(InputError, match="head.2 gives 10 numbers a picture and no maps"):
        run(small(), digits(), [FeatureMaps(layers=["head.2"])])
