"""A config file, a checkpoint and a run directory of a stranger run no code and send nothing.

Every one of these files would leave a marker if what it names were called or imported.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser, capture_parser

from pet_cifar.cli.config_files import shipped_configs
from pet_cifar.cli.configs import read_config
from pet_cifar.cli.main import main
from pet_cifar.cli.trust import check_config
from pet_cifar.errors import InputError
from pet_cifar.runs.load import load
from pet_cifar.runs.trusted import VARIABLE
from tests.cli.commands import refused, status_of
from tests.cli.forging import CONFIG, forged, written
from tests.conftest import HOME

MARKER = Path("CODE_RAN")
CALL = {"class_path": "os.system", "init_args": {"command": f"touch {MARKER}"}}
LAMBDA = "lightning.pytorch.callbacks.LambdaCallback"
HOOK = {"class_path": LAMBDA, "init_args": {"on_fit_start": CALL}}
PROFILER = "lightning.pytorch.profilers.PyTorchProfiler"
NET: dict[str, Any] = CONFIG["model"]

IN_THE_TRAINER: dict[str, Any] = {
    "a function in a hook": {"callbacks": [HOOK]},
    "a callback alone": {"callbacks": HOOK},
    "an appended callback": {"callbacks+": [HOOK]},
    "an appended name": {"callbacks+": ["stranger.Stranger"]},
    "a callback as text": {"callbacks": f"[{json.dumps(HOOK)}]"},
    "a callback as tagged text": {"callbacks": f"!!seq [{json.dumps(HOOK)}]"},
    "a function as a callback": {"callbacks": [CALL]},
    "a stranger by name": {"callbacks": ["stranger.Stranger"]},
    "a stranger": {"callbacks": {"class_path": "stranger.Stranger"}},
    "a function through a trusted module": {"callbacks": {"class_path": "torch.os.system"}},
    "a trusted function": {"callbacks": {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a"}}},
    "a hook by name": {"callbacks": {"class_path": LAMBDA, "init_args": {"on_fit_start": "os.system"}}},
    "a trusted hook": {"callbacks": {"class_path": LAMBDA, "init_args": {"on_fit_start": "torch.hub.load"}}},
    "other arguments": {"callbacks": {"class_path": LAMBDA, "dict_kwargs": {"on_fit_start": CALL}}},
    "arguments of a class that another names": {"callbacks": {"init_args": {"on_fit_start": CALL}}},
    "arguments alone": {"callbacks": {"on_fit_start": "os.system"}},
    "a dotted argument": {"callbacks": {"class_path": LAMBDA, "init_args.on_fit_start": "os.system"}},
    "a handler": {"profiler": {"class_path": PROFILER, "init_args": {"schedule": CALL}}},
    "a logger": {"logger": CALL},
    "a logger as text": {"logger": json.dumps(CALL)},
    "a logger that sends": {"logger": {"class_path": "lightning.pytorch.loggers.MLFlowLogger"}},
    "a registry that takes the net": {"model_registry": "there/net"},
    "a strategy by name": {"strategy": "stranger.Stranger"},
    "a plugin by name": {"plugins": ["stranger.Stranger"]},
}
ELSEWHERE: dict[str, Any] = {
    "a dotted key": {"trainer.callbacks": [HOOK]},
    "a net": {"model": {"class_path": "stranger.Stranger"}},
    "a net by name": {"model": "stranger.Stranger"},
    "a function as a net": {"model": CALL},
    "a net's argument": {"model": {"class_path": "ResidualCNN", "init_args": {"optimizer": CALL}}},
    "an argument that there is not": {"model": {"class_path": "ResidualCNN", "init_args": {"nothing": CALL}}},
    "data": {"data": {"class_path": "stranger.Stranger"}},
    "the augmentation": {"data": {"class_path": "DigitsDataModule", "init_args": {"augment": CALL}}},
    "the augmentation's file": {"data": {"class_path": "DigitsDataModule", "init_args": {"augment": "stranger.yaml"}}},
    "another file": {"data": "stranger.yaml"},
    "another file of the trainer": {"trainer": "stranger.yaml"},
    "an optimizer": {"optimizer": {"class_path": "stranger.Stranger"}},
    "a function of a schedule": {
        "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os.system"}}
    },
    "trust": {"trust": "stranger", "model": {"class_path": "stranger.Stranger"}},
    "another config": {"config": "stranger.yaml"},
}
HOSTILE = {name: {"trainer": part} for name, part in IN_THE_TRAINER.items()} | ELSEWHERE


@pytest.fixture(autouse=True)
def _stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module in the working directory that leaves the marker when it is imported, as ``python -m`` would find it."""
    here = Path.cwd()
    monkeypatch.syspath_prepend(here)
    Path("stranger.py").write_text(f"open({str(here / MARKER)!r}, 'w')\nclass Stranger: pass\n")
    for name in ("stranger.yaml", "ddp", "auto", "cpu"):
        Path(name).write_text(yaml.safe_dump({"class_path": "stranger.Stranger"}))
    yield
    sys.modules.pop("stranger", None)
    assert not (here / MARKER).exists()


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    """The parser of ``fit``."""
    found = capture_parser(lambda: main(["fit", "--config", str(HOME / "configs/digits_residual.yaml")]))
    fit: ArgumentParser = vars(found)["_subcommands_action"].choices["fit"]
    return fit


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_config_passes(name: str, parser: ArgumentParser) -> None:
    with pytest.raises(InputError) as caught:
        check_config(parser, CONFIG | HOSTILE[name], "--config a.yaml")
    assert "--config a.yaml" in str(caught.value)
    assert next(iter(HOSTILE[name])).partition(".")[0] in str(caught.value)


