"""Every option of Lightning's Trainer does what docs/trainer.md says that it does here."""

import csv
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from pet_cifar.cli.main import main
from pet_cifar.cli.trainer import PetCifarCLI
from tests.conftest import HOME

PAGE = HOME / "docs" / "trainer.md"
# Seven batches of 200 train and one validates.
QUICK = [
    *("fit", "--model", "ResidualCNN", "--model.widths", "[4]", "--data", "DigitsDataModule"),
    *("--data.image_size", "8", "--data.batch_size", "200", "--trainer.accelerator", "cpu"),
]
BARE = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
ONE = ["--trainer.max_epochs", "1"]


class Watch(Callback):
    """Counts what a run does."""

    def __init__(self) -> None:
        self.trained: list[list[int]] = []
        self.validated: list[list[int]] = []
        self.inference = self.sanity = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        self.trained.append(batch.row.tolist())

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.inference = torch.is_inference_mode_enabled()
        self.sanity |= bool(trainer.sanity_checking)
        if not trainer.sanity_checking:
            self.validated.append(batch.row.tolist())


@dataclass
class Ran:
    """A finished run."""

    cli: PetCifarCLI
    watch: Watch
    output: str
    trainer: Trainer = field(init=False)

    def __post_init__(self) -> None:
        self.trainer = self.cli.trainer


