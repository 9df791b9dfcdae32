"""Config files: what they hold, and what the command line changed in them."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pet_cifar.callbacks.experiment import flatten
from pet_cifar.cli import callback_options
from pet_cifar.cli.plain_parser import split_words
from pet_cifar.data.files.plain_yaml import check_plain, read_yaml, read_yaml_file
from pet_cifar.data.manifest_report import warn_line
from pet_cifar.errors import InputError
from pet_cifar.hardware import Precision

CHECKPOINT = "the config in"
"""What the source of a config begins with that stands in a checkpoint."""
_TAKEN_ALONE: dict[str, tuple[object, ...]] = {
    "strategy": ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"),
    **{"model_registry": (), "plugins": (), "profiler": ()},
}
"""What of the Trainer is taken out of a checkpoint with these values alone, which start and send nothing."""
_PROCESSES: dict[str, tuple[object, ...]] = {"strategy": ("auto",), "devices": ("auto", 1), "num_nodes": (1,)}
"""The same of those options by which Lightning starts processes, and waits for those of other machines."""


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        InputError: The file cannot be read, or holds no keys.
    """
    config = read_yaml_file(path, f"--config {path}")
    if not isinstance(config, dict):
        raise InputError(f"--config {path} holds no keys such as model, data and trainer")
    return config


def source_of(checkpoint: Path) -> str:
    """What the user is told of where a checkpoint's config stands."""
    return f"{CHECKPOINT} {checkpoint}"


def config_of_checkpoint(
    checkpoint: Mapping[str, Any],
    verb: str,
    source: str,
    *,
    goes_on: bool = False,
    words: Sequence[str] = (),
) -> dict[str, Any]:
    """The config that a checkpoint carries, without what a stranger's checkpoint must not decide.

    Args:
        checkpoint: The content of the file.
        verb: ``fit`` goes on training and takes the callbacks, the optimizer and the Trainer's numbers and words; the
            other verbs take only the net, the data, the seed, and a precision that every machine can compute in.
        source: What the config is, for the message, such as ``the config in FILE``.
        goes_on: Whether the run goes on in its own directory, for which it has the time that is left of its budget.
        words: The options that the user has typed, which no line asks for.

    Raises:
        InputError: It is no YAML, or has another shape.
    """
    text = checkpoint.get("config") or ""
    if not isinstance(text, str):
        raise InputError(f"{source} is a {type(text).__name__}, and no text; give a checkpoint of a run")
    config = read_yaml(text, source) or {}
    init_args = _init_args(config, source)
    keys: tuple[str, ...] = ("seed_everything", "model", "data")
    if verb == "fit":
        keys = (*keys, "trainer", "optimizer", "lr_scheduler", *(["budget"] if goes_on else []))
    taken = {key: config[key] for key in keys if config.get(key) is not None}
    if verb != "fit" and (precision := precision_of(config)) in get_args(Precision):
        taken["trainer"] = {"precision": precision}
    elif isinstance(trainer := taken.get("trainer"), dict):
        # A logger, a strategy or a plugin writes, sends or starts what the file says, so that the user gives it again.
        # Nor does it say how many processes are started and waited for, unless torchrun has started as many already.
        alone = _TAKEN_ALONE if _are_started(trainer) else _TAKEN_ALONE | _PROCESSES
        plain = {key for key, value in trainer.items() if _is_plain(value) and _is_taken(value, alone.get(key))}
        others = [key for key, value in trainer.items() if value is not None and key not in (*plain, "callbacks")]
        taken["trainer"] = {key: value for key, value in trainer.items() if key not in others}
        for option in (f"--trainer.{key}" for key in others):
            if not split_words(words, option)[0]:
                warn_line(f"{source}: {option} is not taken out of a checkpoint; give it again where you need it")
    hyper_parameters = checkpoint.get("hyper_parameters") or {}
    # The checkpoint holds all weights, so the net must not ask for the file of its pretrained weights again.
    init_args.update({key: hyper_parameters[key] for key in init_args if key in hyper_parameters})
    check_plain(taken, source)
    return taken


