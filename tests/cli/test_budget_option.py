"""The option ``--budget`` of ``fit``."""

import signal
from pathlib import Path

import pytest
import yaml

from pet_cifar.cli.budget_option import without_other_ends
from pet_cifar.cli.main import main
from pet_cifar.errors import RunRefusedError
from pet_cifar.training import TimeBudget
from pet_cifar.training.budget import time_budget
from tests.cli.commands import QUICK, fit, refused
from tests.cli.kills import At, kill_at

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def clock_of_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the clock of a run go a second with every look at it."""
    reading = iter(range(10**9))
    monkeypatch.setattr(TimeBudget.__init__, "__defaults__", (None, lambda: float(next(reading))))


@pytest.mark.usefixtures("clock_of_looks")
def test_a_budget_takes_the_place_of_a_configs_epochs_and_is_kept_in_its_config(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli = fit("--budget", "400s", "--trainer.limit_train_batches", "2", "--trainer.min_epochs", "1")
    assert cli.trainer.max_epochs == 1  # It was typed.
    kept = yaml.safe_load(Path("lightning_logs/digits_residual/version_0/config.yaml").read_text())
    assert kept["budget"] == "400s"
    assert "of its budget of 6 min 40 s" in capsys.readouterr().out


def test_what_is_typed_beside_a_budget_stays() -> None:
    words = ["fit", "--config", "digits_residual", "--budget", "1h", "--trainer.max_epochs=3"]
    assert set(without_other_ends(words)) == {"max_steps", "max_time", "min_epochs", "min_steps"}


@pytest.mark.parametrize("text", ["10", "0s", "soon"])
def test_a_budget_that_is_no_time_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "fit", "--config", "digits_residual", "--budget", text)
    assert "--budget" in line
    assert text in line


@pytest.mark.usefixtures("clock_of_looks")
def test_a_run_that_goes_on_has_the_time_that_is_left_of_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    stop = kill_at("on_train_batch_end", 1, 1, signal.SIGINT)
    with pytest.raises(SystemExit):
        main(["fit", *QUICK, "--budget", "400s", "--trainer.max_epochs", "3"], callbacks=[stop])
    capsys.readouterr()
    cli = main(["fit", "--resume", "lightning_logs/digits_residual", "--trainer.max_epochs", "3"])
    assert cli is not None
    assert time_budget(cli.trainer) is not None
    assert "of its budget of 6 min 40 s" in capsys.readouterr().out
    kept = yaml.safe_load(Path("lightning_logs/digits_residual/version_0/config.yaml").read_text())
    assert kept["budget"] == "400s"


def test_of_a_run_that_is_refused_after_its_first_steps_nothing_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise RunRefusedError("the budget of 10 s is shorter than one epoch; give a longer --budget")

    with pytest.raises(SystemExit) as end:
        main(["fit", *QUICK], callbacks=[At("on_train_batch_end", 0, 2, refuse)])
    assert end.value.code == 2
    told = capsys.readouterr()
    assert "--budget" in told.err
    assert "--resume" not in told.out
    assert not list(Path("lightning_logs").rglob("version_*"))


def test_fewer_epochs_than_a_run_has_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fit("--trainer.max_epochs", "3")
    capsys.readouterr()
    line = refused(capsys, "fit", "--resume", "lightning_logs/digits_residual/version_0", "--trainer.max_epochs", "2")
    assert "--trainer.max_epochs 2" in line
    assert "3 epochs" in line
