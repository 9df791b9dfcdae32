"""Runs with several seeds: what is missing is made, what is there counts, and what fails is told."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from pet_cifar.cli import repeat
from pet_cifar.cli.found_runs import FoundRun, differences, whole_config
from pet_cifar.cli.main import main
from pet_cifar.cli.processes import Processes
from tests.cli.commands import QUICK, refused, status_of

REPEAT = ("repeat", "--config", "digits_residual", "--seeds")
FURTHER = ("--", *QUICK[2:])
RUNS = Path("lightning_logs/digits_residual")

pytestmark = pytest.mark.filterwarnings("ignore")  # What runs warn of is held by their own tests.


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run, which happens in this process."""
    made: list[list[str]] = []

    def run(
        self: Processes,
        words: Sequence[str],
        log: Path,
        device: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> int:
        made.append(list(words))
        with log.open("a") as file:
            file.write(f"{words}\n")
        return status_of(*words)

    monkeypatch.setattr(Processes, "run", run)
    return made


def made_by(commands: list[list[str]]) -> list[str]:
    """The verbs of the commands, with the seed of a fit and whether it tests."""

    def told(verb: str, *words: str) -> str:
        if verb != "fit":
            return verb
        return f"fit {words[words.index('--seed_everything') + 1]}{' and test' if '--test' in words else ''}"

    return [told(*words) for words in commands]


def test_only_what_is_missing_is_made(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(*REPEAT, "2", *FURTHER) == 0
    assert made_by(commands) == ["fit 0 and test", "fit 1 and test"]
    told = capsys.readouterr().out
    assert "digits_residual, seed 1: test accuracy" in told
    assert re.search(r"^digits_residual +2 +180 ", told, re.MULTILINE), "the two are compared"

    # A test that is missing is made, and a run that was cut off begins again.
    commands.clear()
    shutil.rmtree(RUNS / "version_0" / "test")
    shutil.rmtree(RUNS / "version_1" / "test")
    shutil.rmtree(RUNS / "version_1" / "checkpoints")
    assert status_of(*REPEAT, "2", *FURTHER) == 0
    assert made_by(commands) == ["test", "fit 1 and test"]
    assert re.search(r"^digits_residual +2 +180 ", capsys.readouterr().out, re.MULTILINE)

    # A damaged checkpoint is none, and other options are another run.
    commands.clear()
    shutil.rmtree(RUNS / "version_0" / "test")
    (RUNS / "version_0" / "checkpoints" / "last.ckpt").write_bytes(b"half of it")
    assert status_of(*REPEAT, "1", *FURTHER) == 0
    assert status_of(*REPEAT, "1", *FURTHER, "--model.lr", "0.003") == 0
    assert made_by(commands) == ["fit 0 and test", "fit 0 and test"]


def test_a_run_goes_on_on_as_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished = FoundRun(RUNS / "version_0", has_checkpoint=True, is_trained=False, is_tested=False)
    monkeypatch.setattr("pet_cifar.cli.found_runs.find_runs", lambda wanted: [unfinished])
    made: list[list[str]] = []

    def run(self: Processes, words: Sequence[str], log: Path, *_: object) -> int:
        made.append(list(words))
        log.write_text("pet-cifar: error: it fails\n")
        return 1

    monkeypatch.setattr(Processes, "run", run)
    spread = ("--trainer.devices", "2", "--trainer.strategy", "ddp")
    for processes in (spread, ()):
        assert status_of(*REPEAT, "1", *FURTHER, *processes) == 1
    # A run of several processes is tested by another one.
    assert made == [["fit", "--resume", str(RUNS / "version_0"), *words] for words in (spread, ["--test"])]


def test_a_run_that_fails_stops_no_other(
    commands: list[list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = yaml.safe_load(Path(main_config()).read_text())
    config["model"]["init_args"]["widths"] = [0]
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump(config))
    narrow = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    words = ["repeat", "--config", str(bad), "digits_residual", "--seeds", "1", "--", *narrow]
    assert status_of(*words) == 1
    told = capsys.readouterr().out
    assert "failed: bad, seed 0: " in told
    assert "seed_0.log" in told
    assert re.search(r"^digits_residual +1 +180 ", told, re.MULTILINE)
    assert made_by(commands)[1:] == ["fit 0 and test"]


def main_config() -> str:
    from pet_cifar.cli.config_files import shipped_configs

    return str(shipped_configs()["digits_residual"])


def test_the_comparison_ends_it(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[list[Path]] = []

    def compare(runs: Sequence[Path]) -> int:
        compared.append(list(runs))
        return 3

    monkeypatch.setattr(repeat, "compare", compare)
    assert status_of(*REPEAT, "1", *FURTHER) == 3
    assert compared == [[RUNS / "version_0"]]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds", "0"], ["--seeds", "0"]),
        (["--budget", "10"], ["--budget", "10", "10min"]),
        (["--", "--seed_everything", "1"], ["--seed_everything", "--seeds"]),
        (["--", "--ckpt_path", "x.ckpt"], ["--ckpt_path"]),
        (["--", "--budget", "1h"], ["--budget"]),
        (["--", "--model.lrr", "1"], ["--model.lrr", "lr"]),
        (["--sedes", "3"], ["--sedes", "--seeds"]),
        (["--trainer.max_epochs", "3"], ["--trainer.max_epochs", " -- "]),
        (["--model.lr=1"], ["--model.lr", " -- "]),
        (["--seed_everything", "3"], ["--seed_everything", "--seeds"]),
    ],
)
def test_a_wrong_option_is_refused_before_a_run_begins(
    words: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "repeat", "--config", "digits_residual", *words)
    assert all(word in line for word in told)
    assert not Path("lightning_logs").exists()


def test_two_configs_of_one_name_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "digits_residual.yaml"
    shutil.copy(main_config(), other)
    line = refused(capsys, "repeat", "--config", "digits_residual", str(other))
    assert str(other) in line


def test_a_whole_config_is_the_one_that_a_run_keeps() -> None:
    words = ["--config", "digits_residual", *QUICK[2:], "--trainer.callbacks+", "EarlyStopping"]
    words += ["--trainer.callbacks.monitor", "val/loss"]
    main(["fit", *words, "--seed_everything", "7"])
    kept = yaml.safe_load((RUNS / "version_0" / "config.yaml").read_text())
    assert differences(kept, whole_config(words)) == []
    assert differences(kept, whole_config([*words, "--model.lr", "0.1"])) == ["model.init_args.lr"]
