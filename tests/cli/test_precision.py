"""``--trainer.precision auto`` becomes what the hardware computes natively, and stays that for the whole run."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from pet_cifar.callbacks.experiment import key_of, options_of
from pet_cifar.cli import precision
from pet_cifar.cli.found_runs import WantedRun, differences, find_runs, whole_config
from pet_cifar.cli.main import main
from pet_cifar.cli.trainer import PetCifarCLI
from tests.cli.commands import QUICK

AUTO = ("--trainer.precision", "auto")
QUIET = ("--trainer.enable_progress_bar", "false")


def set_native(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """Makes this machine one whose native precision is ``word``."""
    monkeypatch.setattr(precision, "native_precision", lambda accelerator: word)


def done(*words: str) -> PetCifarCLI:
    cli = main([*words, *QUIET])
    assert cli is not None
    return cli


def test_a_run_keeps_what_auto_became(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": {"precision": "auto"}}))
    words = [*QUICK, "--config", "own.yaml", *QUIET]
    set_native(monkeypatch, "bf16-mixed")

    fitted = done("fit", *words)

    assert fitted.trainer.precision == "bf16-mixed"
    printed = capsys.readouterr().out
    assert "precision: bf16-mixed" in printed
    assert "overridden: --trainer.precision" not in printed
    run = Path(fitted.trainer.log_dir or "")
    last = run / "checkpoints" / "last.ckpt"
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == "bf16-mixed"
    assert yaml.safe_load(torch.load(last, weights_only=True)["config"])["trainer"]["precision"] == "bf16-mixed"
    assert json.loads((run / "run.json").read_text())["environment"]["precision"] == "bf16-mixed"
    wanted = WantedRun(run.parent.name, words, whole_config(words), 0)
    assert wanted.config["trainer"]["precision"] == "bf16-mixed"
    assert [found.folder for found in find_runs(wanted)] == [run]

    # The run now goes on where bfloat16 is not native.
    set_native(monkeypatch, "32-true")
    more = ("--trainer.max_epochs", "2")
    assert done("fit", "--ckpt_path", str(last), *words, *more).trainer.precision == "bf16-mixed"
    assert done("fit", "--resume", str(run), *more).trainer.precision == "bf16-mixed"
    assert done("test", "--run", str(run)).trainer.precision == "bf16-mixed"
    assert done("test", "--run", str(run), *AUTO).trainer.precision == "bf16-mixed"
    capsys.readouterr()
    typed = done("validate", "--run", str(run), "--trainer.precision", "32-true")
    assert typed.trainer.precision == "32-true"
    assert "overridden: --trainer.precision bf16-mixed -> 32-true" in capsys.readouterr().out
    # Another run is another experiment there.
    assert not find_runs(WantedRun(run.parent.name, words, whole_config(words), 0))


def test_a_run_without_a_word_goes_on_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    set_native(monkeypatch, "bf16-mixed")
    fitted = done("fit", *QUICK)
    assert fitted.trainer.precision == "32-true"
    more = ("--trainer.max_epochs", "2", *AUTO)
    assert done("fit", "--resume", str(fitted.trainer.log_dir), *more).trainer.precision == "32-true"


def test_a_typed_word_wins_over_a_configs_auto(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_native(monkeypatch, "bf16-mixed")
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": {"precision": "auto"}}))
    words = [*QUICK, "--config", "own.yaml", "--trainer.precision", "32-true", "--trainer.fast_dev_run", "true"]
    assert done("fit", *words).trainer.precision == "32-true"
    assert "overridden: --trainer.precision auto -> 32-true" in capsys.readouterr().out


def test_only_a_precision_that_every_machine_has_is_taken_from_a_checkpoint() -> None:
    fitted = done("fit", *QUICK, "--trainer.precision", "64-true")
    assert done("test", "--run", str(fitted.trainer.log_dir)).trainer.precision == "32-true"


def test_float32_is_the_experiment_of_a_run_that_says_nothing() -> None:
    null, full, half = ({"trainer": {"precision": word, "max_epochs": 3}} for word in (None, "32-true", "bf16-mixed"))
    assert differences(null, full) == []
    assert key_of(options_of(null)) == key_of(options_of(full))
    assert differences(full, half) == ["trainer.precision"]
    assert key_of(options_of(full)) != key_of(options_of(half))
