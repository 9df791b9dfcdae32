"""What stands on the command line and in its configs, before anything heavy parses it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from pet_cifar.errors import InputError

FROM_DATA = ("num_classes", "num_channels", "image_size")
"""What a net takes from its data, whatever its own options say."""


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        InputError: it cannot be read, or holds no keys.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise InputError(f"--config {path} holds no keys such as model, data and trainer")
    return config


def name_of(config: Path) -> str:
    """The config's own name; a run's saved config goes by the name that the run went by."""
    if config.name == "config.yaml" and re.fullmatch(r"version_\d+", config.absolute().parent.name):
        return config.absolute().parent.parent.name
    return config.stem


def config_of(checkpoint: Mapping[str, Any], verb: str) -> dict[str, Any]:
    """What a checkpoint says of its run: all of it to go on training, net and data to score it."""
    config: dict[str, Any] = yaml.safe_load(checkpoint.get("config", "")) or {}
    if verb == "fit":
        config = {key: value for key, value in config.items() if key not in ("ckpt_path", "run", "print_model")}
    else:
        config = {key: config[key] for key in ("seed_everything", "model", "data") if key in config}
    arguments = config.get("model", {}).get("init_args", {})
    # a net with pretrained weights does not ask for their file again
    arguments.update(
        {key: checkpoint["hyper_parameters"][key] for key in arguments if key in checkpoint["hyper_parameters"]}
    )
    return config


def values(options: Sequence[str], names: Sequence[str]) -> list[str]:
    """What follows the options of these names, or stands behind their equals signs."""
    found = []
    for option, following in zip_longest(options, options[1:], fillvalue=""):
        if option in names:
            found.append(following)
        elif option.split("=", 1)[0] in names:
            found.append(option.split("=", 1)[1])
    return found


def check_follows_data(given: Sequence[Mapping[str, Any]], options: Sequence[str], data: Mapping[str, object]) -> None:
    """Refuses what is asked of the net where its data, which decides, has something else.

    Args:
        given: configs, of which the last wins.
        options: which win over the configs.
        data: what the data has, by the name of the net's argument.

    Raises:
        InputError: they differ.
    """
    for name, has in data.items():
        asked = has
        for config in given:
            asked = dict(_flatten(config)).get(f"model.init_args.{name}", asked)
        for text in values(options, (f"--model.{name}", f"--model.init_args.{name}")):
            asked = yaml.safe_load(text)
        if asked != has:
            way = f"give --data.image_size {asked}" if name == "image_size" else "leave it out"
            raise InputError(f"--model.{name} is {asked}, but the net follows the data, whose is {has}; {way}")


def take(options: Sequence[str], name: str) -> tuple[list[str], str | None]:
    """Removes an option; returns what is left and the option's last value, None where it is not there."""
    found = values(options, (name,))
    rest: list[str] = []
    skip = False
    for option in options:
        if skip or option == name:
            skip = not skip
        elif not option.startswith(f"{name}="):
            rest.append(option)
    return rest, found[-1] if found else None


def asks_for_help(options: Sequence[str]) -> bool:
    """Whether nothing but help is wanted."""
    return any(option in ("-h", "--help") or option.endswith(".help") for option in options)


def overridden(given: Sequence[Mapping[str, Any]], final: Mapping[str, Any]) -> Iterator[str]:
    """One line for each option of the ``given`` configs that has another value in the ``final`` one."""
    last = dict(_flatten(final))
    for config in given:
        for key, old in _flatten(config):
            # what the parser makes of a list of callbacks cannot be compared with what was written
            if isinstance(old, list) and any(isinstance(item, dict) for item in old):
                continue
            new = last.get(key)
            if not _equal(key, old, new):
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


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        # a mapping by numbers, such as epochs, is one value
        if isinstance(value, Mapping) and not all(str(name).isdigit() for name in value):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
