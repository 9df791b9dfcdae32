"""What goes wrong while a command runs is told in one line, and nothing is lost."""

import math
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from pet_cifar.cli import defaults
from pet_cifar.cli.failures import refusal_of_run
from pet_cifar.cli.main import main
from pet_cifar.data.root import state_directory
from pet_cifar.errors import InputError, RunRefusedError
from pet_cifar.models import ResidualCNN
from tests.cli.commands import QUICK, fit, refused
from tests.cli.kills import At
from tests.conftest import write_cats_dogs

PETS = ["fit", "--data", "CatsDogsDataModule", "--data.image_size", "16", "--data.cache", "none"]
NET = ["--model", "ResidualCNN", "--model.widths", "[4]", "--trainer.max_epochs", "2", "--data.batch_size", "4"]


class Raises(Callback):
    """Raises an error in the second epoch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise self.error


def refused_with(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["fit", *QUICK, "--trainer.max_epochs", "2"], callbacks=[Raises(error)])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("pet-cifar: error: ")
    return lines[-1]


# Places that cannot be written to. Permissions do not stop root, so that something is in the way instead.


@pytest.mark.parametrize("in_the_way", ["a file", "a link to nothing", "a link to itself"])
def test_lightning_logs_is_no_directory(in_the_way: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs = Path("lightning_logs")
    if in_the_way == "a file":
        logs.write_text("mine")
    else:
        logs.symlink_to("nowhere/at/all" if in_the_way == "a link to nothing" else "lightning_logs")
    message = refused(capsys, "fit", *QUICK)
    assert "lightning_logs" in message
    assert "--trainer.default_root_dir" in message
    assert logs.is_symlink() or logs.read_text() == "mine"
    assert fit("--trainer.default_root_dir", "elsewhere").trainer.log_dir == (
        "elsewhere/lightning_logs/digits_residual/version_0"
    )


def test_a_cache_directory_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.pet_cifar").write_text("in the way")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file/cache"))
    with pytest.raises(InputError, match="XDG_CACHE_HOME") as caught:
        state_directory(tmp_path / "data")
    assert str(tmp_path / "file") in str(caught.value)


def test_a_colleagues_run_is_tested_into_ones_own_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit("--trainer.default_root_dir", str(tmp_path))
    theirs = tmp_path / "lightning_logs/digits_residual/version_0"
    before = sorted(path for path in theirs.rglob("*"))
    monkeypatch.setattr(defaults, "is_writable", lambda folder: False)
    assert main(["test", "--run", str(theirs)]) is not None
    assert sorted(theirs.rglob("*")) == before
    assert Path("lightning_logs/digits_residual/version_0/test/metrics.json").is_file()
    assert str(theirs) in caplog.text


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused_with(OSError(28, "No space left on device", "somewhere/metrics.csv"), capsys)
    assert "somewhere/metrics.csv" in message
    assert "No space left" in message
    last = Path("lightning_logs/digits_residual/version_0/checkpoints/last.ckpt")
    assert main(["fit", "--ckpt_path", str(last)]) is not None


# Memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
        MemoryError(),
    ],
)
def test_too_little_memory_names_the_options(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused_with(error, capsys)
    assert "--data.batch_size" in message
    assert "--data.image_size" in message


def test_an_error_of_our_own_stays_an_error() -> None:
    assert refusal_of_run(RuntimeError("a defect"), {}) is None
    with pytest.raises(RuntimeError, match="a defect"):
        main(["fit", *QUICK, "--trainer.max_epochs", "2"], callbacks=[Raises(RuntimeError("a defect"))])


# Pictures


@pytest.mark.parametrize("change", ["removed", "overwritten"])
def test_a_picture_that_vanishes_while_training_is_named(
    tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pets = write_cats_dogs(tmp_path) / "PetImages"

    class Spoils(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                for path in pets.glob("Cat/*.jpg"):
                    path.unlink() if change == "removed" else path.write_bytes(b"no picture")

    with pytest.raises(SystemExit) as caught:
        main([*PETS, "--data.root", str(tmp_path), *NET], callbacks=[Spoils()])
    assert caught.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(pets / "Cat") in message
    assert list(Path("lightning_logs").rglob("last.ckpt"))


# Callbacks without their package


def test_a_callback_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = __import__("importlib.util").util.find_spec
    module = "pet_cifar.callbacks.images.grad_cam.find_spec"
    monkeypatch.setattr(module, lambda name: None if name == "captum" else find_spec(name))
    message = refused(capsys, "fit", *QUICK, "--trainer.callbacks+", "GradCAM")
    assert "pet_cifar[gradcam]" in message


def test_a_value_that_a_callback_of_the_users_does_not_log_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*QUICK, "--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/mine"]
    with pytest.raises(SystemExit) as caught:
        main(["fit", *words], callbacks=[Raises(RuntimeError())])
    assert caught.value.code == 2
    assert "--trainer.callbacks.monitor val/mine" in capsys.readouterr().err


# Terminals and pipes


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_terminal_without_a_names_letters_shows_escapes(tmp_path: Path) -> None:
    pets = write_cats_dogs(tmp_path) / "PetImages"
    (pets / "Cat/猫.jpg").touch()
    words = f"data check --data CatsDogsDataModule --data.root '{tmp_path}'"
    done = shell(f"$PYTHON -m pet_cifar {words}", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\u732b.jpg" in done.stdout


def test_a_reader_that_ends_early_ends_the_command_quietly() -> None:
    done = shell("$PYTHON -m pet_cifar --help | head -1; exit ${PIPESTATUS[0]}")
    assert done.stdout == "usage: pet-cifar COMMAND [OPTION ...]\n"
    assert done.returncode in (0, 141)
    assert not done.stderr


# Commands to copy


def test_commands_to_copy_are_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    fit("--trainer.default_root_dir", "my runs")
    output = capsys.readouterr().out
    assert "pet-cifar test --run 'my runs/lightning_logs/digits_residual/version_0'" in output
    main(["test", "--run", "my runs/lightning_logs/digits_residual"])
    assert "pet-cifar board 'my runs/lightning_logs/digits_residual/version_0'" in capsys.readouterr().out


def test_the_command_after_an_interruption_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    raises: Any = Raises(RuntimeError("a defect"))
    with pytest.raises(RuntimeError):
        main(["fit", *QUICK, "--trainer.max_epochs", "2", "--trainer.default_root_dir", "my $runs"], callbacks=[raises])
    path = "'my $runs/lightning_logs/digits_residual/version_0'"
    assert f"pet-cifar fit --resume {path}" in capsys.readouterr().out


# What a run that fails leaves.


class RaisesAt(Callback):
    """Raises an error in the first call of a hook."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self._raise)

    def _raise(self, *args: Any, **kwargs: Any) -> None:
        raise InputError("this cannot go on")


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start", "on_train_batch_start"])
def test_an_early_failure_leaves_no_directory(hook: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *QUICK], callbacks=[RaisesAt(hook)])
    assert "this cannot go on" in capsys.readouterr().err
    assert not list(Path("lightning_logs/digits_residual").iterdir())
    # A run that was there before stays, also where its name was taken meanwhile.
    assert fit().trainer.log_dir == "lightning_logs/digits_residual/version_0"
    with pytest.raises(SystemExit):
        main(["fit", *QUICK], callbacks=[RaisesAt(hook)])
    assert [path.name for path in Path("lightning_logs/digits_residual").iterdir()] == ["version_0"]