def test_what_harms_nobody_passes(parser: ArgumentParser, monkeypatch: pytest.MonkeyPatch) -> None:
    pruning = {"class_path": "ModelPruning", "init_args": {"pruning_fn": "l1_unstructured", "amount": 0.5}}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "there", "name": "a.b"}}
    weights = {"class_weights": {"a.b": 2.0}, "lr": "1e-3", "optimizer": "sgd"}
    config = {
        "seed_everything": 3,
        "model": {"class_path": "pet_cifar.models.ResidualCNN", "init_args": weights},
        "data": "DigitsDataModule",
        "trainer": {
            "callbacks": [pruning, "EarlyStopping"],
            "logger": [logger],
            "strategy": "ddp",
            "max_time": {"hours": 1},
        },
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
        "trust": None,
        "ckpt_path": None,
    }
    check_config(parser, config, "a.yaml")
    mlflow = {"trainer": {"logger": {"class_path": "lightning.pytorch.loggers.MLFlowLogger"}}}
    monkeypatch.setenv(VARIABLE, "lightning.pytorch.loggers.mlflow")
    check_config(parser, mlflow, "a.yaml")


def test_the_shipped_configs_pass(parser: ArgumentParser) -> None:
    for file in shipped_configs().values():
        check_config(parser, read_config(file), str(file))


