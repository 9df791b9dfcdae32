"""The option ``--budget`` of ``fit``."""

from pathlib import Path

import pytest
import yaml

from pet_cifar.cli.budget_option import without_other_ends
from pet_cifar.training import TimeBudget
from tests.cli.commands import fit, refused

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_budget_takes_the_place_of_a_configs_epochs_and_is_kept_in_its_config(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock of the run goes a second with every look at it.
    reading = iter(range(10**9))
    monkeypatch.setattr(TimeBudget.__init__, "__defaults__", (None, lambda: float(next(reading))))
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