def precision_of(config: Mapping[str, Any]) -> object:
    """The Trainer's precision in a config, as it stands there; None where it says none."""
    trainer = config.get("trainer")
    return trainer.get("precision") if isinstance(trainer, Mapping) else None


def _init_args(config: object, source: str) -> dict[str, Any]:
    """The net's arguments in a config; an empty mapping where it has none."""
    if not isinstance(config, dict):
        raise InputError(f"{source} holds no keys such as model, data and trainer")
    model = config.get("model")
    init_args = model.get("init_args") if isinstance(model, dict) else None
    # A class without arguments may be a word.
    if not isinstance(model, dict | str | None) or not isinstance(init_args, dict | None):
        raise InputError(f"{source}: model: expected keys such as class_path and init_args, got {str(model)[:60]}")
    return init_args or {}


def _is_taken(value: object, harmless: tuple[object, ...] | None) -> bool:
    """Whether an option is taken out of a checkpoint with this value, where only some are, if any are named."""
    return harmless is None or (isinstance(value, str | int) and not isinstance(value, bool) and value in harmless)


def _are_started(trainer: Mapping[str, Any]) -> bool:
    """Whether torchrun has started as many processes as a config asks for."""
    devices, nodes = trainer.get("devices"), trainer.get("num_nodes") or 1
    return (
        "TORCHELASTIC_RUN_ID" in os.environ
        and type(devices) is type(nodes) is int
        and str(devices * nodes) == os.environ.get("WORLD_SIZE")
    )


def words_of_processes(trainer: Mapping[str, Any]) -> list[str]:
    """The options that say how many processes a run has, where they are not the usual ones; no checkpoint brings them.

    Args:
        trainer: The options of the Trainer.
    """
    usual = {"devices": "auto", "num_nodes": 1, "strategy": "auto"}
    asked = {name: trainer[name] for name, value in usual.items() if trainer.get(name) not in (None, value)}
    return [
        word
        for name, value in asked.items()
        for word in (f"--trainer.{name}", value if isinstance(value, str) else json.dumps(value))
    ]


def _is_plain(value: object) -> bool:
    """Whether a value names no class with arguments; a word is checked where it is used."""
    if isinstance(value, dict):
        return "class_path" not in value and all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return not (isinstance(value, str) and value.lstrip().startswith(("{", "[")))


def overridden(configs: Sequence[Mapping[str, Any]], final: Mapping[str, Any]) -> Iterator[str]:
    """One line for each option of the configs that has another value in the final config.

    Args:
        configs: What the checkpoint and the config files say.
        final: What the run does.
    """
    last = dict(flatten(final))
    for config in configs:
        for key, old in flatten(config):
            if isinstance(old, str) and f"{key}.class_path" in last:
                key = f"{key}.class_path"  # A class without arguments may be a word.
            new = last.get(key)
            if key == "trainer.callbacks":
                callbacks, final_callbacks = ([one] if isinstance(one, dict | str) else one or [] for one in (old, new))
                yield from callback_options.overridden(callbacks, final_callbacks)
            # The parser completes other lists of classes, so that they cannot be compared with what was written.
            elif isinstance(old, list) and any(isinstance(item, dict) for item in old):
                continue
            elif not _equal(key, old, new):
                yield f"overridden: --{key.replace('.init_args', '').removesuffix('.class_path')} {old} -> {new}"


def _equal(key: str, old: object, new: object) -> bool:
    if key.endswith("class_path"):
        return str(old).rpartition(".")[2] == str(new).rpartition(".")[2]
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {str(name): value for name, value in old.items()} == {str(name): value for name, value in new.items()}
    try:
        return old == new or float(str(old)) == float(str(new))
    except ValueError:
        return False
