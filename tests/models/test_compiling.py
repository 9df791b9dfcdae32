import shutil
from typing import Any, cast

import pytest
import torch
from lightning import seed_everything

from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError
from pet_cifar.models import SpeedrunCNN
from tests.conftest import quiet_trainer

pytestmark = [
    # Lightning 2.6 with torch 2.11 and newer
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.. is deprecated"),
    # our loaders prepare batches in threads
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    # a test's epoch is short
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    # torch's own compiler warns of itself
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]


def net(**options: Any) -> SpeedrunCNN:
    seed_everything(0)
    return SpeedrunCNN(image_size=9, widths=[4, 4, 4], optimizer="sgd", lr=0.1, whitening_bias_epochs=1, **options)


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
