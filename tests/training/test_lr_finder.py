"""A search for the learning rate, and what becomes of it where a run goes on."""

from typing import Any

import pytest
from lightning import Callback, Trainer

from pet_cifar.callbacks import ProgressBar
from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError
from pet_cifar.models import ResidualCNN
from pet_cifar.training import LRFinder
from tests.conftest import quiet_trainer


def net(lr: float) -> ResidualCNN:
    return ResidualCNN(image_size=8, widths=[8, 8], lr=lr, optimizer="sgd", schedule="constant", warmup_fraction=0)


def fit(model: ResidualCNN, *callbacks: Callback, epochs: int = 3, path: str | None = None, **options: Any) -> Trainer:
    options = {"limit_train_batches": 7, "limit_val_batches": 0, **options}
    trainer = quiet_trainer(max_epochs=epochs, callbacks=list(callbacks), **options)
    trainer.fit(model, DigitsDataModule(image_size=8, batch_size=32), ckpt_path=path, weights_only=True)
    return trainer


def finder() -> LRFinder:
    return LRFinder(num_training_steps=20)


def rates(trainer: Trainer) -> set[float]:
    return {group["lr"] for group in trainer.optimizers[0].param_groups}


def test_a_run_that_goes_on_takes_the_rate_that_was_found_unless_it_asks_for_another() -> None:
    first = net(1e-7)
    trainer = fit(first, finder())
    found = first.lr
    assert found > 1e-6
    # The search's own checkpoint is gone.
    assert trainer.ckpt_path is None
    trainer.save_checkpoint("searched.ckpt")
    same, other = net(1e-7), net(0.5)
    assert rates(fit(same, finder(), epochs=4, path="searched.ckpt")) == {found}
    assert same.lr == same.hparams["lr"] == found
    assert rates(fit(other, finder(), epochs=4, path="searched.ckpt")) == {0.5}


def test_a_checkpoint_without_a_search_keeps_its_rate_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    fit(net(0.01)).save_checkpoint("plain.ckpt")
    again = net(0.01)
    fit(again, finder(), epochs=4, path="plain.ckpt")
    assert again.lr == 0.01
    assert "the checkpoint holds no rate that LRFinder has found; the run goes on at its own lr" in caplog.messages


def test_steps_of_several_batches_are_searched() -> None:
    """Seven batches make four steps, of which Lightning notes the rates of three."""
    one = net(1e-7)
    fit(one, finder(), epochs=6, accumulate_grad_batches=2)
    assert one.lr > 1e-6


def test_a_fast_dev_run_searches_nothing() -> None:
    one = net(0.01)
    with pytest.warns(UserWarning, match="Skipping learning rate finder"):
        fit(one, finder(), fast_dev_run=True)
    assert one.lr == 0.01


def test_no_bar_is_drawn_in_a_log_after_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    fit(net(0.01), bar, finder(), enable_progress_bar=True)
    assert bar.is_disabled
    assert "Epoch 0" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_lr": 0.0}, "min_lr is 0.0"),
        ({"max_lr": float("inf")}, "max_lr inf"),
        ({"num_training_steps": 10}, "at least 20"),
        ({"early_stop_threshold": 1.0}, "early_stop_threshold is 1.0"),
    ],
)
def test_a_wrong_search_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LRFinder(**options)
