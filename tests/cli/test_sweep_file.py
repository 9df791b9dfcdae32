"""The file of a sweep: what is read, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from pet_cifar.cli.sweep import check_ranges
from pet_cifar.cli.sweep_file import Range, read_sweep
from pet_cifar.errors import InputError

WHOLE = """
config: digits_residual
ranges:
  model.lr: {low: 1e-4, high: 1e-1, log: true}
  model.optimizer: [sgd, adamw]
  model.widths: [[8], [16, 32]]
  data.batch_size: {low: 32, high: 128, step: 32}
fixed:
  budget: 1min
  trainer: {max_epochs: 3}
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    return file


def test_a_file_is_read(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, WHOLE))
    assert sweep.ranges == (
        Range("model.lr", low=1e-4, high=0.1, log=True),
        Range("model.optimizer", ("sgd", "adamw")),
        Range("model.widths", ("[8]", "[16, 32]")),
        Range("data.batch_size", low=32, high=128, step=32),
    )
    assert [one.is_whole for one in sweep.ranges[::3]] == [False, True]
    words = sweep.words({"model.lr": "0.01"})
    assert words[2:] == ["--budget", "1min", "--trainer.max_epochs", "3", "--model.lr", "0.01"]
    assert Path(words[1]).stem == "digits_residual"


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        ("model.lr", 0.005, 0.005),
        ("model.lr", 0.5, None),
        ("model.optimizer", "adamw", "adamw"),
        ("model.optimizer", "rmsprop", None),
        ("model.widths", [16, 32], "[16, 32]"),
        ("data.batch_size", 64, 64),
        ("data.batch_size", 65, None),
    ],
)
def test_a_configs_own_value_is_found_in_its_range(tmp_path: Path, name: str, value: object, known: object) -> None:
    (found,) = [one for one in read_sweep(written(tmp_path, WHOLE)).ranges if one.name == name]
    assert found.own_value(value) == known


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("config: digits_residual", ["ranges"]),
        ("config: digits_residual\nranges: {}", ["ranges"]),
        ("ranges: {model.lr: [1, 2]}", ["config"]),
        ("config: digits_residul\nranges: {model.lr: [1, 2]}", ["digits_residul", "digits_residual"]),
        ("config: digits_residual\nrange: {model.lr: [1, 2]}", ["range", "ranges"]),
        ("model: {}\ntrainer: {}", ["ranges", "own"]),
        ("config: digits_residual\nranges: {model.lr: 1}", ["model.lr", "1"]),
        ("config: digits_residual\nranges: {model.lr: [1]}", ["model.lr", "fixed"]),
        ("config: digits_residual\nranges: {model.lr: {low: 1}}", ["model.lr", "high"]),
        ("config: digits_residual\nranges: {model.lr: {low: a, high: 1}}", ["model.lr", "low"]),
        ("config: digits_residual\nranges: {model.lr: {low: 2, high: 1}}", ["model.lr", "2", "1"]),
        ("config: digits_residual\nranges: {model.lr: {low: 0, high: 1, log: true}}", ["model.lr", "log"]),
        ("config: digits_residual\nranges: {model.lr: {low: 0, high: 1, step: 3}}", ["model.lr", "step"]),
        ("config: digits_residual\nranges: {model.lr: {low: 0, hihg: 1}}", ["model.lr", "hihg", "high"]),
        ("config: digits_residual\nranges: {seed_everything: [1, 2]}", ["seed_everything", "fixed"]),
        ("config: digits_residual\nranges: {model.lr: [1, 2]}\nfixed: {model.lr: 1}", ["model.lr", "fixed"]),
        ("config: digits_residual\nranges: {model.lr: [1, 2]}\nfixed: 3", ["fixed", "3"]),
        ("- a list", ["own.yaml"]),
        ("config: digits_residual\nranges: {model.lr: [1, 2]}\nfixed: {trust: os}", ["trust"]),
        ("config: digits_residual\nranges: {trust: [os, sys]}", ["trust"]),
        ("config: digits_residual\nranges: {model.lr: [1, 2]}\nfixed: {resume: runs}", ["resume"]),
        (
            "config: digits_residual\nranges: {model.lr: [1, 2]}\nfixed: {trainer.callbacks.dirpath: ../out}",
            ["trainer.callbacks.dirpath", "../out"],
        ),
    ],
)
def test_a_wrong_file_is_refused_in_a_line(tmp_path: Path, text: str, told: list[str]) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_sweep(file)
    line = str(caught.value)
    assert all(word in line for word in ["--config", str(file), *told])
    assert "\n" not in line


@pytest.mark.parametrize(
    "options",
    [
        "fixed: {model: stranger.Stranger}\nranges: {data.batch_size: [1, 2]}",
        "fixed: {trainer.callbacks: stranger.Stranger}\nranges: {data.batch_size: [1, 2]}",
        "fixed: {trainer.callbacks: [{class_path: stranger.Stranger}]}\nranges: {data.batch_size: [1, 2]}",
        "ranges: {model.class_path: [ResidualCNN, stranger.Stranger]}",
        "ranges: {trainer.callbacks+: [Embeddings, stranger.Stranger]}",
    ],
)
def test_a_class_of_a_strangers_is_not_imported(options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text("raise SystemExit('code ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="stranger.Stranger is refused"):
        check_ranges(read_sweep(written(tmp_path, f"config: digits_residual\n{options}")))


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="--config digits_residual: .*ranges"):
        read_sweep(Path("digits_residual"))


MINE = [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": "OUT"}}]


@pytest.mark.parametrize("key", ["ranges", "fixed"])
@pytest.mark.parametrize(
    ("option", "values", "named"),
    [
        ("trainer.callbacks", [[], MINE], "trainer.callbacks.dirpath"),
        ("trainer.callbacks", [json.dumps(MINE), "[]"], "trainer.callbacks.dirpath"),
        ("trainer.default_root_dir", ["here", "OUT"], "trainer.default_root_dir"),
        ("trainer", [{"default_root_dir": "OUT"}, {}], "trainer.default_root_dir"),
        ("trainer", ['{"default_root_dir": "OUT"}', "{}"], "trainer.default_root_dir"),
        ("data.init_args.root", ["OUT", "here"], "data.root"),
    ],
)
def test_a_sweep_leads_nowhere(tmp_path: Path, key: str, option: str, values: list[object], named: str) -> None:
    out = str(tmp_path / "out")
    values = json.loads(json.dumps(values).replace("OUT", out))
    lr = {"low": 0.01, "high": 0.1}
    content: dict[str, Any] = {"config": "digits_residual", "ranges": {"model.lr": lr}, "fixed": {"budget": "1min"}}
    content[key] |= {option: values if key == "ranges" else next(one for one in values if out in json.dumps(one))}
    with pytest.raises(InputError) as caught:
        read_sweep(written(tmp_path, json.dumps(content)))
    for part in (key, named, out, "own.yaml"):
        assert part in str(caught.value)
    (tmp_path / "out").mkdir()
    if named == "data.root":
        read_sweep(written(tmp_path, json.dumps(content)))
