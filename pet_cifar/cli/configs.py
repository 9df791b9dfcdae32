"""Config files: the shipped ones by their names, what they hold, and what the command line changed in them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import pet_cifar
from pet_cifar.callbacks.experiment import flatten
from pet_cifar.cli import callback_options
from pet_cifar.errors import InputError, did_you_mean


def shipped_configs() -> dict[str, Path]:
    """The configs that come with the project, by name.

    An installed package has them within itself, a checkout has them beside the package.
    """
    package = Path(pet_cifar.__file__).parent
    folder = next((one for one in (package / "configs", package.parent / "configs") if one.is_dir()), package)
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_config(name: str) -> Path:
    """The file of ``--config``: a path, or the name of a shipped config with or without ``.yaml``.

    A file that exists under this path wins over a shipped one.

    Raises:
        InputError: There is neither.
    """
    path = Path(name)
    try:
        if path.is_file():
            return path
        is_directory = path.is_dir()
    except OSError as error:  # for example a name of more characters than the file system allows
        raise InputError(f"--config {name[:60]}: {error.strerror}; give a file or the name of a config") from error
    shipped = shipped_configs()
    stem = path.name.removesuffix(".yaml").removesuffix(".yml")
    if path.parent == Path() and stem in shipped:
        return shipped[stem]
    near = f"; did you mean --config {stem}?" if stem in shipped else did_you_mean(stem, shipped)
    what = "it is a directory" if is_directory else "there is no such file"
    raise InputError(f"--config {name}: {what}; the shipped configs are {', '.join(shipped)}{near}")


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        InputError: The file cannot be read, or holds no keys.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise InputError(f"--config {path} holds no keys such as model, data and trainer")
    return config


def run_name(config: Path) -> str:
    """The name that a config gives to its runs; a run's saved config keeps the name that the run has."""
    if config.name == "config.yaml" and re.fullmatch(r"version_\d+", config.absolute().parent.name):
        return config.absolute().parent.parent.name
    return config.stem


def config_of_checkpoint(checkpoint: Mapping[str, Any], verb: str) -> dict[str, Any]:
    """The config that a checkpoint carries.

    Args:
        checkpoint: The content of the file.
        verb: ``fit`` goes on training and takes the whole config; the other verbs take only the net and the data.
    """
    config: dict[str, Any] = yaml.safe_load(checkpoint.get("config", "")) or {}
    if verb == "fit":
        of_one_call = ("ckpt_path", "run", "resume", "print_model")
        config = {key: value for key, value in config.items() if key not in of_one_call}
    else:
        config = {key: config[key] for key in ("seed_everything", "model", "data") if key in config}
    init_args = config.get("model", {}).get("init_args", {})
    # The checkpoint holds all weights, so the net must not ask for the file of its pretrained weights again.
    init_args.update(
        {key: checkpoint["hyper_parameters"][key] for key in init_args if key in checkpoint["hyper_parameters"]}
    )
    return config


def overridden(configs: Sequence[Mapping[str, Any]], final: Mapping[str, Any]) -> Iterator[str]:
    """One line for each option of the configs that has another value in the final config.

    Args:
        configs: What the checkpoint and the config files say.
        final: What the run does.
    """
    last = dict(flatten(final))
    for config in configs:
        for key, old in flatten(config):
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
