import shutil
from typing import Any, cast

import pytest
import torch
from lightning import seed_everything
from torch import nn

from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError
from pet_cifar.models import SpeedrunCNN
from pet_cifar.training.compile import compile_parts
from tests.conftest import compiles, quiet_trainer

pytestmark = compiles


def net(**options: Any) -> SpeedrunCNN:
    seed_everything(0)
    return SpeedrunCNN(image_size=9, widths=[4], optimizer="sgd", lr=0.1, whitening_bias_epochs=1, **options)


def digits() -> DigitsDataModule:
    return DigitsDataModule(image_size=9, batch_size=200)


def test_a_compiled_net_trains_as_the_plain_one_and_leaves_the_same_checkpoint() -> None:
    plain, compiled = net(), net(compile=True)
    for model in (plain, compiled):
        quiet_trainer(max_epochs=2).fit(model, digits())
    one, other = plain.state_dict(), compiled.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=2e-3, rtol=2e-2)
    assert cast(Any, compiled.backbone)._compiled_call_impl is not None
    assert cast(Any, plain.backbone)._compiled_call_impl is None


def test_no_compiler_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        InputError, match="needs a C.. compiler for a net on cpu; install g.., .* --model.compile false"
    ):
        quiet_trainer(max_epochs=1).fit(net(compile=True), digits())


def test_more_sizes_of_a_batch_are_compiled_than_torch_would_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    original = nn.Module.compile
    # Torch counts graphs before it compiles them for this machine, which takes seconds and is left out here.
    monkeypatch.setattr(nn.Module, "compile", lambda part, **options: original(part, backend="eager", **options))
    config: Any = torch._dynamo.config
    monkeypatch.setattr(config, "recompile_limit", 8)
    monkeypatch.setattr(config, "fail_on_recompile_limit_hit", True)
    torch._dynamo.reset()
    backbone, head = nn.Linear(3, 4), nn.Linear(4, 2)
    try:
        compile_parts(backbone, head, torch.device("cpu"))
        for size in range(2, 22):
            assert head(backbone(torch.rand(size, 3))).shape == (size, 2)
    finally:
        torch._dynamo.reset()