def test_a_failure_after_the_first_step_leaves_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *QUICK], callbacks=[RaisesAt("on_train_batch_end")])
    run = Path("lightning_logs/digits_residual/version_0")
    assert f"go on with: pet-cifar fit --resume {run}" in capsys.readouterr().out
    assert (run / "checkpoints/last.ckpt").is_file()


STOPPED = Path("lightning_logs/digits_residual/version_0")


@pytest.mark.parametrize(
    ("damaged", "options", "told"),
    [
        ("metrics.csv", [], "metrics.csv"),
        ("events", [], "is shorter"),
        (None, ["--trainer.max_epochs", "1"], "--trainer.max_epochs 1"),
        (None, ["--model.widths", "[16]"], "widths"),
        (None, ["--data.split_seed", "9"], "split_seed"),
    ],
)
def test_a_run_that_is_refused_is_not_told_to_go_on_in_the_same_way(
    damaged: str | None, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--trainer.max_epochs", "2")
    for path in STOPPED.glob(f"*{damaged}*"):
        path.write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--resume", str(STOPPED), "--trainer.max_epochs", "3", *options])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert "go on with" not in captured.out


@pytest.mark.parametrize("step", [4, 6], ids=["the first step of the new process", "a later step"])
def test_after_a_loss_that_is_not_finite_another_rate_is_named(
    step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("--model.lr", "0.004")
    own = ResidualCNN.loss

    def loss(self: ResidualCNN, *args: Any) -> Any:
        found = own(self, *args)
        return found * math.nan if self.training and self.lr > 0.001 and self.trainer.global_step >= step else found

    monkeypatch.setattr(ResidualCNN, "loss", loss)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--resume", str(STOPPED), "--trainer.max_epochs", "2"])
    assert ended.value.code == 1
    captured = capsys.readouterr()
    assert "--model.on_nan skip" in captured.err
    (how,) = [line for line in captured.out.splitlines() if line.startswith("go on with: ")]
    words = shlex.split(how.removeprefix("go on with: pet-cifar "))
    assert words == ["fit", "--resume", str(STOPPED), "--model.lr", "0.0004"]
    main([*words, "--trainer.max_epochs", "2"])
    assert "test it with" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("process 1 of 2 has failed: the training loss is nan; or --model.on_nan skip"), ["--model.lr"]),
        (RunRefusedError("the budget of 10 s is shorter than one epoch"), None),
        (InputError("cannot write last.ckpt: No space left on device"), []),
        (MemoryError(), ["--data.batch_size"]),
        (InputError("process 1 of 2 has failed: there is not enough memory for a step"), ["--data.batch_size"]),
    ],
)
def test_how_a_run_goes_on_that_others_or_a_budget_have_ended(
    error: Exception, told: list[str] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    fit()

    def fail() -> None:
        raise error

    with pytest.raises(SystemExit):
        main(
            ["fit", "--resume", str(STOPPED), "--trainer.max_epochs", "2"],
            callbacks=[At("on_train_batch_end", 1, 2, fail)],
        )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("go on with: ")]
    assert len(lines) == (told is not None)
    if told is not None:
        assert shlex.split(lines[0])[7:8] == told


