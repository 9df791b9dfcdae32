"""Muon: orthogonal steps for filters, SGD for the rest."""

import copy
from typing import Any, Literal

import pytest
import torch
from torch import nn

from pet_cifar.data import DigitsDataModule
from pet_cifar.models import ResidualCNN
from pet_cifar.training.muon import FILTER_MOMENTUM, Muon, orthogonal, with_filters_apart
from tests.conftest import quiet_trainer
from tests.training.test_classifier import weights_equal


@pytest.mark.parametrize("shape", [(16, 27), (27, 16), (8, 8)])
def test_a_matrix_becomes_about_orthogonal_and_keeps_its_singular_vectors(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator)
    made = orthogonal(100 * matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = left.T @ made @ right.T
    assert float((values - torch.diag(values.diagonal())).abs().max()) < 1e-4
    # The matrix of 8 x 8 has a direction that is 37 times weaker than its strongest one.
    assert bool((values.diagonal() > (0.55 if shape != (8, 8) else 0.2)).all())
    assert bool((values.diagonal() < 1.3).all())


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_steps_are_made_orthogonal_in_the_precision_of_the_run(
    precision: Literal["bf16-mixed", "32-true"], monkeypatch: pytest.MonkeyPatch
) -> None:
    types: list[torch.dtype] = []

    def look(matrix: torch.Tensor, *, bfloat16: bool) -> torch.Tensor:
        types.append((made := orthogonal(matrix, bfloat16=bfloat16)).dtype)
        return made

    monkeypatch.setattr("pet_cifar.training.muon.orthogonal", look)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0, precision=precision)
    trainer.fit(ResidualCNN(widths=[8], optimizer="muon"), DigitsDataModule())
    assert set(types) == {torch.bfloat16 if precision == "bf16-mixed" else torch.float32}
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(16, 27, generator=generator)
    torch.testing.assert_close(orthogonal(matrix, bfloat16=True).float(), orthogonal(matrix), atol=0.05, rtol=0.05)


def test_nothing_to_learn_makes_no_step() -> None:
    assert not orthogonal(torch.zeros(3, 5)).any()


def test_filters_are_scaled_and_their_step_is_as_long_as_the_rate_says() -> None:
    conv = nn.Conv2d(8, 4, 3, bias=False)
    (group,) = with_filters_apart([{"params": [conv.weight], "lr": 0.4, "lr_factor": 2.0, "weight_decay": 0.1}], 0.25)
    assert (group["lr"], group["lr_factor"], group["weight_decay"]) == (0.1, 0.5, 0.0)
    optimizer = Muon([group], 1.0, 0.9)
    assert optimizer.param_groups[0]["momentum"] == FILTER_MOMENTUM
    conv.weight.grad = torch.randn(conv.weight.shape, generator=torch.Generator().manual_seed(1))
    scaled = conv.weight.detach() * 2 / conv.weight.detach().norm()
    optimizer.step()
    change = (conv.weight.detach() - scaled).flatten(1)
    torch.testing.assert_close(change, -0.1 * orthogonal(conv.weight.grad.flatten(1)))


def test_the_rest_is_trained_as_by_sgd() -> None:
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    groups: list[dict[str, Any]] = [
        {"params": list(ours.parameters()), "lr": 0.1, "lr_factor": 1.0, "weight_decay": 0.01}
    ]
    optimizer = Muon(with_filters_apart(groups, 0.3), 1.0, 0.9)
    oracle = torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=0.01, nesterov=True)
    for step in range(5):
        picture = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        for net, made in ((ours, optimizer), (theirs, oracle)):
            made.zero_grad()
            net(picture).square().sum().backward()
            made.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_a_step_calls_its_closure_and_leaves_what_has_no_gradient() -> None:
    net = nn.Linear(2, 2)
    before = copy.deepcopy(net.state_dict())
    optimizer = Muon([{"params": list(net.parameters())}], 1.0, 0.9)
    assert optimizer.step(lambda: 3.0) == 3.0
    assert all(before[name].equal(value) for name, value in net.state_dict().items())


def _net(epochs: int, checkpoint: str | None = None) -> ResidualCNN:
    net = ResidualCNN(
        widths=[8], optimizer="muon", lr=0.05, filter_lr_factor=0.5, schedule="constant", warmup_fraction=0
    )
    trainer = quiet_trainer(max_epochs=epochs, limit_train_batches=3, limit_val_batches=0)
    trainer.fit(net, DigitsDataModule(), ckpt_path=checkpoint)
    trainer.save_checkpoint(f"{epochs}.ckpt")
    return net


def test_a_run_goes_on_exactly_with_its_momentum() -> None:
    torch.manual_seed(0)
    whole = _net(2)
    torch.manual_seed(0)
    _net(1)
    assert weights_equal(_net(2, "1.ckpt"), whole)
    groups = torch.load("1.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert {group["momentum"] for group in groups} == {0.9, FILTER_MOMENTUM}
