"""``fit --test`` leaves what ``fit`` and ``test --run`` leave, and refuses at once what it could not test."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pet_cifar.cli import sweep_trial
from pet_cifar.cli.main import main
from tests.cli.commands import fit, refused

RUNS = Path("lightning_logs/digits_residual")

pytestmark = pytest.mark.filterwarnings("ignore")  # What runs warn of is held by their own tests.


def results(run: Path) -> dict[str, str]:
    """The files that a test has written, without the one that says when."""
    return {path.name: path.read_text() for path in (run / "test").iterdir() if path.name != "scored.json"}


def test_it_leaves_what_two_commands_leave(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    main(["test", "--run", str(RUNS / "version_0")])
    apart = capsys.readouterr().out
    cli = fit("--test")
    together = capsys.readouterr().out
    assert Path(str(cli.trainer.log_dir)) == RUNS / "version_1"
    assert results(RUNS / "version_1") == results(RUNS / "version_0")
    assert len(list(RUNS.iterdir())) == 2
    assert "test it with: " in apart
    assert "test it with: " not in together
    assert [line for line in together.splitlines() if line.startswith("test accuracy: ")] == [
        line for line in apart.splitlines() if line.startswith("test accuracy: ")
    ]
    # Whoever makes the run again from its config is asked anew whether to test.
    assert "test" not in yaml.safe_load((RUNS / "version_1" / "config.yaml").read_text())


def test_a_run_that_goes_on_is_tested_too() -> None:
    fit()
    run = RUNS / "version_0"
    main(["fit", "--resume", str(run), "--trainer.max_epochs", "2", "--test"])
    assert "test/acc" in json.loads((run / "test" / "metrics.json").read_text())


@pytest.mark.parametrize(
    "options", [["--trainer.fast_dev_run", "true"], ["--trainer.logger", "false"], ["--trainer.barebones", "true"]]
)
def test_what_keeps_no_checkpoint_is_refused_before_training(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "fit", "--config", "digits_residual", "--test", *options)
    assert "--test" in line
    assert options[0] in line
    assert not RUNS.exists()


def test_trials_of_a_sweep_see_no_test(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment = sweep_trial.environment_of("sqlite:///study.db", "study", 0)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    line = refused(capsys, "fit", "--config", "digits_residual", "--test")
    assert "--test" in line
    assert "sweep" in line


def test_several_processes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    several = ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    line = refused(capsys, "fit", "--config", "digits_residual", "--test", *several)
    assert "--test: the run has 2 processes" in line
    assert "test --run" in line


def test_other_verbs_have_no_such_option(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    assert "--test" in refused(capsys, "test", "--run", str(RUNS / "version_0"), "--test")


def test_a_requeued_job_makes_the_test_that_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    fit("--test")
    made = results(RUNS / "version_0")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(SystemExit) as nothing_left:
        fit("--test")
    assert nothing_left.value.code == 0
    shutil.rmtree(RUNS / "version_0" / "test")
    fit("--test")
    assert results(RUNS / "version_0") == made
    assert len(list(RUNS.iterdir())) == 1
