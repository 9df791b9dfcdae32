"""A loss that is no finite number ends a run at once, or is left out, and is told with its step and its files."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pet_cifar.cli.main import main
from pet_cifar.data import DigitsDataModule
from pet_cifar.data.loader import Batch
from pet_cifar.errors import InputError, NotFiniteError
from pet_cifar.models import ResidualCNN
from pet_cifar.training import loss_watch
from pet_cifar.training.loss_watch import CHECK_EVERY, LEFT_OUT_IN_A_ROW, TOLD, LossWatch
from tests.conftest import quiet_trainer

RUN = ["fit", "--config", "digits_residual", "--model.widths", "[4]", "--trainer.max_epochs", "1"]


@pytest.fixture
def third_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the loss of the third training step another one."""

    def change(value: float) -> None:
        own, steps = ResidualCNN.loss, iter(range(1000))

        def loss(self: ResidualCNN, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
            found = own(self, logits, label, weight)
            return found * value if self.training and next(steps) == 2 else found

        monkeypatch.setattr(ResidualCNN, "loss", loss)

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_it_ends_the_run_with_step_rate_and_files(
    value: float, third_is: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    third_is(value)
    with pytest.raises(SystemExit) as ended:
        main([*RUN, "--data.batch_size", "4"])
    assert ended.value.code == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(value) in line
    assert "at step 2 (epoch 0)" in line
    assert "--model.on_nan skip" in line
    data = DigitsDataModule(batch_size=4, image_size=8)
    data.prepare_data()
    data.setup("fit")
    batch = data.train_dataloader().load(0, 2)
    for row in batch.row.tolist():
        assert data.splits["train"][row].path in line


def test_the_net_has_not_learned_from_it(third_is: Callable[[float], None]) -> None:
    third_is(float("nan"))
    net = ResidualCNN(image_size=8, widths=[4])
    with pytest.raises(NotFiniteError):
        quiet_trainer(max_epochs=1).fit(net, DigitsDataModule(image_size=8))
    assert all(parameter.isfinite().all() for parameter in net.parameters())


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")  # This is how a step is left out.
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_a_step_can_be_left_out(
    optimizer: Any, third_is: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    third_is(float("nan"))
    net = ResidualCNN(image_size=8, widths=[4], on_nan="skip", optimizer=optimizer)
    trainer = quiet_trainer(max_epochs=1)
    with caplog.at_level(logging.WARNING, "pet_cifar"):
        trainer.fit(net, DigitsDataModule(image_size=8, batch_size=200))
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert trainer.callback_metrics["train/loss"].isfinite()
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert len(told) == 1
    assert "step 2 " in told[0]


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_run_that_leaves_every_step_out_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    own, steps = ResidualCNN.loss, iter(range(1000))

    def loss(self: ResidualCNN, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        found = own(self, logits, label, weight)
        return found * float("nan") if self.training and next(steps) >= 3 else found

    monkeypatch.setattr(ResidualCNN, "loss", loss)
    # An epoch has five steps, so that some have none to learn from.
    options = ["--model.on_nan", "skip", "--trainer.max_epochs", "50", "--trainer.limit_train_batches", "5"]
    with caplog.at_level(logging.WARNING, "pet_cifar"), pytest.raises(SystemExit) as caught:
        main([*RUN, *options])
    assert caught.value.code == 1
    line = next(one for one in capsys.readouterr().err.splitlines() if "error" in one)
    assert f"{LEFT_OUT_IN_A_ROW} steps in a row" in line
    assert f"step {3 + LEFT_OUT_IN_A_ROW - 1} " in line
    assert "--model.lr" in line
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert len([one for one in told if "of the files" in one]) == TOLD
    assert any("2 more steps of epoch 1 " in one for one in told)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_steps_that_are_left_out_now_and_then_do_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    own, steps = ResidualCNN.loss, iter(range(1000))

    def loss(self: ResidualCNN, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        found = own(self, logits, label, weight)
        return found if not self.training or next(steps) % LEFT_OUT_IN_A_ROW == 0 else found * float("inf")

    monkeypatch.setattr(ResidualCNN, "loss", loss)
    net = ResidualCNN(image_size=8, widths=[4], on_nan="skip")
    trainer = quiet_trainer(max_epochs=10)
    trainer.fit(net, DigitsDataModule(image_size=8, batch_size=200))
    assert trainer.current_epoch == 10


def watched_steps(losses: list[float], monkeypatch: pytest.MonkeyPatch, arrives_after: int) -> Callable[[], None]:
    """Shows a watch that many losses as a GPU would, whose copies arrive after that many questions."""
    asked = iter(range(10**6))
    monkeypatch.setattr(loss_watch, "_copy", lambda values: (values.clone(), lambda: next(asked) >= arrives_after))
    rate = {"lr": 0.5, "lr_factor": 1.0}
    trainer = SimpleNamespace(
        callbacks=[], world_size=1, optimizers=[SimpleNamespace(param_groups=[rate])], current_epoch=0, global_step=0
    )
    module: Any = SimpleNamespace(device=torch.device("cuda"), trainer=trainer, _trainer=trainer)
    watch = LossWatch("stop")
    batch = Batch(torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros(1), seed=0)

    def run() -> None:
        for step, loss in enumerate(losses):
            trainer.global_step = step
            watch.accepts(module, torch.tensor(loss), batch)
        watch.check(module)

    return run


@pytest.mark.parametrize("arrives_after", [0, 7, 1000])
@pytest.mark.parametrize("wrong", [0, CHECK_EVERY - 1, CHECK_EVERY, 3 * CHECK_EVERY + 1])
def test_a_gpu_is_not_waited_for_and_the_right_step_is_named(
    wrong: int, arrives_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [1.0] * (4 * CHECK_EVERY)
    # Later steps of a net that has learned from such a loss have it as well.
    losses[wrong:] = [float("nan")] * (len(losses) - wrong)
    with pytest.raises(NotFiniteError, match=rf"at step {wrong} .*rate of 0\.5"):
        watched_steps(losses, monkeypatch, arrives_after)()
    watched_steps([1.0] * 120, monkeypatch, arrives_after)()


def test_another_word_is_refused() -> None:
    with pytest.raises(InputError, match=r"on_nan is 'ignore'.*stop, skip"):
        ResidualCNN(on_nan="ignore")