def run(words: list[str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Ran:
    capsys.readouterr()
    caplog.set_level("INFO")
    watch = Watch()
    cli = main([*QUICK, *words], callbacks=[watch])
    assert cli is not None
    captured = capsys.readouterr()
    return Ran(cli, watch, captured.out + captured.err + caplog.text)


def logged_steps(ran: Ran) -> list[int]:
    with (Path(str(ran.trainer.log_dir)) / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("lr")]


def files(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def scored_by(verb: Callable[..., object], ran: Ran) -> list[int]:
    verb(ran.cli.model, ran.cli.datamodule)
    return [int(number) for number in ran.trainer.num_test_batches or ran.trainer.num_predict_batches]


def has_hyper_parameters(path: Path) -> bool:
    if path.name == "hparams.yaml":
        return "widths" in path.read_text()
    return path.name.startswith("events.out.tfevents") and b"_hparams_/session_start_info" in path.read_bytes()


def option(name: str, *values: str) -> list[str]:
    return [f"--trainer.{name}", *values]


NO_TIME = option("max_time", "00:00:00:00")
CASES: dict[str, tuple[list[str], Callable[[Ran], bool]]] = {
    "accelerator": ([*BARE, *ONE], lambda ran: ran.trainer.strategy.root_device.type == "cpu"),
    "strategy": (
        [*BARE, *ONE, *option("strategy", "ddp"), *option("devices", "1")],
        lambda ran: type(ran.trainer.strategy).__name__ == "DDPStrategy",
    ),
    "devices": ([*BARE, *ONE, *option("devices", "1")], lambda ran: ran.trainer.num_devices == 1),
    "num_nodes": ([*BARE, *ONE, *option("num_nodes", "1")], lambda ran: ran.trainer.num_nodes == 1),
    "precision": (
        [*BARE, *ONE, *option("precision", "64-true")],
        lambda ran: next(ran.cli.model.parameters()).dtype == torch.float64,
    ),
    "logger": (
        [*ONE, *option("logger", "true")],
        lambda ran: (
            {"metrics.csv", "best.ckpt", "last.ckpt"} <= set(files("lightning_logs/ResidualCNN/version_0"))
            and any(map(has_hyper_parameters, Path("lightning_logs").rglob("events*")))
        ),
    ),
    "callbacks": (
        [
            *BARE,
            *ONE,
            *option("callbacks+", "GradientAccumulationScheduler"),
            *option("callbacks.scheduling", "{0: 7}"),
        ],
        lambda ran: ran.trainer.global_step == 1,
    ),
    "fast_dev_run": (
        option("fast_dev_run", "true"),
        lambda ran: len(ran.watch.trained) == len(ran.watch.validated) == 1 and not files(),
    ),
    "max_epochs": ([*BARE, *option("max_epochs", "2")], lambda ran: len(ran.watch.trained) == 14),
    "min_epochs": (
        [*BARE, *NO_TIME, *option("max_epochs", "3"), *option("min_epochs", "2")],
        lambda ran: len(ran.watch.trained) == 14,
    ),
    "max_steps": ([*BARE, *option("max_steps", "3")], lambda ran: len(ran.watch.trained) == 3),
    "min_steps": (
        [*BARE, *NO_TIME, *option("max_epochs", "3"), *option("min_steps", "9")],
        lambda ran: ran.trainer.global_step == 9,
    ),
    "max_time": ([*BARE, *NO_TIME], lambda ran: not ran.watch.trained),
    "limit_train_batches": (
        [*BARE, *ONE, *option("limit_train_batches", "0.3")],
        lambda ran: len(ran.watch.trained) == 2,
    ),
    "limit_val_batches": (
        [*BARE, *ONE, *option("limit_val_batches", "1"), "--data.batch_size", "50"],
        lambda ran: (
            [len(rows) for rows in ran.watch.validated] == [45] and "val/acc is of the first 1 of" in ran.output
        ),
    ),
    # A fit takes these for the tests and predictions that a program makes with its trainer.
    "limit_test_batches": (
        [*BARE, *ONE, *option("limit_test_batches", "1"), "--data.batch_size", "50"],
        lambda ran: scored_by(ran.trainer.test, ran) == [1],
    ),
    "limit_predict_batches": (
        [*BARE, *ONE, *option("limit_predict_batches", "0.5"), "--data.batch_size", "50"],
        lambda ran: scored_by(ran.trainer.predict, ran) == [2],
    ),
    "overfit_batches": (
        [*BARE, *option("max_epochs", "3"), *option("overfit_batches", "1")],
        lambda ran: (
            ran.watch.trained == ran.watch.validated == [ran.watch.trained[0]] * 3 and len(ran.watch.trained[0]) == 200
        ),
    ),
    "val_check_interval": (
        [*BARE, *ONE, *option("val_check_interval", "2")],
        lambda ran: len(ran.watch.validated) == 3,
    ),
    "check_val_every_n_epoch": (
        [*BARE, *option("max_epochs", "4"), *option("check_val_every_n_epoch", "2")],
        lambda ran: len(ran.watch.validated) == 2,
    ),
    "num_sanity_val_steps": ([*BARE, *ONE, *option("num_sanity_val_steps", "1")], lambda ran: ran.watch.sanity),
    "log_every_n_steps": (
        [*ONE, *option("log_every_n_steps", "3")],
        lambda ran: logged_steps(ran) == [3, 6],
    ),
    "enable_checkpointing": (
        [*ONE, *option("enable_checkpointing", "false")],
        lambda ran: not [name for name in files() if name.endswith(".ckpt")],
    ),
    "enable_progress_bar": ([*BARE, *ONE], lambda ran: "7/7" not in ran.output),
    "enable_model_summary": (
        [*BARE, *ONE, *option("enable_model_summary", "true")],
        lambda ran: "Trainable params" in ran.output,
    ),
    "accumulate_grad_batches": (
        [*BARE, *ONE, *option("accumulate_grad_batches", "2")],
        lambda ran: ran.trainer.global_step == 4,
    ),
    "gradient_clip_val": (
        [*BARE, *ONE, *option("gradient_clip_val", "0.5")],
        lambda ran: ran.trainer.gradient_clip_val == 0.5,
    ),
    "gradient_clip_algorithm": (
        [*BARE, *ONE, *option("gradient_clip_val", "0.5"), *option("gradient_clip_algorithm", "value")],
        lambda ran: ran.trainer.gradient_clip_algorithm == "value",
    ),
    "deterministic": (
        [*BARE, *ONE, *option("deterministic", "true")],
        lambda ran: torch.are_deterministic_algorithms_enabled(),
    ),
    "benchmark": ([*BARE, *ONE, *option("benchmark", "true")], lambda ran: torch.backends.cudnn.benchmark),
    "inference_mode": (
        [*BARE, *ONE, *option("inference_mode", "false")],
        lambda ran: not ran.watch.inference,
    ),
    "use_distributed_sampler": (
        [*BARE, *ONE, *option("use_distributed_sampler", "false")],
        lambda ran: len({row for rows in ran.watch.trained for row in rows}) == 1400,
    ),
    "profiler": ([*BARE, *ONE, *option("profiler", "simple")], lambda ran: "Profiler Report" in ran.output),
    "detect_anomaly": ([*BARE, *ONE, *option("detect_anomaly", "true")], lambda ran: len(ran.watch.trained) == 7),
    "barebones": (
        [*ONE, *option("barebones", "true")],
        lambda ran: len(ran.watch.trained) == 7 and not files(),
    ),
    "plugins": (
        [*BARE, *ONE, *option("plugins", "DoublePrecision")],
        lambda ran: next(ran.cli.model.parameters()).dtype == torch.float64,
    ),
    "sync_batchnorm": (
        [*BARE, *ONE, *option("sync_batchnorm", "true")],
        lambda ran: not any(isinstance(one, torch.nn.SyncBatchNorm) for one in ran.cli.model.modules()),
    ),
    "reload_dataloaders_every_n_epochs": (
        [*BARE, *option("max_epochs", "2"), *option("reload_dataloaders_every_n_epochs", "1")],
        lambda ran: ran.watch.trained[:7] != ran.watch.trained[7:],
    ),
    "default_root_dir": (
        [*ONE, *option("default_root_dir", "else where")],
        lambda ran: (
            {"metrics.csv", "best.ckpt"} <= set(files("else where/lightning_logs/ResidualCNN/version_0"))
            and not Path("lightning_logs").exists()
        ),
    ),
    "enable_autolog_hparams": (
        [*ONE, *option("enable_autolog_hparams", "false")],
        lambda ran: not any(map(has_hyper_parameters, Path().rglob("*"))),
    ),
    "model_registry": ([*BARE, *ONE, *option("model_registry", "mine")], lambda ran: len(ran.watch.trained) == 7),
}


@pytest.fixture(autouse=True)
def _torchs_switches() -> Iterator[None]:
    """What a run switches for the whole process is switched back."""
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:You are trying to `self.log\\(\\)` but `Trainer\\(barebones=True\\)`")
@pytest.mark.filterwarnings("ignore:You have turned on `Trainer\\(detect_anomaly=True\\)`")
def test_an_option_of_the_trainer_does_what_the_page_says(
    name: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words, check = CASES[name]
    assert check(run(words, capsys, caplog))


def test_the_page_and_these_tests_name_every_option_of_the_trainer() -> None:
    options = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    listed = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name for names in listed for name in re.findall(r"`(\w+)`", names)) == sorted(options)
    assert set(CASES) == options
