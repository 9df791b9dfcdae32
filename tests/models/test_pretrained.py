"""Files of weights: those of wrapped nets, and one's own checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from pet_cifar.errors import InputError
from pet_cifar.models import TimmClassifier, VGG16Classifier
from pet_cifar.models.pretrained import with_timm_names
from pet_cifar.training.transfer import TransferClassifier

# Lightning 2.6 with torch 2.11 and newer
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.. is deprecated")

NETS: list[Callable[..., TransferClassifier]] = [
    lambda **options: TimmClassifier(name="test_resnet", image_size=32, **options),
    lambda **options: VGG16Classifier(image_size=32, **options),
]


def wrapped(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize("net", NETS, ids=["timm", "vgg16"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "model.", "model._orig_mod."])
def test_ones_own_checkpoint_gives_backbone_and_statistics(
    net: Callable[..., TransferClassifier], prefix: str, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    trained = net(num_classes=5, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    path = tmp_path / "best.ckpt"
    torch.save({"epoch": 3, "state_dict": wrapped(trained.state_dict(), prefix)}, path)
    torch.manual_seed(2)
    model = net(weights=str(path))
    for key, value in trained.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[key]), key
    # Its backbone takes pictures normalized as it was trained with them.
    assert torch.equal(model.mean, trained.mean)
    assert torch.equal(model.std, trained.std)
    assert not model.measures_pixels


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model."])
def test_a_librarys_net_may_be_wrapped(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    timm_net = NETS[0](num_classes=5).backbone.state_dict()
    torch.save({"model": wrapped(timm_net, prefix)}, tmp_path / "timm.pth")
    model = NETS[0](weights=str(tmp_path / "timm.pth"))
    assert all(torch.equal(value, timm_net[key]) for key, value in model.backbone.state_dict().items())
    layers = wrapped(NETS[1]().backbone.state_dict(), "features.")
    layers["classifier.0.weight"] = torch.ones(1)  # This tells torchvision's own training from the authors' weights.
    torch.save(wrapped(layers, prefix), tmp_path / "vgg16.pth")
    model = NETS[1](weights=str(tmp_path / "vgg16.pth"))
    assert torch.equal(model.backbone.state_dict()["0.weight"], layers["features.0.weight"])
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize("net", NETS, ids=["timm", "vgg16"])
def test_ones_own_checkpoint_of_another_net_is_refused(net: Callable[..., TransferClassifier], tmp_path: Path) -> None:
    state = TimmClassifier(name="test_convnext", image_size=64).state_dict()
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")
    with pytest.raises(InputError, match=r"best.ckpt is no (test_resnet|VGG16): it lacks"):
        net(weights=str(tmp_path / "best.ckpt"))


def efficientnet_pytorch_name(key: str, places: dict[str, int], expands: set[str]) -> str:
    """The name that EfficientNet-PyTorch has for one of timm's tensors."""
    ends = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    first, _, rest = key.partition(".")
    if first != "blocks":
        return f"{ends[first]}.{rest}"
    stage, block, layer, tensor = rest.split(".", 3)
    name = f"{stage}.{block}"
    layers = (
        {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
        | {"conv_pwl": "_project_conv", "bn3": "_bn2"}
        if name in expands
        else {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    )
    return f"_blocks.{places[name]}.{layers[layer]}.{tensor}"


def test_weights_of_efficientnet_pytorch_get_timms_names() -> None:
    whole = timm.create_model("tf_efficientnet_lite0").state_dict()
    blocks = dict.fromkeys(".".join(key.split(".")[1:3]) for key in whole if key.startswith("blocks."))
    places = {name: place for place, name in enumerate(blocks)}
    expands = {".".join(key.split(".")[1:3]) for key in whole if ".conv_pwl." in key}
    theirs = {efficientnet_pytorch_name(key, places, expands): value for key, value in whole.items()}
    assert len(theirs) == len(whole)
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    renamed = with_timm_names(theirs, net)
    assert renamed.keys() == net.state_dict().keys()
    assert all(renamed[key] is whole[key] for key in renamed)
    # The weights of another size of the net are left to the line that says so.
    other = timm.create_model("tf_efficientnet_lite1", num_classes=0)
    assert with_timm_names(theirs, other).keys() == theirs.keys()
