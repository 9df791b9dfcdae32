import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import vgg16

from pet_cifar.errors import InputError
from pet_cifar.models import VGG16Classifier
from pet_cifar.models.vgg16 import MEAN, STD

# Lightning 2.6 with torch 2.11 and newer
pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.. is deprecated")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Torchvision's keys and shapes with small random values."""
    with torch.device("meta"):
        layers = vgg16(weights=None).features.state_dict()
    generator = torch.Generator().manual_seed(0)
    return {
        f"features.{key}": torch.randn(value.shape, generator=generator) * (2 / max(1, value[0].numel())) ** 0.5
        for key, value in layers.items()
    }


@pytest.fixture(scope="module")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_file(state, path)
    return path


@pytest.mark.parametrize("head", ["pooled", "flattened"])
def test_over_pretrained_features_the_head_starts_undecided(weights: Path, head: Any) -> None:
    model = VGG16Classifier(image_size=32, weights=str(weights), head=head).eval()
    assert (model(torch.rand(3, 3, 32, 32)) == 0).all()
    model = VGG16Classifier(image_size=32, weights="none", head=head).eval()
    assert (model(torch.rand(3, 3, 32, 32)) != 0).all()


@pytest.fixture(scope="module")
def frozen(weights: Path) -> VGG16Classifier:
    return VGG16Classifier(image_size=32, weights=str(weights), freeze_until="all", num_classes=3)


def assert_backbone_is(model: VGG16Classifier, state: dict[str, Tensor]) -> None:
    own = model.backbone.state_dict()
    assert {f"features.{key}" for key in own} == set(state)
    assert all(torch.equal(own[key.removeprefix("features.")], value) for key, value in state.items())


def refusal(weights: Path) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(InputError) as caught:
        VGG16Classifier(image_size=32, weights=str(weights))
    message = str(caught.value)
    assert "\n" not in message
    assert str(weights) in message
    return message


def test_a_safetensors_file_is_loaded(frozen: VGG16Classifier, state: dict[str, Tensor]) -> None:
    assert_backbone_is(frozen, state)


def test_a_pth_file_of_the_whole_vgg16_is_loaded(state: dict[str, Tensor]) -> None:
    # The keys of the classifier, which torchvision's file has beside the features, are not wanted.
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, "vgg16.pth")
    assert_backbone_is(VGG16Classifier(image_size=32, weights="vgg16.pth"), state)


def test_the_normalization_follows_the_weights(frozen: VGG16Classifier) -> None:
    assert frozen.mean.flatten().tolist() == pytest.approx(MEAN)
    assert frozen.std.flatten().tolist() == pytest.approx(STD)
    assert not frozen.measures_pixels
    # These weights take pictures in [0, 255] less the mean.
    normal = (torch.ones(1, 3, 1, 1) - frozen.mean) / frozen.std
    assert normal.flatten().tolist() == pytest.approx([255 - 255 * mean for mean in MEAN], rel=1e-5)


def test_a_given_normalization_wins(weights: Path) -> None:
    model = VGG16Classifier(image_size=32, weights=str(weights), mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0])
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_a_frozen_base_gets_no_gradient_and_stays_in_evaluation(frozen: VGG16Classifier) -> None:
    frozen.train()
    assert frozen.training
    assert frozen.head.training
    assert not any(module.training for module in frozen.backbone.modules())
    frozen.loss(frozen(torch.rand(2, 3, 32, 32)), torch.tensor([0, 2])).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in frozen.backbone.parameters())
    assert all(parameter.grad is not None for parameter in frozen.head.parameters())
    frozen.zero_grad()


def test_a_frozen_base_is_not_in_the_optimizer(frozen: VGG16Classifier) -> None:
    made: Any = frozen.configure_optimizers()
    inside = {id(parameter) for group in made["optimizer"].param_groups for parameter in group["params"]}
    assert inside == {id(parameter) for parameter in frozen.head.parameters()}


def test_the_pooled_head_is_one_layer(frozen: VGG16Classifier) -> None:
    assert [tuple(parameter.shape) for parameter in frozen.head.parameters()] == [(3, 512), (3,)]


