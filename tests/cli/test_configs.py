"""``--config`` takes a file or the name of a shipped config; a checkpoint's config does not decide all."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pet_cifar.cli.config_files import find_config, run_name, shipped_configs
from pet_cifar.cli.configs import config_of_checkpoint, overridden, words_of_processes
from pet_cifar.cli.fit_directory import FitDirectory, loggers_for
from pet_cifar.cli.main import main
from pet_cifar.cli.run_options import RunOptions
from pet_cifar.errors import InputError
from tests.cli.forging import CONFIG, QUIET, forged
from tests.cli.ranks import torchrun_environment

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_configs_of_the_checkout_are_shipped() -> None:
    assert shipped_configs() == {file.stem: file for file in CONFIGS.glob("*.yaml")}


@pytest.mark.parametrize("name", ["digits_residual", "digits_residual.yaml"])
def test_a_shipped_config_is_found_by_its_name(name: str) -> None:
    assert find_config(name) == CONFIGS / "digits_residual.yaml"
    assert run_name(find_config(name)) == "digits_residual"


@pytest.mark.parametrize("name", ["digits_residual", "digits_residual.yaml"])
def test_a_file_in_the_working_directory_wins(name: str) -> None:
    Path(name).write_text("trainer: {}\n")
    assert find_config(name) == Path(name)


def test_a_name_that_is_no_config_is_refused() -> None:
    Path("configs").mkdir()
    for name in ("digit_residual", "configs", "configs/other.yaml", "x" * 5000):
        with pytest.raises(InputError) as caught:
            find_config(name)
        assert "--config" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"did you mean digits_residual\?"):
        find_config("digit_residual")


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize(
    ("option", "left_out", "taken"),
    [
        ("devices", [2, 300, "2", -1, "-1", [0, 1], True], ["auto", 1, None]),
        ("num_nodes", [2, "1"], [1]),
        ("strategy", ["ddp", "fsdp", "ddp_spawn"], ["auto"]),
        ("plugins", ["anything"], [None]),
        ("profiler", ["advanced"], [None]),
        ("accelerator", [], ["cpu", "auto"]),
    ],
)
def test_a_checkpoint_starts_no_processes(
    option: str, left_out: list[Any], taken: list[Any], goes_on: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for value in left_out + taken:
        caplog.clear()
        content = {"config": yaml.safe_dump(CONFIG | {"trainer": {"max_epochs": 3, option: value}})}
        trainer = config_of_checkpoint(content, "fit", "the config in a.ckpt", goes_on=goes_on)["trainer"]
        assert trainer["max_epochs"] == 3
        assert trainer.get(option) == (value if value in taken and value is not True else None)
        assert (f"a.ckpt: --trainer.{option} " in caplog.text) == (option not in trainer)


@pytest.mark.parametrize(("started", "taken"), [("2", True), ("3", False), (None, False)])
def test_processes_that_torchrun_has_started_are_taken(
    started: str | None, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (torchrun_environment(0, int(started), 1) if started else {}).items():
        monkeypatch.setenv(name, value)
    asked = {"devices": 2, "num_nodes": 1, "strategy": "ddp"}
    content = {"config": yaml.safe_dump(CONFIG | {"trainer": asked})}
    trainer = config_of_checkpoint(content, "fit", "the config in a.ckpt")["trainer"]
    assert trainer == (asked if taken else {"num_nodes": 1})
    spawns = {"config": yaml.safe_dump(CONFIG | {"trainer": asked | {"strategy": "ddp_spawn"}})}
    assert "strategy" not in config_of_checkpoint(spawns, "fit", "the config in a.ckpt")["trainer"]


def test_no_line_asks_for_an_option_that_is_typed(caplog: pytest.LogCaptureFixture) -> None:
    content = {"config": yaml.safe_dump(CONFIG | {"trainer": {"devices": 2, "strategy": "ddp"}})}
    words = ["--trainer.devices", "2", "--model.lr", "0.1"]
    config_of_checkpoint(content, "fit", "the config in FILE", words=words)
    assert "--trainer.strategy is not taken out of a checkpoint" in caplog.text
    assert "--trainer.devices" not in caplog.text


def test_a_checkpoint_waits_for_no_other_machine(own_checkpoint: Path) -> None:
    trainer = {"num_nodes": 2, "strategy": "ddp", "accelerator": "cpu", "devices": 1, "max_epochs": 2}
    file = forged(own_checkpoint, config=yaml.safe_dump(CONFIG | {"trainer": trainer}))
    cli = main(["fit", "--ckpt_path", file, "--trainer.limit_train_batches", "1", *QUIET])
    assert cli is not None
    assert cli.trainer.num_nodes == cli.trainer.world_size == 1


def test_the_line_how_to_go_on_names_the_processes(tmp_path: Path) -> None:
    asked = {"devices": 2, "num_nodes": 1, "strategy": "ddp", "accelerator": "cpu"}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    directory = FitDirectory([], None, words_of_processes(asked))
    directory.path = tmp_path
    line = directory.how_to_go_on("--model.lr", "0.1")
    assert line is not None
    assert line.endswith(f"--resume {tmp_path} --trainer.devices 2 --trainer.strategy ddp --model.lr 0.1")
    assert words_of_processes({"devices": "auto", "num_nodes": 1, "strategy": "auto"}) == []


def test_a_run_that_was_moved_here_goes_on_under_a_name() -> None:
    checkpoint = Path("moved/checkpoints/last.ckpt")
    checkpoint.parent.mkdir(parents=True)
    Path("moved/config.yaml").touch()
    asked = RunOptions(["fit"], ["fit"], "", checkpoint, [], None, None)
    assert {logger.name for logger in loggers_for(asked, "ResidualCNN", None)} == {"ResidualCNN"}


def test_a_class_that_a_config_names_by_a_word_alone_is_compared_with_the_one_that_is_built() -> None:
    final = {"model": {"class_path": "pet_cifar.models.ResidualCNN", "init_args": {"lr": 0.1}}}
    assert list(overridden([{"model": "ResidualCNN"}], final)) == []
    assert list(overridden([{"model": "PlainCNN"}], final)) == [
        "overridden: --model PlainCNN -> pet_cifar.models.ResidualCNN"
    ]
