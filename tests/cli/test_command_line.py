"""The commands as a user types them."""

import gc
import os
import resource
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from pet_cifar.cli import defaults, run_hints
from pet_cifar.cli import main as cli
from pet_cifar.cli.main import main
from pet_cifar.cli.trainer import run_trainer
from pet_cifar.errors import InputError
from pet_cifar.models import CatsDogsCNN, ResidualCNN
from tests.callbacks.event_files import Events
from tests.cli.commands import QUICK, fit, refused


class Interrupted(Callback):
    """Ctrl-C in the second step."""

    def on_train_batch_end(self, *args: Any) -> None:
        if args[-1] == 1:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("words", [[], ["predict"], ["draw"], ["export"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys\nfrom pet_cifar.cli.main import main\ntry:\n    main([*{words}, '--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'lightning', 'PIL')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: pet-cifar" in done.stdout


def test_help_takes_less_than_half_a_second_of_a_processor() -> None:
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(3):
        start = spent()
        subprocess.run([sys.executable, "-m", "pet_cifar", "--help"], capture_output=True, check=True)
        times.append(spent() - start)
    assert min(times) < 0.5


def test_test_and_validate_restore_model_data_and_split_from_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fitted = fit("--data.split_seed", "3", "--data.batch_size", "50")
    capsys.readouterr()
    tested = main(["test", "--run", "lightning_logs/digits_residual"])
    assert tested is not None
    assert tested.datamodule.split_seed == 3
    assert tested.datamodule.batch_size == 50
    assert tested.datamodule.fingerprint == fitted.datamodule.fingerprint
    out = capsys.readouterr().out
    assert "test accuracy: " in out
    assert "pet-cifar board lightning_logs/digits_residual/version_0" in out
    assert "overridden" not in out
    # Nothing of the run that was tested is lost, and no second one appears.
    assert (Path(tested.trainer.log_dir or "") / "metrics.csv").is_file()
    assert [path.name for path in Path("lightning_logs/digits_residual").iterdir()] == ["version_0"]

    again = main(["test", "--ckpt_path", "lightning_logs/digits_residual/version_0/checkpoints/last.ckpt"])
    assert again is not None
    assert again.datamodule.split_seed == 3
    assert main(["validate", "--run", "lightning_logs/digits_residual/version_0"]) is not None
    assert main(["predict", "--run", "lightning_logs/digits_residual/version_0"]) is not None
    assert Path("lightning_logs/digits_residual/version_0/predict/predictions.csv").is_file()


def test_explicit_options_win_over_the_checkpoint_and_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    capsys.readouterr()
    tested = main(["test", "--run", "lightning_logs/digits_residual", "--data.batch_size", "17"])
    assert tested is not None
    assert tested.datamodule.batch_size == 17
    assert "overridden: --data.batch_size 64 -> 17" in capsys.readouterr().out


def test_another_split_than_the_checkpoints_is_refused_with_the_way_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit()
    message = refused(capsys, "test", "--run", "lightning_logs/digits_residual", "--data.split_seed", "7")
    assert "another split" in message
    assert "--data.allow_other_data true" in message
    options = ["--data.split_seed", "7", "--data.allow_other_data", "true"]
    assert main(["test", "--run", "lightning_logs/digits_residual", *options]) is not None


def test_going_on_with_another_learning_rate_uses_it() -> None:
    fit()
    last = "lightning_logs/digits_residual/version_0/checkpoints/last.ckpt"
    resumed = main(["fit", "--ckpt_path", last, "--model.lr", "0.0007", "--trainer.max_epochs", "2"])
    assert resumed is not None
    assert resumed.model.lr == 0.0007
    assert {group["initial_lr"] for group in resumed.trainer.optimizers[0].param_groups} == {0.0007}
    assert resumed.trainer.current_epoch == 2
    assert resumed.trainer.log_dir == "lightning_logs/digits_residual/version_1"


def test_the_saved_config_repeats_the_run() -> None:
    first = fit("--model.lr", "0.003")
    saved = Path(first.trainer.log_dir or "") / "config.yaml"
    assert yaml.safe_load(saved.read_text())["model"]["init_args"]["lr"] == 0.003
    for file in (saved.parent / "checkpoints").iterdir():
        assert torch.load(file, weights_only=True)["config"] == saved.read_text()
    second = main(["fit", "--config", str(saved)])
    assert second is not None
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key


def test_the_command_lines_own_optimizer_overrides(recwarn: pytest.WarningsRecorder) -> None:
    cli = fit("--optimizer", "Adagrad", "--optimizer.lr", "0.02")
    assert type(cli.trainer.optimizers[0]).__name__ == "Adagrad"
    assert main(["test", "--run", "lightning_logs/digits_residual"]) is not None


def test_early_stopping_as_the_readme_says_keeps_the_default_callbacks() -> None:
    cli = fit("--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss")
    names = {type(callback).__name__ for callback in cli.trainer.callbacks}  # type: ignore[attr-defined]
    assert {"EarlyStopping", "LastCheckpoint", "BestCheckpoint", "ThroughputMonitor", "PredictionWriter"} <= names


def test_without_a_logger_nothing_is_written_and_it_can_be_repeated() -> None:
    for _ in range(2):
        fit("--trainer.logger", "false")
    assert not list(Path().iterdir())


def test_a_config_files_overriding_of_the_checkpoint_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    fit()
    Path("other.yaml").write_text("data:\n  init_args:\n    batch_size: 21\n")
    capsys.readouterr()
    main(["test", "--run", "lightning_logs/digits_residual", "--config", "other.yaml"])
    assert "overridden: --data.batch_size 64 -> 21" in capsys.readouterr().out


def test_another_data_module_than_the_checkpoints_is_refused(
    capsys: pytest.CaptureFixture[str], cifar10_root: Path
) -> None:
    fit()
    other = ["--data", "CIFAR10DataModule", "--data.root", str(cifar10_root)]
    message = refused(capsys, "test", "--run", "lightning_logs/digits_residual", *other)
    assert "DigitsDataModule, not with a CIFAR10DataModule" in message


def test_a_constant_rate_without_an_end_learns() -> None:
    cli = fit("--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:00:03", "--model.schedule", "constant")
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.005


def test_help_of_a_command_has_a_second_name(capsys: pytest.CaptureFixture[str]) -> None:
    main(["help"])
    assert "pet-cifar fit --config" in capsys.readouterr().out
    for words in (["help", "fit"], ["fit", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        assert "--trainer.max_epochs" in capsys.readouterr().out


def test_callbacks_from_python_come_after_the_default_ones() -> None:
    mine = Callback()
    cli = main(
        ["fit", *QUICK, "--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"],
        callbacks=[mine],
    )
    assert cli is not None
    kinds = [type(one).__name__ for one in cli.trainer.callbacks]  # type: ignore[attr-defined]
    assert kinds.index("ThroughputMonitor") < kinds.index("EarlyStopping") < kinds.index("Callback")
    assert mine in cli.trainer.callbacks  # type: ignore[attr-defined]


def test_an_option_wins_over_the_config_wherever_it_stands() -> None:
    for value in (["--model.lr", "0.001"], ["--model.lr=0.001"]):
        with pytest.raises(SystemExit):
            main(["fit", *value, *QUICK, "--print_model"])
    cli = main(["fit", "--model.lr=0.001", *QUICK])
    assert cli is not None
    assert cli.model.lr == 0.001


def test_print_model_prints_and_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", *QUICK, "--model", "PlainCNN", "--print_model"])
    assert caught.value.code == 0
    assert "trained 1,442,698, not trained 256" in capsys.readouterr().out
    assert not Path("lightning_logs").exists()


def test_data_check_prints_a_table_and_writes_the_list(
    cats_dogs_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        [
            "data",
            "check",
            "--data",
            "CatsDogsDataModule",
            "--data.root",
            str(cats_dogs_root),
            "--output",
            "list.csv",
        ]
    )
    out = capsys.readouterr().out
    assert "2 empty (Cat/20.jpg, Dog/20.jpg)" in out
    assert len(Path("list.csv").read_text().splitlines()) == 1 + 2 * 22
    main(["data", "prepare", "--data", "CatsDogsDataModule", "--data.root", str(cats_dogs_root)])


def test_missing_data_without_a_network_says_where_to_put_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_cifar.data.files.download._PAUSE", 0)
    message = refused(
        capsys,
        "fit",
        "--model",
        "CatsDogsCNN",
        "--data",
        "CatsDogsDataModule",
        "--data.root",
        str(tmp_path / "none"),
    )
    assert "PetImages/{Cat,Dog}/" in message
    assert "kagglecatsanddogs_*.zip" in message
    assert "by hand" in message


def test_the_installed_script_ends_well(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = entry_points(group="console_scripts", name="pet-cifar")
    monkeypatch.setattr(sys, "argv", ["pet-cifar", "fit", *QUICK])
    # An installed script gives what the function returns to sys.exit, which prints it and fails unless it is None.
    assert script.load()() is None
    assert "run directory: " in capsys.readouterr().out


def test_two_processes_from_the_shell_score_every_picture_once() -> None:
    command = [sys.executable, "-m", "pet_cifar"]
    spread = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run([*command, "fit", *QUICK, *spread], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run directory: ") == 1
    assert [path.name for path in Path("lightning_logs/digits_residual").iterdir()] == ["version_0"]
    run = Path("lightning_logs/digits_residual/version_0")
    # It is drawn once, of the pictures of both.
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    events = Events(run)
    assert events.steps("predictions/confusion_matrix/val") == [4]
    assert len(events.steps("feature_maps/backbone.0")) == 2
    counts = (run / "val" / "confusion_matrix.csv").read_text().splitlines()[1:]
    assert sum(int(count) for line in counts for count in line.split(",")[1:]) == 180
    test = [*command, "test", "--run", "lightning_logs/digits_residual", *spread]
    done = subprocess.run(test, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = Path("lightning_logs/digits_residual/version_0/test/predictions.csv").read_text().splitlines()[1:]
    assert len(rows) == 180
    assert len({row.split(",")[0] for row in rows}) == 180
    lone = main(["test", "--run", "lightning_logs/digits_residual"])
    assert lone is not None
    assert sorted(rows) == sorted(
        Path("lightning_logs/digits_residual/version_0/test/predictions.csv").read_text().splitlines()[1:]
    )


@pytest.mark.parametrize(
    ("precision", "native", "words"),
    [
        ("32-true", True, "this processor computes faster in bfloat16: --trainer.precision bf16-mixed"),
        ("bf16-mixed", False, "this processor gains nothing from bfloat16: --trainer.precision 32-true is faster"),
        ("32-true", False, ""),
        ("bf16-mixed", True, ""),
        ("32-true", None, ""),
        ("bf16-mixed", None, ""),
    ],
)
def test_a_faster_precision_is_told(precision: str, native: bool | None, words: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(run_hints, "gains_from_bfloat16", lambda: native)
    lines = list(run_hints.before_run(on_cpu=True, compiles=False, precision=precision, chosen=False))
    assert len(lines) == bool(words)
    assert "".join(lines).startswith(words)
    assert not list(run_hints.before_run(on_cpu=False, compiles=False, precision=precision, chosen=False))
    if precision == "32-true":
        assert not list(run_hints.before_run(on_cpu=True, compiles=False, precision=precision, chosen=True))


def test_compiling_on_a_processor_is_told() -> None:
    (line,) = run_hints.before_run(on_cpu=True, compiles=True, precision="16-mixed", chosen=False)
    assert "--model.compile false begins at once" in line
    assert not list(run_hints.before_run(on_cpu=False, compiles=True, precision="16-mixed", chosen=False))


def test_a_limit_of_one_is_one_batch_and_scores_of_a_part_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    ones = ("--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1")
    done = fit(*ones)
    assert done.trainer.num_training_batches == done.trainer.global_step == 1
    assert "val/acc is of the first 1 of 3 batches" in capsys.readouterr().out
    run = ("--run", "lightning_logs/digits_residual")
    main(["test", *run, "--trainer.limit_test_batches", "1.0"])
    assert "batches" not in capsys.readouterr().out
    main(["test", *run, "--trainer.limit_test_batches", "0.5"])
    assert "test/acc is of the first 1 of 3 batches" in capsys.readouterr().out


def test_a_config_file_cannot_contradict_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.yaml").write_text("model:\n  init_args:\n    num_channels: 1\n")
    assert "--model.num_channels is 1, but the net follows the data, which has 3" in refused(
        capsys, "fit", *QUICK, "--config", "other.yaml"
    )


def test_the_line_of_an_epoch_that_goes_on_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fit("--trainer.callbacks+", "tests.cli.test_command_line.Interrupted")
    capsys.readouterr()
    last = "lightning_logs/digits_residual/version_0/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 2
    trust = ("--trust", "tests.cli.test_command_line")
    main(["fit", "--ckpt_path", last, *trust, "--trainer.callbacks", "[]", "--trainer.max_epochs", "2"])
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert lines == ["epoch 0", "epoch 1"]


def test_runs_that_start_together_get_directories_of_their_own(tmp_path: Path) -> None:
    both: list[list[TensorBoardLogger | CSVLogger]] = []
    for _ in range(2):  # neither has written anything yet
        tensorboard = TensorBoardLogger(tmp_path, "net")
        both.append([tensorboard, CSVLogger(tmp_path, "net", tensorboard.version)])
    for loggers in both:
        defaults.claim(loggers)
    names = [[Path(one.log_dir).name for one in loggers] for loggers in both]
    assert names == [["version_0", "version_0"], ["version_1", "version_1"]]


def test_a_run_that_fails_at_once_leaves_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(Path(__file__).parents[2] / "configs" / "cats_dogs_cnn.yaml")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "PetImages").mkdir()
    with pytest.raises(InputError):
        run_trainer(["fit", "--config", config, "--data.root", str(tmp_path / "empty")])
    assert not list(Path("lightning_logs/cats_dogs_cnn").glob("*"))


def test_ctrl_c_before_there_is_a_trainer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.run_from_shell()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "pet-cifar: interrupted\n"


def test_garbage_is_looked_for_as_usual_once_all_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, seen = gc.get_threshold(), []

    def started(*_: Any, **__: Any) -> None:
        seen.append((gc.get_threshold(), gc.get_freeze_count() > 0))

    monkeypatch.setattr("pet_cifar.cli.trainer.run_trainer", started)
    monkeypatch.setattr(cli, "share_cores", lambda: seen.append((gc.get_threshold(), gc.get_freeze_count() > 0)))
    monkeypatch.setattr(sys, "argv", ["pet-cifar", "fit", "--config", "digits_residual"])
    cli.run_from_shell()
    assert seen == [(cli.WHILE_STARTING, False), (usual, True)]
    # Else some libraries tell of leaks at the end.
    assert gc.get_freeze_count() == 0
    cli.main(["fit", "--config", "digits_residual"])
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, 0)


def test_more_processes_than_cores_are_told() -> None:
    (line,) = run_hints.on_cores(9, 2)
    assert "--trainer.devices 2 " in line
    assert not list(run_hints.on_cores(2, 2))


@pytest.mark.parametrize(
    ("processes", "on_cpu", "is_synced", "told"),
    [
        (1, True, False, ""),
        (2, True, False, "2 processes"),
        (2, False, False, "--trainer.sync_batchnorm true"),
        (2, False, True, ""),
    ],
)
def test_what_batch_norm_means_for_several_processes_is_told(
    processes: int, on_cpu: bool, is_synced: bool, told: str
) -> None:
    lines = list(run_hints.on_batch_norm(ResidualCNN(), processes, on_cpu=on_cpu, is_synced=is_synced))
    assert len(lines) == bool(told)
    assert told in "".join(lines)
    assert not list(run_hints.on_batch_norm(CatsDogsCNN(), processes, on_cpu=on_cpu, is_synced=False))


def test_exchanged_batch_norm_is_refused_on_a_processor() -> None:
    with pytest.raises(InputError, match="--trainer.sync_batchnorm true"):
        list(run_hints.on_batch_norm(ResidualCNN(), 2, on_cpu=True, is_synced=True))
    assert not list(run_hints.on_batch_norm(CatsDogsCNN(), 2, on_cpu=True, is_synced=True))
