"""What the user gives for a callback wins over what a checkpoint holds, and two of a kind are told apart."""

from pathlib import Path

import pytest
from lightning import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer

from pet_cifar.cli import callback_options
from pet_cifar.cli.main import main
from pet_cifar.cli.trainer import PetCifarCLI
from tests.cli.commands import fit

LAST = "lightning_logs/digits_residual/version_0/checkpoints/last.ckpt"
STOP_EARLY = ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]


def go_on(*options: str) -> PetCifarCLI:
    cli = main(["fit", "--ckpt_path", LAST, "--trainer.max_epochs", "2", *options])
    assert cli is not None
    return cli


def early_stopping(cli: PetCifarCLI) -> EarlyStopping:
    callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
    (found,) = (one for one in callbacks if isinstance(one, EarlyStopping))
    return found


@pytest.mark.parametrize("again", [[], STOP_EARLY], ids=["changed", "given again"])
def test_another_patience_wins_over_the_checkpoints(again: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    first = early_stopping(fit(*STOP_EARLY, "--trainer.callbacks.patience", "1"))
    capsys.readouterr()
    stopping = early_stopping(go_on(*again, "--trainer.callbacks.patience", "9"))
    assert stopping.patience == 9
    assert stopping.best_score <= first.best_score, "what it has seen is kept"
    assert "overridden: --trainer.callbacks.patience 1 -> 9 (EarlyStopping)" in capsys.readouterr().out


def test_a_callback_that_is_left_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    fit(*STOP_EARLY)
    capsys.readouterr()
    go_on("--trainer.callbacks", "[]")
    assert "overridden: --trainer.callbacks EarlyStopping -> none" in capsys.readouterr().out


def test_a_run_that_goes_on_unchanged_prints_no_callback_as_overridden(capsys: pytest.CaptureFixture[str]) -> None:
    fit(*STOP_EARLY, "--trainer.callbacks+", "Board", "--trainer.callbacks.max_megabytes", "3")
    capsys.readouterr()
    go_on()
    assert "--trainer.callbacks" not in capsys.readouterr().out


def test_a_second_checkpoint_of_the_same_value_stands_beside_the_best() -> None:
    cli = fit(
        *("--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.monitor", "val/acc"),
        *("--trainer.callbacks.mode", "max", "--trainer.callbacks.save_top_k", "3"),
    )
    names = {path.name for path in Path(str(cli.trainer.log_dir), "checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "previous.ckpt", "epoch=0-step=4.ckpt"}
    assert go_on().trainer.global_step == 8


def test_a_run_that_has_used_up_its_time_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    fit("--trainer.max_time", "00:00:30:00")
    capsys.readouterr()
    cli = go_on("--trainer.max_time", "00:00:00:00")
    callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
    assert any(isinstance(one, Timer) for one in callbacks)
    assert cli.trainer.global_step == 4
    output = capsys.readouterr().out
    assert "raise --trainer.max_time" in output


def test_a_run_that_has_made_its_steps_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    fit("--trainer.max_steps", "4")
    capsys.readouterr()
    go_on()
    assert "raise --trainer.max_steps" in capsys.readouterr().out


def test_of_callbacks_with_one_state_the_later_counts() -> None:
    def of(name: str, **arguments: object) -> dict[str, object]:
        return {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}

    older, newer = of("EarlyStopping", monitor="val/loss"), of("EarlyStopping", monitor="val/loss", patience=9)
    other = of("EarlyStopping", monitor="val/acc", mode="max")
    timer = of("Timer", duration="00:00:10:00")
    assert callback_options.without_repeats([older, other, timer, newer]) == [other, timer, newer]


def test_callbacks_that_keep_nothing_may_be_two_of_a_kind() -> None:
    callback_options.refuse_same_state([Callback(), Callback(), ModelCheckpoint(), ModelCheckpoint(monitor="val/acc")])
