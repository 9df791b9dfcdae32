"""The options of one of the Trainer's verbs, completed from its config files and its checkpoint."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_cifar.cli import config_files, configs
from pet_cifar.cli.defaults import LOGS
from pet_cifar.cli.first_look import refuse_missing_net
from pet_cifar.cli.plain_parser import asks_for_help, split_words
from pet_cifar.errors import InputError, check_local
from pet_cifar.runs import directory
from pet_cifar.runs.continuation import Continuation, continuation_of

JOB = "slurm_job_id"
"""The file in which a run keeps the number of its SLURM job, by which the job finds it after it was requeued."""


@dataclass(frozen=True)
class RunOptions:
    """What a run is asked for.

    Attributes:
        words: The verb and its options, completed from the checkpoint.
        typed: The verb and its options as the user gave them.
        name: The name of the runs' directory; where it is empty, the net's class gives it.
        checkpoint: The checkpoint that completed the options, if any.
        given: The checkpoint's config and the config files, by what they are; the user is told what of them was
            overridden.
        continued: The run that goes on in its own directory, if one does.
        processes: How many processes have trained the checkpoint; None where it does not say.
    """

    words: Sequence[str]
    typed: Sequence[str]
    name: str
    checkpoint: Path | None
    given: Sequence[tuple[str, Mapping[str, Any]]]
    continued: Continuation | None
    processes: object

    @property
    def verb(self) -> str:
        """The verb."""
        return self.typed[0]

    @property
    def goes_on(self) -> bool:
        """Whether the run trains what a checkpoint holds, in its own directory or in a new one."""
        return self.checkpoint is not None and self.verb == "fit"

    @property
    def sources(self) -> list[str]:
        """What the configs that were given are, the weakest first."""
        return [source for source, _ in self.given]

    @property
    def files(self) -> list[Mapping[str, Any]]:
        """Those of the configs that the user has named."""
        return [config for source, config in self.given if source.startswith("--")]

    @property
    def checkpoint_config(self) -> Mapping[str, Any]:
        """The config that the checkpoint has brought, empty where none has."""
        return dict(self.given).get(configs.source_of(self.checkpoint), {}) if self.checkpoint else {}


def complete(args: Sequence[str], said: Sequence[tuple[str, Mapping[str, Any]]] = ()) -> RunOptions:
    """Completes the options of a verb.

    Args:
        args: The verb and its options.
        said: What of the options another file says, by what the file is; its classes are checked as those of a config.

    Raises:
        InputError: A file that is named cannot be read or used, or a verb that needs a net has none.
    """
    verb, *words = args
    wants_help = asks_for_help(words)
    _, words = split_words(words, "--trust")  # The command has read them already.
    # A config is weaker than the options, wherever it stands among them.
    names, words = split_words(words, "-c", "--config")
    runs, words = split_words(words, "--run")
    if runs:
        words = ["--ckpt_path", str(directory.best_checkpoint(directory.find_run(runs[-1]))), *words]
    continued, content, words = resumed(verb, words)
    files = [config_files.find_config(name) for name in names]
    given = [*((f"--config {file}", configs.read_config(file)) for file in files), *said]
    paths, _ = split_words(words, "--ckpt_path")
    for path in paths:
        check_local("--ckpt_path", path)
    named = [str(config["ckpt_path"]) for _, config in given if config.get("ckpt_path")]
    if named and not paths:  # It is read and checked as a typed one is.
        paths, words = named, ["--ckpt_path", named[-1], *words]
    checkpoint = Path(paths[-1]) if paths and paths[-1] and not wants_help else None
    if verb != "fit" and checkpoint is None and not wants_help:
        refuse_missing_net(verb)
    words = [word for file in files for word in ("--config", str(file))] + words
    processes = None
    if checkpoint is not None:
        source = configs.source_of(checkpoint)
        content = content or directory.read_checkpoint(checkpoint)
        processes = content.get("processes")
        own = configs.config_of_checkpoint(content, verb, source, goes_on=continued is not None)
        if own:
            words = ["--config", json.dumps(own), *words]
            given.insert(0, (source, own))
    name = config_files.run_name(files[-1]) if files else ""
    return RunOptions([verb, *words], args, name, checkpoint, given, continued, processes)


def requeued(words: Sequence[str]) -> Path | None:
    """The run directory of this SLURM job before it was requeued; None where it was not, or left none.

    Args:
        words: The options of ``fit``.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job or os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    roots, _ = split_words(words, "--trainer.default_root_dir")
    logs = Path(roots[-1] if roots else "").expanduser() / LOGS
    found = [file for file in logs.glob(f"*/version_*/{JOB}") if file.read_text() == job]
    return max(found, key=lambda file: file.stat().st_mtime).parent if found else None


def resumed(verb: str, words: Sequence[str]) -> tuple[Continuation | None, dict[str, Any] | None, list[str]]:
    """Takes ``--resume`` out of the words; a SLURM job that was requeued needs none.

    Args:
        verb: The Trainer's verb.
        words: Its options.

    Returns:
        The run that goes on and what its checkpoint holds, or None twice; and the words, with ``--ckpt_path``.

    Raises:
        InputError: There is no such run, or the options contradict each other.
    """
    runs, others = split_words(words, "--resume")
    checkpoints, _ = split_words(others, "--ckpt_path")
    run = runs[-1] if runs else None
    if run is None and verb == "fit" and not checkpoints and (before := requeued(others)) is not None:
        run = str(before)
    if run is None or asks_for_help(others):
        return None, None, others
    if verb != "fit":
        raise InputError(f"--resume {run}: only fit goes on with a run; give {verb} --run {run}")
    if checkpoints:
        raise InputError("--resume and --ckpt_path both name a checkpoint to go on from; leave one of them out")
    found, content = continuation_of(run)
    return found, content, ["--ckpt_path", str(found.checkpoint), *others]
