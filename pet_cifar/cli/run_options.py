"""The options of one of the Trainer's verbs, completed from its config files and its checkpoint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_cifar.cli import config_files, configs, slurm_job
from pet_cifar.cli.first_look import refuse_missing_net
from pet_cifar.cli.launchers import is_first_process
from pet_cifar.cli.plain_parser import asks_for_help, split_words
from pet_cifar.errors import InputError, check_local
from pet_cifar.names import printable
from pet_cifar.runs import directory
from pet_cifar.runs.continuation import Continuation, continuation_of, is_finished


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

    def let_go(self) -> None:
        """Lets other processes train in the directory of the run that goes on."""
        if self.continued is not None:
            self.continued.let_go()


def complete(
    args: Sequence[str], said: Sequence[tuple[str, Mapping[str, Any]]] = (), own: Path | None = None
) -> RunOptions:
    """Completes the options of a verb.

    Args:
        args: The verb and its options.
        said: What of the options another file says, by what the file is; its classes are checked as those of a config.
        own: The run that the command has begun before its SLURM job was requeued, with which it goes on.

    Returns:
        The options; the directory of a run that goes on is held until `RunOptions.let_go`.

    Raises:
        InputError: A file that is named cannot be read or used, or a verb that needs a net has none.
        SystemExit: The run of the command has come to its end before its SLURM job was requeued, with the status 0.
    """
    continued, content, words = resumed(args, own)
    try:
        return _completed(args, words, said, continued, content)
    except BaseException:
        if continued is not None:
            continued.let_go()
        raise


def _completed(
    args: Sequence[str],
    words: list[str],
    said: Sequence[tuple[str, Mapping[str, Any]]],
    continued: Continuation | None,
    content: dict[str, Any] | None,
) -> RunOptions:
    verb = args[0]
    wants_help = asks_for_help(words)
    # A config is weaker than the options, wherever it stands among them.
    names, words = split_words(words, "-c", "--config")
    runs, words = split_words(words, "--run")
    if runs:
        words = ["--ckpt_path", str(directory.best_checkpoint(directory.find_run(runs[-1]))), *words]
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
        own = configs.config_of_checkpoint(content, verb, source, goes_on=continued is not None, words=words)
        if own:
            words = ["--config", json.dumps(own), *words]
            given.insert(0, (source, own))
    name = config_files.run_name(files[-1]) if files else ""
    return RunOptions([verb, *words], args, name, checkpoint, given, continued, processes)


def resumed(
    args: Sequence[str], own: Path | None = None
) -> tuple[Continuation | None, dict[str, Any] | None, list[str]]:
    """Takes ``--resume`` out of the words; a SLURM job that was requeued needs none.

    Args:
        args: The verb and its options.
        own: The run that the command has begun before its SLURM job was requeued.

    Returns:
        The run that goes on and what its checkpoint holds, or None twice; and the options, with ``--ckpt_path``.

    Raises:
        InputError: There is no such run, or the options contradict each other.
        SystemExit: The run of the command has come to its end before its SLURM job was requeued, with the status 0.
    """
    verb, *words = args
    _, words = split_words(words, "--trust")  # The command has read them already.
    runs, others = split_words(words, "--resume")
    if asks_for_help(others):
        return None, None, others
    checkpoints, without = split_words(others, "--ckpt_path")
    trains = not any(word.startswith(slurm_job.LOOKS) for word in others)
    if runs:
        run = runs[-1]
        if verb != "fit":
            raise InputError(f"--resume {run}: only fit goes on with a run; give {verb} --run {run}")
        if checkpoints:
            raise InputError("--resume and --ckpt_path both name a checkpoint to go on from; leave one of them out")
    else:
        if own is None:
            return None, None, others
        if is_finished(own):
            if is_first_process():
                print(printable(f"{own} has come to its end in this job already: nothing is left to do"), flush=True)
            raise SystemExit(0)
        run = str(own)
    found, content = continuation_of(run, holds=trains and is_first_process())
    return found, content, ["--ckpt_path", str(found.checkpoint), *without]
