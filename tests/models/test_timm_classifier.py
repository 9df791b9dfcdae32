import re
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from pet_cifar.errors import InputError
from pet_cifar.models import TimmClassifier

NAME = "test_efficientnet"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """timm's keys in float16, with a classifier that is not wanted."""
    torch.manual_seed(1)
    state = timm.create_model(NAME, num_classes=7).state_dict()
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_file({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, path)
    return path


def refusal(**options: Any) -> str:
    with pytest.raises(InputError) as caught:
        TimmClassifier(**{"name": NAME, "image_size": 32, **options})
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_arguments_it_is_efficientnet_lite0() -> None:
    model = TimmClassifier().eval()
    # 4,652,008 in timm's table, less the classifier of 1,000 classes
    assert sum(parameter.numel() for parameter in model.backbone.parameters()) == 4_652_008 - 1_281_000
    with torch.no_grad():
        assert model(torch.rand(1, 3, 224, 224)).shape == (1, 1)


@pytest.mark.parametrize(("name", "size"), [("test_resnet", 32), ("test_convnext", 64), ("test_vit", 96)])
def test_any_net_of_timms(name: str, size: int) -> None:
    model = TimmClassifier(name=name, image_size=size, num_classes=5)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 5)


def test_a_file_of_weights_is_loaded(weights: Path) -> None:
    model = TimmClassifier(name=NAME, image_size=32, weights=str(weights)).eval()
    net: Any = timm.create_model(NAME, num_classes=7, checkpoint_path=str(weights)).eval()
    image = torch.rand(2, 3, 32, 32)
    config = net.pretrained_cfg
    assert model.mean.flatten().tolist() == pytest.approx(config["mean"])
    assert model.std.flatten().tolist() == pytest.approx(config["std"])
    with torch.no_grad():
        wanted = net.forward_head(net.forward_features((image - model.mean) / model.std), pre_logits=True)
        assert torch.allclose(model.backbone(model.normalized(image)), wanted, atol=1e-5)
        # Over pretrained features the head starts undecided.
        assert (model(image) == 0).all()


def test_a_wrapped_state_dict_is_loaded(weights: Path) -> None:
    state = timm.create_model(NAME, num_classes=7, checkpoint_path=str(weights)).state_dict()
    torch.save({"state_dict": state, "epoch": 3}, "wrapped.pth")
    one = TimmClassifier(name=NAME, image_size=32, weights="wrapped.pth")
    other = TimmClassifier(name=NAME, image_size=32, weights=str(weights))
    key = "conv_stem.weight"
    assert torch.equal(one.backbone.state_dict()[key], other.backbone.state_dict()[key])


def test_a_given_normalization_wins(weights: Path) -> None:
    model = TimmClassifier(name=NAME, image_size=32, weights=str(weights), mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0])
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_without_weights_the_pictures_are_measured_and_may_be_gray() -> None:
    model = TimmClassifier(name=NAME, image_size=32, num_channels=1)
    assert model.measures_pixels
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 1)


def test_a_checkpoint_needs_no_weights_file(weights: Path, tmp_path: Path) -> None:
    model = TimmClassifier(name=NAME, image_size=32, weights=str(weights), freeze_until="blocks.1")
    checkpoint = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        TimmClassifier.CHECKPOINT_HYPER_PARAMS_KEY: dict(model.hparams),
    }
    torch.save(checkpoint, tmp_path / "run.ckpt")
    again = TimmClassifier.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert not again.measures_pixels
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert re.search(r"timm has no net resnet5; near it are .*resnet50", refusal(name="resnet5"))
    assert "timm.list_models()" in refusal(name="qqqqqq")


def test_gray_pictures_for_pretrained_weights_are_refused(weights: Path) -> None:
    assert "give --data.grayscale false" in refusal(weights=str(weights), num_channels=1)


def test_pictures_that_are_too_small_are_refused() -> None:
    assert "inception_v3 cannot take pictures of 8 x 8" in refusal(name="inception_v3", image_size=8)


def test_weights_of_another_net_are_refused(weights: Path) -> None:
    assert "is no test_resnet: it lacks" in refusal(name="test_resnet", weights=str(weights))


def test_weights_of_another_shape_are_refused() -> None:
    state = timm.create_model(NAME).state_dict()
    state["conv_stem.weight"] = state["conv_stem.weight"][:3]
    torch.save(state, "narrow.pth")
    assert "conv_stem.weight is (3, 3, 3, 3) instead of" in refusal(weights="narrow.pth")


def test_a_missing_file_is_refused() -> None:
    assert "there is no such file; give timm, none, or a file's path" in refusal(weights="nowhere.pth")


def test_without_a_network_timms_weights_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    assert "connect to the network, or give a file: --model.weights PATH" in refusal(weights="timm")


def test_without_timm_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("pet_cifar.models.timm_classifier.find_spec", lambda name: None)
    assert "pip install 'pet_cifar[timm]'" in refusal()
