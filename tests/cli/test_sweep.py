"""A sweep: its study, its trials, and what proves the winner."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning import Trainer

from pet_cifar.cli import repeat
from pet_cifar.cli.processes import Processes
from pet_cifar.cli.study import open_storage, open_study
from pet_cifar.cli.sweep import run_sweep
from pet_cifar.cli.sweep_trial import ENVIRONMENT, ReportTrial, environment_of, trial_callbacks
from pet_cifar.data import DigitsDataModule
from pet_cifar.errors import InputError
from pet_cifar.models import ResidualCNN
from tests.cli.commands import refused, status_of
from tests.conftest import quiet_trainer

optuna = pytest.importorskip("optuna")

pytestmark = pytest.mark.filterwarnings("ignore")  # Optuna calls its heartbeat experimental.

SWEEP = """
config: digits_residual
ranges:
  model.lr: {low: 1e-3, high: 1e-1, log: true}
  model.optimizer: [adamw, sgd]
fixed: {model.widths: [4], trainer.max_epochs: 2, trainer.limit_train_batches: 3}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lr.yaml"
    path.write_text(SWEEP)
    return path


class Trials:
    """Stands in for the processes of trials: each reports what is planned for it.

    Attributes:
        planned: For each trial the accuracies that it reports; None fails.
        commands: The commands that were run.
    """

    def __init__(self, planned: Sequence[Sequence[float] | None]) -> None:
        self.planned = list(planned)
        self.commands: list[list[str]] = []

    def run(
        self, words: Sequence[str], log: Path, device: str | None = None, extra: Mapping[str, str] | None = None
    ) -> int:
        self.commands.append(list(words))
        accuracies = self.planned.pop(0)
        log.write_text("pet-cifar: error: the net is too wide\n")
        if accuracies is None:
            return 2
        known = json.loads((extra or {})[ENVIRONMENT])
        study = optuna.load_study(study_name=known["study"], storage=known["url"])
        trial = optuna.Trial(study, known["trial_id"])
        trial.set_user_attr("run", f"runs/version_{trial.number}")
        for epoch, accuracy in enumerate(accuracies):
            trial.report(accuracy, epoch)
        if len(accuracies) == 1:
            trial.set_user_attr("pruned", True)
        return 0


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    stand_in = Trials([])
    monkeypatch.setattr(Processes, "run", lambda self, *args, **kwargs: stand_in.run(*args, **kwargs))
    return stand_in


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The runs with which a winner is proved; none is made."""
    made: list[Any] = []

    def keep(wanted: Sequence[Any]) -> int:
        made.extend(wanted)
        return 0

    monkeypatch.setattr(repeat, "make_and_compare", keep)
    return made


def test_the_best_trial_is_proved_on_fresh_seeds(
    file: Path, trials: Trials, proved: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    trials.planned = [[0.5, 0.6], [0.4, 0.9, 0.8], None, [0.99], [0.7, 0.7]]
    assert run_sweep(["--config", str(file), "--trials", "5", "--seeds", "2"]) == 0
    told = capsys.readouterr().out
    assert "trial 3 of 5: failed" in told
    assert "the net is too wide" in told
    assert "ended early" in told
    assert "best of 5 trials: val/acc 90.00%" in told  # What was ended early does not win.
    assert "runs/version_1" in told
    # The config's own values come first, and every trial has the fixed options.
    first = trials.commands[0]
    assert first[first.index("--model.lr") + 1] == "0.005"
    assert first[first.index("--model.optimizer") + 1] == "adamw"
    assert all("--trainer.max_epochs" in words for words in trials.commands)
    # Both run on the same seeds, none of which the trials had.
    assert [(run.name, run.seed) for run in proved] == [
        ("own_values", 1),
        ("winner", 1),
        ("own_values", 2),
        ("winner", 2),
    ]
    winner, own = (yaml.safe_load(Path(f"sweeps/lr/{name}.yaml").read_text()) for name in ("winner", "own_values"))
    second = trials.commands[1]
    assert str(winner["model"]["init_args"]["lr"]) == second[second.index("--model.lr") + 1]
    assert own["model"]["init_args"]["lr"] == 0.005
    assert own["trainer"]["max_epochs"] == winner["trainer"]["max_epochs"] == 2


def test_a_sweep_that_goes_on_makes_what_is_missing(file: Path, trials: Trials, proved: list[Any]) -> None:
    words = ["--config", str(file), "--seeds", "0", "--trials"]
    trials.planned = [[0.5, 0.6], [0.6, 0.7], [0.1, 0.2]]
    run_sweep([*words, "2"])
    run_sweep([*words, "2"])
    run_sweep([*words, "3"])
    assert len(trials.commands) == 3
    assert proved == []


def test_a_trial_of_a_stranger_with_another_option_is_refused(
    file: Path, trials: Trials, proved: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(file), "--seeds", "1", "--trials"]
    trials.planned = [[0.5, 0.6]]
    run_sweep([*words, "1"])
    study = optuna.load_study(study_name="lr", storage="sqlite:///sweeps/lr/study.db")
    study.set_user_attr("\x1b]0;owned\x07", 1)
    own = study.trials[0]
    choices = optuna.distributions.CategoricalDistribution(["evil_module.Net"])
    study.add_trial(
        optuna.trial.create_trial(
            params={**own.params, "model": "evil_module.Net"},
            distributions={**own.distributions, "model": choices},
            value=0.99,
            user_attrs={"run": "\x1b[31mred"},
        )
    )
    made = len(proved)
    with pytest.raises(InputError, match="--study lr.*--model evil_module.Net") as caught:
        run_sweep([*words, "2"])
    assert str(file) in str(caught.value)
    assert len(proved) == made
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("lr", [5.0, -1.0, "high"])
def test_a_trial_that_waits_with_a_value_beyond_its_range_is_refused(file: Path, trials: Trials, lr: object) -> None:
    words = ["--config", str(file), "--seeds", "0", "--trials"]
    trials.planned = [[0.5, 0.6], [0.5, 0.6]]
    run_sweep([*words, "1"])
    study = optuna.load_study(study_name="lr", storage="sqlite:///sweeps/lr/study.db")
    study.enqueue_trial({"model.lr": lr, "model.optimizer": "sgd"})
    with pytest.raises(InputError, match=f"--study lr.*{lr}"):
        run_sweep([*words, "2"])
    assert len(trials.commands) == 1


def test_a_sweep_ends_with_its_time(file: Path, trials: Trials) -> None:
    trials.planned = [[0.5, 0.6]] * 20
    reading = [0.0]

    def clock() -> float:  # A trial looks at the clock twice, so that it takes a minute.
        reading[0] += 30
        return reading[0]

    run_sweep(["--config", str(file), "--budget", "10min", "--seeds", "0"], clock)
    assert 4 <= len(trials.commands) <= 8


def test_a_sweep_whose_first_trials_fail_ends(file: Path, trials: Trials) -> None:
    trials.planned = [None] * 20
    with pytest.raises(InputError, match="the net is too wide"):
        run_sweep(["--config", str(file), "--trials", "20"])
    assert len(trials.commands) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--trials", "0"], ["--trials", "0"]),
        ([], ["--trials", "--budget"]),
        (["--trials", "2", "--seeds", "-1"], ["--seeds", "-1"]),
        (["--trials", "2", "--trainer.max_epochs", "3"], ["--trainer.max_epochs", "fixed"]),
        (["--trials", "2", "--storage", "nonsense"], ["--storage", "nonsense"]),
        (["--trials", "2", "--storage", "sqlite:////no/such/folder/a.db"], ["--storage", "/no/such/folder/a.db"]),
        (["--trials", "2", "--storage", "postgresql://me:secret@localhost:1/x"], ["--storage", "postgresql"]),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], told: list[str], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, "sweep", "--config", str(file), *words)
    assert all(word in line for word in told)
    assert "secret" not in line


@pytest.mark.parametrize(
    ("ranges", "told"),
    [
        ("{model.lrr: [1, 2]}", ["--model.lrr", "lr"]),
        ("{model.optimizer: [sgd, adamm]}", ["--model.optimizer", "adamm"]),
        ("{data.batch_size: {low: 0.5, high: 3.5}}", ["--data.batch_size", "0.5"]),
    ],
)
def test_an_option_that_is_not_there_is_refused(
    ranges: str, told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(f"config: digits_residual\nranges: {ranges}\n")
    line = refused(capsys, "sweep", "--config", str(wrong), "--trials", "2")
    assert all(word in line for word in [str(wrong), *told])
    assert not Path("sweeps").exists()


def test_a_study_of_another_sweep_is_refused(tmp_path: Path) -> None:
    url, file = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "own.yaml"
    optuna.create_study(study_name="theirs", storage=url).ask()
    open_study(url, "ours", "content", file)
    open_study(url, "ours", "content", file)
    for name, content in (("theirs", "content"), ("ours", "other content")):
        with pytest.raises(InputError) as caught:
            open_study(url, name, content, file)
        assert f"--study {name}" in str(caught.value)
        assert "study.db" in str(caught.value)


def test_a_locked_study_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    file = tmp_path / "study.db"
    open_study(f"sqlite:///{file}", "ours", "content", file)
    monkeypatch.setattr("pet_cifar.cli.study.LOCK_SECONDS", 0)
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="locked") as caught:
            open_study(f"sqlite:///{file}", "ours", "content", file)
    other.close()
    assert str(file) in str(caught.value)


def test_a_missing_optuna_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(InputError, match=r"pet_cifar\[sweep\]"):
        run_sweep(["--config", str(file), "--trials", "2"])


# What a run tells the study


def study_with(url: str, *others: Sequence[float]) -> Any:
    """A study in which other trials have reported such accuracies, one an epoch."""
    study = open_study(url, "ours", "content", Path("own.yaml"))
    for accuracies in others:
        trial = study.ask()
        for epoch, accuracy in enumerate(accuracies):
            trial.report(accuracy, epoch)
        study.tell(trial, max(accuracies))
    return study


def fit(callback: ReportTrial, **options: Any) -> Trainer:
    trainer = quiet_trainer(max_epochs=4, limit_train_batches=1, limit_val_batches=1, callbacks=[callback], **options)
    trainer.fit(ResidualCNN(image_size=8, widths=[4], lr=1e-6), DigitsDataModule(image_size=8, batch_size=50))
    return trainer


def test_a_run_that_is_worse_than_the_others_ends_early(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = study_with(url, *[[0.99] * 4] * 5)
    trial = study.ask()
    trainer = fit(ReportTrial(url, "ours", trial._trial_id))
    told = study.trials[trial.number]
    assert trainer.current_epoch == 2  # No trial ends after its first epoch.
    assert list(told.intermediate_values) == [0, 1]
    assert told.user_attrs["pruned"]


def test_a_run_that_is_better_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = study_with(url, *[[0.0] * 4] * 5)
    trial = study.ask()
    trainer = fit(ReportTrial(url, "ours", trial._trial_id))
    assert trainer.current_epoch == 4
    assert "pruned" not in study.trials[trial.number].user_attrs
    assert study.trials[trial.number].user_attrs["run"] == str(trainer.log_dir)


def test_the_first_process_decides_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.strategies import SingleDeviceStrategy

    # This process is not the first one, and never asks the study, which is not there.
    monkeypatch.setattr(SingleDeviceStrategy, "is_global_zero", False)
    monkeypatch.setattr(SingleDeviceStrategy, "broadcast", lambda self, value, src=0: True)
    trainer = fit(ReportTrial("sqlite:////no/such/folder/a.db", "ours", 0))
    assert trainer.current_epoch == 1


def test_all_processes_exchange_as_much_as_the_first_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.strategies import SingleDeviceStrategy

    url = f"sqlite:///{tmp_path / 'study.db'}"
    trial = study_with(url).ask()
    exchanged: list[list[bool]] = []
    for is_first in (True, False):
        counted: list[bool] = []
        monkeypatch.setattr(SingleDeviceStrategy, "is_global_zero", is_first)
        monkeypatch.setattr(
            SingleDeviceStrategy, "broadcast", lambda self, value, src=0, counted=counted: counted.append(True) or value
        )
        fit(ReportTrial(url, "ours", trial._trial_id))
        exchanged.append(counted)
    assert len(exchanged[0]) == len(exchanged[1]) > 4


def test_a_study_that_cannot_be_reached_later_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    trial = study_with(url).ask()

    def fails(*args: Any) -> None:
        raise optuna.exceptions.StorageInternalError("the machine is gone")

    monkeypatch.setattr(optuna.Trial, "report", fails)
    assert fit(ReportTrial(url, "ours", trial._trial_id)).current_epoch == 4
    assert sum("the machine is gone" in line for line in caplog.messages) == 4


def test_only_a_run_that_is_a_trial_has_the_callback() -> None:
    assert trial_callbacks({}) == []
    (found,) = trial_callbacks(environment_of("sqlite:///a.db", "ours", 7))
    assert isinstance(found, ReportTrial)
    assert (found.url, found.study, found.trial_id) == ("sqlite:///a.db", "ours", 7)


def test_a_storage_waits_for_others(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    assert storage.heartbeat_interval is not None
    assert storage.grace_period is not None
    assert storage.grace_period > storage.heartbeat_interval


def test_help_does_not_need_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert status_of("sweep", "--help") == 0
