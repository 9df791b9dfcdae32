"""Writes what a run was into TensorBoard's Text tab: command, config, data, net, versions and hardware."""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml
from lightning import Trainer

from pet_cifar.callbacks.board import Board
from pet_cifar.callbacks.environment import environment
from pet_cifar.callbacks.images.base import EvalSplit, ImageCallback, escape
from pet_cifar.data import manifest_report
from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.models.summary import summary
from pet_cifar.training.classifier import ImageClassifier


class RunCard(ImageCallback):
    """Writes the run's card into TensorBoard's Text tab, once, at the start.

    Args:
        command: The command that repeats the run; null takes the one that was typed.
    """

    by_default = False  # The command line makes it itself, because it knows the command.

    def __init__(self, command: str | None = None) -> None:
        super().__init__(every_n_epochs=0)
        self.command = command
        self._trainer: Trainer | None = None

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Remembers the trainer, which the card describes."""
        super().setup(trainer, pl_module, stage)
        self._trainer = trainer

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Forgets the trainer."""
        self._trainer = None

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Writes nothing, because the card has not changed."""

    def draw(self, module: ImageClassifier, data: ImageDataModule, board: Board, split: EvalSplit, when: str) -> None:
        """Writes ``run/command``, ``run/config``, ``run/data``, ``run/net`` and ``run/environment``."""
        assert self._trainer is not None
        saved = board.directory / "config.yaml"
        config = saved.read_text(encoding="utf-8") if saved.is_file() else _arguments(module, data, self._trainer)
        cards = {
            "command": _code(wrap_command(self.command or shlex.join(sys.argv))),
            "config": _code(config),
            "data": _data_card(data),
            "net": _code(summary(module)),
            "environment": _environment_card(self._trainer),
        }
        for name, content in cards.items():
            board.text(f"run/{name}", content)


def wrap_command(command: str, width: int = 80) -> str:
    """Breaks a command into lines that begin with an option; a shell takes the result as it is."""
    lines: list[list[str]] = [[]]
    for word in shlex.split(command):
        if word.startswith("-") and len(shlex.join([*lines[-1], word])) > width:
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(map(shlex.join, lines))


def _code(content: str) -> str:
    # The lines are indented, because a config may contain the character that Markdown quotes with.
    return "\n".join(f"    {line}" for line in content.splitlines())


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines: list[Sequence[object]] = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _arguments(module: ImageClassifier, data: ImageDataModule, trainer: Trainer) -> str:
    """The arguments of net, data and trainer as YAML, for a run without a config file."""
    names = ("image_size", "batch_size", "val_fraction", "split_seed", "cache")
    return yaml.safe_dump(
        {
            "model": {type(module).__name__: dict(module.hparams_initial)},
            "data": {type(data).__name__: {"root": str(data.root), **{name: getattr(data, name) for name in names}}},
            "trainer": {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps},
        },
        sort_keys=False,
    )


def _data_card(data: ImageDataModule) -> str:
    counts = {split: Counter(record.label for record in records) for split, records in data.splits.items()}
    rows: list[Sequence[object]] = [
        [escape(name), *(own[name] for own in counts.values())] for name in data.class_names
    ]
    rows.append(["all", *(own.total() for own in counts.values())])
    left_out = escape(manifest_report.describe_left_out(data.listed)) or "no file was left out"
    return (
        f"{type(data).__name__} at `{data.root}`, {data.image_size} x {data.image_size} x {data.num_channels}, "
        f"split_seed {data.split_seed}, fingerprint `{data.fingerprint[:16]}`\n\n"
        f"{_table(['class', *counts], rows)}\n\n{left_out}"
    )


def _environment_card(trainer: Trainer) -> str:
    return _table(["what", "which"], list(environment(trainer).items()))