@pytest.mark.parametrize("step", [4, 6], ids=["the first step of the new process", "a later step"])
def test_after_a_step_that_lacks_memory_smaller_batches_are_named(
    step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = fit().datamodule.batch_size
    own = ResidualCNN.loss

    def loss(self: ResidualCNN, logits: torch.Tensor, *args: Any) -> Any:
        if self.training and len(logits) == size and self.trainer.global_step >= step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return own(self, logits, *args)

    monkeypatch.setattr(ResidualCNN, "loss", loss)
    with pytest.raises(SystemExit):
        main(["fit", "--resume", str(STOPPED), "--trainer.max_epochs", "2"])
    (how,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("go on with: ")]
    words = shlex.split(how.removeprefix("go on with: pet-cifar "))
    assert words == ["fit", "--resume", str(STOPPED), "--data.batch_size", str(size // 2)]
    main([*words, "--trainer.max_epochs", "2"])
    assert "test it with" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_an_optimizer_with_a_rate_of_its_own_leaves_such_steps_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ResidualCNN.loss

    def loss(self: ResidualCNN, *args: Any) -> Any:
        return own(self, *args) * (math.nan if self.training and self.trainer.global_step == 2 else 1)

    monkeypatch.setattr(ResidualCNN, "loss", loss)
    with pytest.raises(SystemExit):
        fit("--optimizer", "SGD", "--optimizer.lr", "0.01")
    assert f"go on with: pet-cifar fit --resume {STOPPED} --model.on_nan skip" in capsys.readouterr().out
