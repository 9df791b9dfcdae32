"""A config file or a checkpoint whose parts have another shape is refused in one line, or does no harm."""

import copy
import resource
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pet_cifar.errors import InputError
from pet_cifar.runs.load import load
from tests.cli.commands import refused, status_of
from tests.cli.forging import CONFIG, QUIET, forged, written

SHAPES: tuple[object, ...] = ([1, "a"], 3, "abc", None, {"a": {"b": 1}})
PLACES = ("model", "data", "trainer", "model.init_args", "data.init_args", "model.class_path")
PARTS = (
    *("config", "hyper_parameters", "state_dict", "callbacks", "loops", "optimizer_states", "lr_schedulers"),
    *("epoch", "global_step", "epoch_start", "class_names", "DigitsDataModule"),
)


def with_part(tree: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """A copy of nested mappings in which one part, such as ``model.init_args``, is another."""
    tree = copy.deepcopy(tree)
    *outer, last = place.split(".")
    inner = tree
    for key in outer:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return tree


@pytest.mark.parametrize("place", PLACES)
def test_a_config_file_of_another_shape(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    for shape in ([1, "a"], 3, "abc", {"a": {"b": 1}}):
        line = refused(capsys, "fit", "--config", written(with_part(CONFIG, place, shape)))
        assert place.partition(".")[0] in line
        assert "a_config.yaml" in line


def test_a_misspelled_part_of_a_config_is_named_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.yaml").write_text("modle: {class_path: ResidualCNN}\ndata: DigitsDataModule\n")
    line = refused(capsys, "fit", "--config", "odd.yaml")
    assert "--config odd.yaml" in line
    assert "modle; did you mean model?" in line


@pytest.mark.parametrize("content", ["", "- 1\n", "3\n", "abc\n", "null\n", "a: b: c\n"])
def test_a_config_file_without_keys(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.yaml").write_text(content)
    assert "odd.yaml" in refused(capsys, "fit", "--config", "odd.yaml")


def check_shapes(own: Path, forge: Callable[[object], dict[str, Any]], number: int) -> None:
    """Loads a checkpoint with a part of each shape, and goes on with one of them: all end well or in a line."""
    for place, shape in enumerate(SHAPES):
        file = forged(own, **forge(shape))
        with suppress(InputError):
            load(file, "cpu")
        if place == number % len(SHAPES):
            assert status_of("fit", "--ckpt_path", file, *QUIET, "--trainer.max_epochs", "2") in (0, 2)


@pytest.mark.parametrize("number", range(len(PLACES) + 1))
def test_the_config_of_a_checkpoint(number: int, own_checkpoint: Path) -> None:
    place = ("", *PLACES)[number]
    own = yaml.safe_load(torch.load(own_checkpoint, weights_only=True)["config"])
    check_shapes(
        own_checkpoint,
        lambda shape: {"config": yaml.safe_dump(with_part(own, place, shape) if place else shape)},
        number,
    )


@pytest.mark.parametrize("number", range(len(PARTS)))
def test_a_part_of_a_checkpoint(number: int, own_checkpoint: Path) -> None:
    check_shapes(own_checkpoint, lambda shape: {PARTS[number]: shape}, number)


@pytest.mark.parametrize("name", ["Board", "HyperParameters"])
def test_the_state_of_a_callback(name: str, own_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = torch.load(own_checkpoint, weights_only=True)["callbacks"]
    (key,) = (key for key in states if key.startswith(name))
    file = forged(own_checkpoint, callbacks=states | {key: {"a": 1}})
    assert file in refused(capsys, "fit", "--ckpt_path", file, "--trainer.max_epochs", "2")


@pytest.mark.parametrize("goes_on", ["--ckpt_path", "--resume"])
@pytest.mark.parametrize("name", ["best_k_models", "kth_best_model_path", "best_model_path", "last_model_path"])
@pytest.mark.parametrize("path", ["{folder}/../../../../victim", "{folder}/..", "{elsewhere}", "/elsewhere/victim"])
def test_a_callback_deletes_no_files_of_others(
    goes_on: str, name: str, path: str, own_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = torch.load(own_checkpoint, weights_only=True)["callbacks"]
    (key,) = (key for key in states if key.startswith("BestCheckpoint"))
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious.txt").write_text("mine")
    state = states[key]
    named = path.format(folder=state["dirpath"], elsewhere=victim)
    state[name] = {named: torch.tensor(-1.0)} if name == "best_k_models" else named
    if path == "/elsewhere/victim":  # With this as its folder, the path leads out of the run's own one.
        state["dirpath"] = "/elsewhere/a/b"
        for other in {"kth_best_model_path", "best_model_path", "last_model_path", "best_k_models"} - {name}:
            state[other] = {} if other == "best_k_models" else ""
    file = forged(own_checkpoint, callbacks=states)
    run = shutil.copytree(own_checkpoint.parents[1], tmp_path / "run")
    shutil.copy(file, run / "checkpoints" / "last.ckpt")
    line = refused(capsys, "fit", goes_on, file if goes_on == "--ckpt_path" else str(run), "--trainer.max_epochs", "3")
    assert "BestCheckpoint" in line
    assert named in line
    assert (victim / "precious.txt").read_text() == "mine"


def test_hyper_parameters_that_repeat_themselves_are_refused(own_checkpoint: Path) -> None:
    laughs: list[object] = ["x"] * 10
    for _ in range(9):
        laughs = [laughs] * 10
    file = forged(own_checkpoint, hyper_parameters={"widths": laughs})
    with pytest.raises(InputError, match="hyper_parameters"):
        load(file, "cpu")


GIANTS: list[dict[str, Any]] = [
    {"widths": [10**8]},
    {"widths": [40_000]},
    {"num_classes": 10**12},
    {"num_classes": 10**6},
    {"image_size": 10**5},
    {"num_channels": 10**9},
    {"widths": [1], "blocks": 10**9},
]


@pytest.mark.parametrize("asked", GIANTS, ids=str)
def test_a_checkpoint_that_asks_for_a_giant_net_takes_no_memory(
    asked: dict[str, Any], own_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = torch.load(own_checkpoint, weights_only=True)
    config = yaml.safe_load(own["config"])
    config["model"]["init_args"] |= asked
    if "image_size" in asked:
        config["data"]["init_args"] |= asked
    file = forged(own_checkpoint, hyper_parameters=own["hyper_parameters"] | asked, config=yaml.safe_dump(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=file):
        load(file, "cpu")
    assert any(name in refused(capsys, "test", "--ckpt_path", file, *QUIET) for name in (file, *asked))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kB"


def test_options_that_are_typed_build_a_net_of_any_size() -> None:
    # What the user types is meant, and no checkpoint is there to hold it.
    words = ["--model.widths", "[3000]", "--print_model"]
    assert status_of("fit", "--config", written({}), *words) == 0


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_orig_mod.module."])
def test_a_checkpoint_of_a_wrapped_net_loads(prefix: str, own_checkpoint: Path) -> None:
    state = torch.load(own_checkpoint, weights_only=True)["state_dict"]
    file = forged(own_checkpoint, state_dict={f"{prefix}{key}": value for key, value in state.items()})
    loaded = load(file, "cpu").module.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())
    assert status_of("test", "--ckpt_path", file, *QUIET) == 0
