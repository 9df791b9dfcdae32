"""Files of weights: those of wrapped nets, and one's own checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pet_cifar.errors import InputError
from pet_cifar.models import TimmClassifier, VGG16Classifier
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
