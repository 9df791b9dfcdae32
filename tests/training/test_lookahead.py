"""The lookahead average against a slow and plain computation, with any net and through checkpoints."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn

from pet_cifar.data import DigitsDataModule
from pet_cifar.models import ResidualCNN, SpeedrunCNN
from pet_cifar.training import ImageClassifier
from pet_cifar.training.lookahead import Average, Lookahead
from tests.conftest import quiet_trainer


def narrow(**options: Any) -> SpeedrunCNN:
    return SpeedrunCNN(image_size=16, widths=[8, 16, 16], optimizer="sgd", lr=0.3, schedule="triangle", **options)


def digits() -> DigitsDataModule:
    return DigitsDataModule(image_size=16, batch_size=100)


def net_of(model: ImageClassifier) -> dict[str, Tensor]:
    return nn.ModuleDict({"backbone": model.backbone, "head": model.head}).state_dict()


def average_of(trainer: Trainer) -> Average:
    """The average that a run has ended with."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    (lookahead,) = (callback for callback in callbacks if isinstance(callback, Lookahead))
    assert lookahead._average is not None
    return lookahead._average


def test_lookahead_written_out() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    value = cast(Tensor, net.get_submodule("0").weight)
    running = cast(Tensor, net.get_submodule("1").running_mean)
    lookahead = Average(net, every=3)
    slow, slow_running = value.detach().clone(), running.clone()
    for step in range(1, 11):
        with torch.no_grad():
            value.add_(torch.randn(2, 3))
            running.add_(torch.randn(2))
        expected, expected_running = value.detach().clone(), running.clone()
        if step % 3 == 0:
            keep = 0.95**3 * (step / 10) ** 3
            slow = expected = keep * slow + (1 - keep) * expected
            slow_running = expected_running = keep * slow_running + (1 - keep) * expected_running
        if step == 10:
            expected, expected_running = slow, slow_running
        lookahead.after_step(step, step / 10)
        torch.testing.assert_close(value.detach(), expected)
        torch.testing.assert_close(running, expected_running)


def test_lookahead_ends_on_its_average() -> None:
    seed_everything(0)
    model = narrow()
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, digits())
    own = net_of(model)
    assert average_of(trainer).slow.keys() == {name for name in own if "num_batches" not in name}
    assert all(torch.equal(value, own[name]) for name, value in average_of(trainer).slow.items())


def test_lookahead_goes_with_any_net_and_leaves_its_optimizer_as_it_was() -> None:
    model = ResidualCNN(image_size=16, widths=[8], lr=0.01)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=7, limit_val_batches=0, callbacks=[Lookahead(every=3)])
    trainer.fit(model, digits())
    own = nn.ModuleDict({"backbone": model.backbone, "head": model.head}).state_dict()
    assert all(torch.equal(value, own[name]) for name, value in average_of(trainer).slow.items())
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


def test_lookahead_counts_the_steps_of_the_optimizer_not_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, float]] = []
    after_step = Average.after_step

    def watched(self: Average, step: int, progress: float) -> None:
        if step > self.step:
            steps.append((step, progress))
        after_step(self, step, progress)

    monkeypatch.setattr(Average, "after_step", watched)
    model, data = narrow(), digits()
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=9, accumulate_grad_batches=2, limit_val_batches=0)
    trainer.fit(model, data)
    # An epoch has four pairs of batches and a single one, and there are two epochs.
    assert steps == [(step, step / 10) for step in range(1, 11)]
    own = net_of(model)
    assert all(torch.equal(value, own[name]) for name, value in average_of(trainer).slow.items())


def test_a_second_run_starts_its_average_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow()
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(model, digits())
    trainer.save_checkpoint("run.ckpt")
    assert torch.load("run.ckpt", weights_only=True)["callbacks"]["Lookahead"]["average"]
    trainer.test(model, digits(), ckpt_path="run.ckpt", weights_only=True, verbose=False)
    loaded: list[object] = []
    monkeypatch.setattr(Average, "load", lambda self, slow: loaded.append(slow))
    trainer.fit(model, digits())
    assert not loaded


class LeavesOutSteps(Precision):
    """Computes gradients without a step, as 16-mixed does where they are infinite."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def optimizer_step(self, optimizer: Any, model: Any, closure: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        if model.global_step + 1 in self.steps:
            return closure()
        return super().optimizer_step(optimizer, model, closure, **kwargs)


def test_a_step_that_is_left_out_keeps_its_jump() -> None:
    model = ResidualCNN(image_size=16, widths=[8], lr=0.01)
    trainer = quiet_trainer(
        max_epochs=1,
        limit_train_batches=7,
        limit_val_batches=0,
        callbacks=[Lookahead(every=3)],
        plugins=[LeavesOutSteps(3, 7)],
    )
    seen: dict[int, bool] = {}

    class Compare(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            own = net_of(model)
            slow = average_of(trainer).slow
            seen[trainer.global_step] = all(torch.equal(value, own[name]) for name, value in slow.items())

    trainer.callbacks.append(Compare())  # type: ignore[attr-defined]
    trainer.fit(model, digits())
    # It jumps at 3 and 6, and ends on the average at 7, whichever of these steps were made.
    assert [step for step, equal in seen.items() if equal] == [3, 6, 7]


def saved_average(trainer: Trainer, path: str) -> Any:
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)["callbacks"]["Lookahead"]["average"]


def test_a_net_that_is_saved_after_a_test_still_has_its_average() -> None:
    model = narrow()
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=6, limit_val_batches=0)
    trainer.fit(model, digits())
    average = saved_average(trainer, "fit.ckpt")
    trainer.test(model, digits(), verbose=False)
    after = saved_average(trainer, "test.ckpt")
    assert average.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in average.items())


def test_a_lookahead_of_the_users_wins_over_the_nets_own() -> None:
    trainer = quiet_trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=0, callbacks=[given := Lookahead(every=2)]
    )
    trainer.fit(narrow(lookahead=5), digits())
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    assert [one for one in callbacks if isinstance(one, Lookahead)] == [given]


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")
def test_an_average_of_an_earlier_version_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=6, limit_val_batches=0)
    trainer.fit(narrow(), digits())
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    checkpoint = torch.load(tmp_path / "new.ckpt", weights_only=True)
    average = checkpoint["lookahead"] = checkpoint["callbacks"].pop("Lookahead")["average"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    loaded: list[Any] = []
    monkeypatch.setattr(Average, "load", lambda self, slow: loaded.append(slow))
    further = quiet_trainer(max_epochs=2, limit_train_batches=6, limit_val_batches=0)
    further.fit(narrow(), digits(), ckpt_path=tmp_path / "old.ckpt", weights_only=True)
    (found,) = loaded
    assert all(torch.equal(value, found[name]) for name, value in average.items())
