"""Checkpoints of wrapped nets, and of nets that are not this one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pet_cifar.errors import InputError
from pet_cifar.models import PlainCNN, ResidualCNN
from pet_cifar.training import ImageClassifier
from pet_cifar.training.state_dicts import misfit, with_own_names
from tests.callbacks.small_runs import digits, small
from tests.conftest import quiet_trainer


def saved(path: Path, model: ImageClassifier) -> Path:
    """A checkpoint after one step."""
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, digits())
    trainer.save_checkpoint(path)
    return path


def renamed(path: Path, rename: Callable[[str], str]) -> Path:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"] = {rename(key): value for key, value in checkpoint["state_dict"].items()}
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module.{key}",
        lambda key: f"model.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: key.replace("backbone.", "backbone._orig_mod."),
    ],
    ids=["compiled", "ddp", "wrapped", "both", "within"],
)
def test_a_checkpoint_of_a_wrapped_net_is_loaded(tmp_path: Path, rename: Callable[[str], str]) -> None:
    trained = small()
    path = renamed(saved(tmp_path / "run.ckpt", trained), rename)
    other = small(mean=[0.1] * 3, std=[0.2] * 3)
    quiet_trainer(limit_test_batches=1).test(other, digits(), ckpt_path=path, weights_only=True, verbose=False)
    for key, value in trained.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    loaded = ResidualCNN.load_from_checkpoint(path, weights_only=True)
    assert torch.equal(loaded.backbone[0].weight, trained.backbone[0].weight)  # type: ignore[index]


def test_names_that_fit_or_that_are_ambiguous_stay() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert with_own_names({"model.a": one}, ["model.a"]) == {"model.a": one}
    assert set(with_own_names({"module.a": one, "model.a": two}, ["a"])) == {"module.a", "model.a"}
    assert with_own_names({"a": one, "model.a": two}, ["a"])["a"] is one
    assert set(with_own_names({"module.b": one}, ["a"])) == {"module.b"}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "a is missing"),
        ({"a": torch.zeros(2)}, "a is 2 instead of 2 x 3"),
        ({"a": torch.tensor(1.0)}, "a is one number instead of 2 x 3"),
        ({"a": 3}, "a is no tensor"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(1)}, "has no b"),
    ],
)
def test_the_first_misfit_is_named(state: dict[str, Any], words: str) -> None:
    own: dict[str, Tensor] = {"a": torch.zeros(2, 3)}
    assert words in str(misfit(state, own))
    if not {"a"} <= state.keys() or "b" in state:
        assert misfit(state, own, strict=False) is None


@pytest.mark.parametrize("verb", ["fit", "test"])
@pytest.mark.parametrize(
    ("net", "words"),
    [
        (lambda: small(widths=[8, 8]), ["--model.widths [8, 8]", "[8, 16]", "backbone.6.residual.0.weight"]),
        (lambda: small(widths=[8], lr=0.3), ["--model.widths [8]", "[8, 16]"]),
        (lambda: small(num_classes=5), ["--model.num_classes 5", "10", "head.2.weight"]),
        (lambda: PlainCNN(image_size=16), ["--model PlainCNN", "--model ResidualCNN", "backbone.0.weight"]),
    ],
    ids=["widths", "shorter", "classes", "another class"],
)
def test_a_checkpoint_of_another_net_is_refused_with_the_option(
    tmp_path: Path, verb: str, net: Callable[[], ImageClassifier], words: list[str]
) -> None:
    path = saved(tmp_path / "run.ckpt", small())
    before = path.read_bytes()
    trainer = quiet_trainer(max_steps=2)
    run = trainer.fit if verb == "fit" else trainer.test
    with pytest.raises(InputError) as caught:
        run(net(), datamodule=digits(), ckpt_path=path, weights_only=True)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message
    assert "--model.lr" not in message
    assert path.read_bytes() == before


def test_a_checkpoint_with_other_keys_alone_is_told_from_a_wrong_option(tmp_path: Path) -> None:
    path = renamed(saved(tmp_path / "run.ckpt", small()), lambda key: key.replace("backbone.", "trunk."))
    with pytest.raises(InputError, match=r"backbone.0.weight is missing") as caught:
        ResidualCNN.load_from_checkpoint(path, weights_only=True)
    assert "--model" not in str(caught.value)