def test_the_flattened_head_has_a_dense_layer_and_trains_with_the_base() -> None:
    model = VGG16Classifier(image_size=64, head="flattened").train()
    assert [tuple(p.shape) for p in model.head.parameters()] == [(256, 2048), (256,), (1, 256), (1,)]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.backbone.training
    with torch.no_grad():
        assert model(torch.rand(2, 3, 64, 64)).shape == (2, 1)


def test_gray_pictures_are_refused() -> None:
    with pytest.raises(InputError, match=r"--data\.grayscale false"):
        VGG16Classifier(num_channels=1)


def test_small_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="image_size is 16"):
        VGG16Classifier(image_size=16)


def test_a_missing_file_is_refused() -> None:
    assert "there is no such file" in refusal(Path("nowhere.safetensors"))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_wrong_keys_are_refused(suffix: str) -> None:
    path = Path(f"other.{suffix}")
    content = {"features.0.weight": torch.zeros(64, 3, 3, 3), "conv": torch.zeros(2)}
    save_file(content, path) if suffix == "safetensors" else torch.save(content, path)
    assert "lacks features.0.bias and 24 more" in refusal(path)


def test_wrong_shapes_are_refused(state: dict[str, Tensor]) -> None:
    torch.save({**state, "features.28.bias": torch.zeros(7)}, "other.pth")
    assert "features.28.bias is (7,) instead of (512,)" in refusal(Path("other.pth"))


def test_a_truncated_safetensors_file_is_refused(weights: Path) -> None:
    Path("cut.safetensors").write_bytes(weights.read_bytes()[:100_000])
    assert "cannot be read as weights" in refusal(Path("cut.safetensors"))


def test_a_truncated_pth_file_is_refused() -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "cut.pth")
    content = Path("cut.pth").read_bytes()
    Path("cut.pth").write_bytes(content[: len(content) // 2])
    assert "cannot be read as weights" in refusal(Path("cut.pth"))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text\n", b"\x80\x02 garbage"], ids=["empty", "text", "noise"]
)
def test_a_file_of_something_else_is_refused(suffix: str, content: bytes) -> None:
    path = Path(f"other.{suffix}")
    path.write_bytes(content)
    assert "cannot be read as weights" in refusal(path)


class Code:
    """What a malicious file holds."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch was_run",)


@pytest.mark.parametrize("how", ["zip", "pickle"])
def test_code_in_a_pth_file_is_refused_and_not_run(how: str) -> None:
    content = {"features.0.weight": Code()}
    if how == "zip":
        torch.save(content, "evil.pth")
    else:
        Path("evil.pth").write_bytes(pickle.dumps(content, protocol=2))
    assert "cannot be read as weights" in refusal(Path("evil.pth"))
    assert not Path("was_run").exists()


def test_a_pth_file_without_a_state_dict_is_refused() -> None:
    torch.save([torch.zeros(2)], "list.pth")
    assert "holds a list" in refusal(Path("list.pth"))


def test_a_pth_file_whose_values_are_no_tensors_is_refused(state: dict[str, Tensor]) -> None:
    torch.save(dict.fromkeys(state, 1), "numbers.pth")
    assert "is no VGG16" in refusal(Path("numbers.pth"))


def test_a_checkpoint_needs_no_weights_file(frozen: VGG16Classifier, tmp_path: Path) -> None:
    assert frozen.hparams["weights"] == "none"
    checkpoint = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": frozen.state_dict(),
        VGG16Classifier.CHECKPOINT_HYPER_PARAMS_KEY: dict(frozen.hparams),
    }
    torch.save(checkpoint, tmp_path / "run.ckpt")
    again = VGG16Classifier.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert again.freezing is not None
    assert again.freezing.fixed == 31
    assert not again.measures_pixels
    assert dict(again.hparams) == dict(frozen.hparams)
    assert all(torch.equal(value, frozen.state_dict()[key]) for key, value in again.state_dict().items())
    assert again.mean.flatten().tolist() == pytest.approx(MEAN)