@pytest.mark.parametrize("name", ["a function in a hook", "a net", "another file"])
def test_a_config_file_runs_no_code(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a_config.yaml" in refused(capsys, "fit", "--config", written(HOSTILE[name]))
    if "data" in HOSTILE[name]:
        assert "a_config.yaml" in refused(capsys, "data", "check", "--config", written(HOSTILE[name]))


@pytest.mark.parametrize("name", ["a function in a hook", "a logger", "a net", "another file"])
def test_a_checkpoint_runs_no_code(name: str, own_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = forged(own_checkpoint, config=yaml.safe_dump(CONFIG | HOSTILE[name]))
    for verb in ("fit", "test"):
        words = (verb, "--ckpt_path", file, "--trainer.max_epochs", "2", "--trainer.logger", "false")
        # What a test does not take out of a checkpoint does no harm.
        if status_of(*words, "--trainer.enable_progress_bar", "false"):
            assert "forged.ckpt" in capsys.readouterr().err
        assert not MARKER.exists()


@pytest.mark.parametrize("option", ["--trainer", "--model", "--data", "--optimizer", "--trainer.callbacks"])
def test_a_file_is_no_class(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert option in refused(capsys, "fit", "--config", written({}), option, "stranger.yaml")


def test_words_that_are_also_names_of_files_stay_words() -> None:
    words = ("--trainer.strategy", "auto", "--trainer.accelerator", "cpu", "--trainer.logger", "false")
    cli = main(["fit", "--config", written({}), *words, "--trainer.enable_progress_bar", "false"])
    assert cli is not None
    assert cli.trainer.num_devices == 1


def test_a_typed_function_is_the_users_own() -> None:
    hook = {"class_path": LAMBDA, "init_args": {"on_fit_start": "own_hooks.hook"}}
    Path("own_hooks.py").write_text("def hook(trainer, module):\n    trainer.called = True\n")
    bare = ("--trainer.logger", "false", "--trainer.enable_progress_bar", "false")
    cli = main(["fit", "--config", written({}), "--trainer.callbacks+", json.dumps(hook), *bare])
    assert cli is not None
    assert getattr(cli.trainer, "called", False)


@pytest.mark.parametrize("way", ["typed", "variable"])
def test_a_module_that_the_user_trusts_is_taken(
    way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own_nets.py").write_text(
        "from pet_cifar.models import ResidualCNN\nclass OwnCNN(ResidualCNN):\n    '''A net of one's own.'''\n"
    )
    config = written({"model": NET | {"class_path": "own_nets.OwnCNN"}})
    line = refused(capsys, "fit", "--config", config)
    assert "--trust own_nets" in line
    assert "own_nets" not in sys.modules
    trust = ["--trust", "own_nets"]
    if way == "variable":
        monkeypatch.setenv(VARIABLE, "other_nets_that_are_not_there, own_nets")
        assert "other_nets_that_are_not_there" in refused(capsys, "fit", "--config", config)
        monkeypatch.setenv(VARIABLE, "own_nets")
        trust = []
    try:
        cli = main(["fit", "--config", config, *trust, "--trainer.enable_progress_bar", "false"])
        assert cli is not None
        assert type(cli.model).__name__ == "OwnCNN"
        main(["test", "--run", "lightning_logs/a_config", *trust, "--trainer.enable_progress_bar", "false"])
    finally:
        sys.modules.pop("own_nets", None)


def test_trust_needs_the_name_of_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--trust own/nets.py" in refused(capsys, "fit", "--config", written({}), "--trust", "own/nets.py")
    assert "--trust" in refused(capsys, "fit", "--config", written({}), "--trust")


def test_the_program_imports_nothing_that_a_checkpoint_names(own_checkpoint: Path) -> None:
    # The working directory is on the path here, and the stranger lies in it.
    file = forged(own_checkpoint, config=yaml.safe_dump(CONFIG | ELSEWHERE["a net"]))
    words = [sys.executable, "-m", "pet_cifar", "fit", "--ckpt_path", file]
    ended = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(HOME)}, check=False
    )
    assert ended.returncode == 2
    assert "stranger.Stranger" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_run_directory_runs_no_code_when_it_goes_on(own_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("lightning_logs/given/version_0")
    shutil.copytree(own_checkpoint.parents[1], run)
    config = yaml.safe_dump(CONFIG | HOSTILE["a function in a hook"])
    for file in (run / "checkpoints").iterdir():
        torch.save(torch.load(file, weights_only=True) | {"config": config}, file)
    (run / "config.yaml").write_text(config)
    assert "last.ckpt" in refused(capsys, "fit", "--resume", str(run), "--trainer.max_epochs", "2")


def test_a_checkpoint_decides_no_logger(own_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "elsewhere"}}
    config = CONFIG | {"trainer": CONFIG["trainer"] | {"logger": [logger], "max_epochs": 2}}
    main(
        [
            "fit",
            "--ckpt_path",
            forged(own_checkpoint, config=yaml.safe_dump(config)),
            "--trainer.enable_progress_bar",
            "false",
        ]
    )
    assert not Path("elsewhere").exists()
    assert "--trainer.logger" in caplog.text


def test_a_pickle_is_not_loaded_whoever_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {MARKER}",)

    torch.save({"state_dict": {}, "hyper_parameters": Code()}, "evil.ckpt")
    for part in ({"ckpt_path": "evil.ckpt"}, {"ckpt_path": "evil.ckpt", "weights_only": False}):
        assert "evil.ckpt" in refused(capsys, "fit", "--config", written(part))
    assert "--weights_only" in refused(capsys, "fit", "--config", written({"weights_only": False}))


# Addresses


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine: its address, and the requests that it has seen."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}/a.yaml", seen
    listening.shutdown()
    thread.join()
    listening.server_close()


ADDRESSED = [
    ("fit", "--config", "ADDRESS"),
    ("fit", "--config", "OWN", "--ckpt_path", "ADDRESS"),
    ("fit", "--config", "OWN", "--data.root", "ADDRESS"),
    ("fit", "--config", "OWN", "--trainer.default_root_dir", "ADDRESS"),
    ("fit", "--config", "OWN", "--data", "ADDRESS"),
    ("fit", "--config", "OWN", "--model", "ADDRESS"),
    ("fit", "--config", "OWN", "--trainer.callbacks", "ADDRESS"),
    ("fit", "--config", "OWN", "--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.dirpath", "ADDRESS"),
    ("fit", "--config", "OWN", "--model", "TimmClassifier", "--model.name", "resnet18", "--model.weights", "ADDRESS"),
    ("fit", "--config", "OWN", "--data", "ImageFolderDataModule", "--data.labels", "ADDRESS"),
    ("fit", "--config", "OWN", "--data.exclude", "ADDRESS"),
    ("test", "--run", "ADDRESS"),
    ("test", "--ckpt_path", "ADDRESS"),
    ("predict", "--run", "ADDRESS", "OWN"),
    ("draw", "--run", "ADDRESS"),
    ("export", "--run", "ADDRESS", "--format", "onnx"),
    ("data", "check", "--config", "ADDRESS"),
    ("data", "check", "--data.root", "ADDRESS"),
]


@pytest.mark.parametrize("words", ADDRESSED, ids=" ".join)
def test_no_option_takes_an_address(
    words: tuple[str, ...], server: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    address, seen = server
    line = refused(capsys, *({"ADDRESS": address, "OWN": written({})}.get(word, word) for word in words))
    assert address in line
    assert words[words.index("ADDRESS") - 1].removesuffix("+") in line
    assert not seen


@pytest.mark.parametrize("scheme", ["ftp://there/a", "s3://there/a", "file:///etc/a", "memory://a", "simplecache::a"])
def test_an_address_of_any_kind_is_none(scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--config", "--ckpt_path", "--data.root"):
        assert f"{option} {scheme}" in refused(capsys, "fit", "--config", written({}), option, scheme)


@pytest.mark.parametrize("key", ["data", "model", "trainer"])
def test_a_file_that_names_an_address_sends_nothing(
    key: str, own_checkpoint: Path, server: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    address, seen = server
    assert address in refused(capsys, "fit", "--config", written({key: address}))
    root = {"data": {"class_path": "DigitsDataModule", "init_args": {"root": address}}}
    assert address in refused(capsys, "fit", "--config", written(root))
    file = forged(own_checkpoint, config=yaml.safe_dump(CONFIG | {key: address}))
    assert address in refused(capsys, "fit", "--ckpt_path", file)
    main(["test", "--ckpt_path", file]) if key == "trainer" else refused(capsys, "test", "--ckpt_path", file)
    load(file)
    assert not seen
