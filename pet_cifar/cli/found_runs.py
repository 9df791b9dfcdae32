"""Runs of a config and a seed among the run directories, and how far they have come."""

import contextlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pet_cifar.callbacks.experiment import flatten, says_nothing
from pet_cifar.cli import configs, precision, slurm_job
from pet_cifar.errors import InputError
from pet_cifar.runs.continuation import ends_a_run
from pet_cifar.runs.directory import read_checkpoint

OF_ONE_CALL = ("config", "ckpt_path", "run", "resume", "trust", "print_model", "test", "seed_everything")
"""Keys of a config that say how a run was called; the seed is compared on its own."""


@dataclass(frozen=True)
class WantedRun:
    """A run that is asked for.

    Attributes:
        name: The name of the runs' directory.
        words: The options of ``fit``, without the seed.
        config: The whole config that they stand for.
        seed: The seed.
    """

    name: str
    words: Sequence[str]
    config: Mapping[str, Any]
    seed: int

    @property
    def title(self) -> str:
        """What the user is shown."""
        return f"{self.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """The directory in which all runs of this name lie."""
        root = self.config["trainer"]["default_root_dir"]
        return Path(root or "").expanduser() / "lightning_logs" / self.name

    @property
    def words_of_processes(self) -> list[str]:
        """The options of its processes that are not the usual ones."""
        return configs.words_of_processes(self.config["trainer"])

    @property
    def can_resume(self) -> bool:
        """Whether ``fit`` has an option that goes on with a run in its own directory."""
        return "resume" in self.config


@dataclass(frozen=True)
class FoundRun:
    """A run that is there.

    Attributes:
        folder: The run directory.
        has_checkpoint: Whether it can be gone on with.
        is_trained: Whether its training has come to its end.
        is_tested: Whether its test was made after that.
    """

    folder: Path
    has_checkpoint: bool
    is_trained: bool
    is_tested: bool

    @property
    def accuracy(self) -> float:
        """The share of the test pictures that it gets right."""
        metrics = json.loads((self.folder / "test" / "metrics.json").read_text(encoding="utf-8"))
        return float(metrics["test/acc"])


def whole_config(words: Sequence[str], said: Sequence[tuple[str, Mapping[str, Any]]] = ()) -> dict[str, Any]:
    """The config that options of ``fit`` stand for, with all defaults, as a run would keep it.

    Args:
        words: The options.
        said: What of them a file says, by what the file is; its classes are checked as those of a config.

    Raises:
        InputError: An option is wrong.
    """
    from pet_cifar.cli.trainer import run_trainer

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        run_trainer(["fit", *words, "--print_config"], said=said)
    found: dict[str, Any] = yaml.safe_load(text.getvalue())
    if (trainer := found["trainer"])["precision"] == precision.AUTO:
        trainer["precision"], _ = precision.settled(trainer["accelerator"], {})
    return found


def begun_before_requeue(command: Sequence[str]) -> Path | None:
    """The run that a command has begun before its SLURM job was requeued; None where there is none.

    Args:
        command: The verb and its options, as they were typed.

    Raises:
        InputError: An option is wrong.
    """
    if not slurm_job.may_go_on(command):
        return None
    return slurm_job.run_of_command(command, whole_config(command[1:])["trainer"]["default_root_dir"])


def find_runs(wanted: WantedRun) -> list[FoundRun]:
    """The runs with the config and the seed, the one that has come furthest first, and of several the newest.

    A directory whose config cannot be read is none of them.
    """
    if not wanted.folder.is_dir():
        return []
    versions = [path for path in wanted.folder.iterdir() if re.fullmatch(r"version_\d+", path.name)]
    found = []
    for folder in sorted(versions, key=lambda path: int(path.name.removeprefix("version_")), reverse=True):
        try:
            config = configs.read_config(folder / "config.yaml")
        except InputError:
            continue
        if config.get("seed_everything") == wanted.seed and not differences(config, wanted.config):
            found.append(_examined(folder))
    return sorted(found, key=lambda run: (not run.is_tested, not run.is_trained))


def differences(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The options in which two whole configs differ; one that is missing, or says what null means, counts as null."""
    ours, theirs = (
        {
            key: value
            for key, value in flatten(one)
            if key.partition(".")[0] not in OF_ONE_CALL and not says_nothing(key, value)
        }
        for one in (config, other)
    )
    return [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]


def _examined(folder: Path) -> FoundRun:
    last, metrics = folder / "checkpoints" / "last.ckpt", folder / "test" / "metrics.json"
    if not last.is_file():
        return FoundRun(folder, has_checkpoint=False, is_trained=False, is_tested=False)
    # Whoever tests a run trusts that it is trained, unless it was trained on since.
    if metrics.is_file() and metrics.stat().st_mtime >= last.stat().st_mtime:
        return FoundRun(folder, has_checkpoint=True, is_trained=True, is_tested=True)
    try:
        checkpoint = read_checkpoint(last)
    except InputError:  # It was cut short when it was written.
        return FoundRun(folder, has_checkpoint=False, is_trained=False, is_tested=False)
    return FoundRun(folder, has_checkpoint=True, is_trained=ends_a_run(checkpoint), is_tested=False)
