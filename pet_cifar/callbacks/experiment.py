"""What makes two runs the same experiment: a config without its seed, and without what changes no result."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pet_cifar.data.files.plain_yaml import read_yaml_file
from pet_cifar.data.files.regular import read_json

RECORD = "run.json"
CHANGES_NOTHING = {
    *("seed_everything", "ckpt_path", "run", "resume", "trust", "print_model", "test", "weights_only", "threads"),
    *("trainer.logger", "trainer.default_root_dir", "trainer.enable_progress_bar", "trainer.enable_model_summary"),
    *("trainer.log_every_n_steps", "trainer.profiler", "trainer.enable_autolog_hparams", "trainer.model_registry"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.inference_mode"),
    *("data.init_args.root", "data.init_args.num_workers", "data.init_args.cache", "data.init_args.on_bad_file"),
    "data.init_args.allow_other_data",
}
"""The options that do not make another experiment."""
SAYS_NOTHING = {"trainer.precision": ("32-true", "32", 32)}
"""Values of options that do what a run does where nothing is said, as ``auto`` may have become one of them."""


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make an experiment, each with its keys joined by dots.

    Of callbacks only those count that are not this package's own, since these look and never touch. Of a file of
    weights its name counts, since it may lie elsewhere on another machine.
    """
    found: dict[str, Any] = {}
    for key, value in flatten(config):
        # An option that is null is as one that an earlier version did not have.
        if key in CHANGES_NOTHING or says_nothing(key, value):
            continue
        if key == "trainer.callbacks":
            value = [one for one in (value if isinstance(value, list) else [value]) if not _looks(one)]
        elif key == "model.init_args.weights" and isinstance(value, str):
            # Every run has a best.ckpt, which its directory tells from the others.
            value = "/".join(Path(value).parts[-4:]) if value.endswith(".ckpt") else Path(value).name
        found[key] = value
    return found


def says_nothing(key: str, value: object) -> bool:
    """Whether an option has no value, or one that means the same."""
    return value is None or value in SAYS_NOTHING.get(key, ())


def _looks(callback: Any) -> bool:
    name = callback.get("class_path", "") if isinstance(callback, Mapping) else str(callback)
    return str(name).startswith("pet_cifar.callbacks.")


def key_of(options: Mapping[str, Any]) -> str:
    """A hash of an experiment's options."""
    text = json.dumps(sorted((str(key), str(value)) for key, value in options.items()))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def read_config(run: Path) -> dict[str, Any]:
    """A run directory's ``config.yaml``; empty where there is no such file.

    Raises:
        InputError: It cannot be read.
    """
    if not (run / "config.yaml").is_file():
        return {}
    config = read_yaml_file(run / "config.yaml", str(run / "config.yaml"))
    return config if isinstance(config, dict) else {}


def read_options(run: Path) -> dict[str, Any]:
    """The options of a run directory's experiment; none where it has no config."""
    return options_of(read_config(run))


def experiment_of(run: Path) -> str:
    """The hash of a run directory's experiment, by its config or else its record; empty where it has neither."""
    if options := read_options(run):
        return key_of(options)
    return str((read_record(run) or {}).get("experiment", ""))


def read_record(run: Path) -> dict[str, Any] | None:
    """What ``run.json`` says in a run directory; None where it is not there, or damaged.

    It is not flushed to the disk, so that a machine that stopped may have left it empty.
    """
    try:
        record = read_json(run / RECORD)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def read_seed(run: Path) -> str:
    """The seed of a run directory's run; empty where it has no config."""
    seed = read_config(run).get("seed_everything")
    return "" if seed is None or isinstance(seed, bool) else str(seed)


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a nested config, each with its keys joined by dots."""
    for key, value in config.items():
        # A mapping whose keys are numbers, such as epochs, is one value.
        if isinstance(value, Mapping) and not all(str(name).isdigit() for name in value):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
