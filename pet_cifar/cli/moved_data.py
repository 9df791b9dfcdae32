"""Where a run's data lies whose place is relative, for a user who is in another directory than at its beginning."""

from collections.abc import Mapping
from pathlib import Path

from pet_cifar.cli.places import DATA_ROOT, folder_of_logs
from pet_cifar.cli.run_options import RunOptions
from pet_cifar.data.root import data_root
from pet_cifar.errors import DataMissingError


def with_place_of_data(error: DataMissingError, asked: RunOptions) -> DataMissingError | None:
    """The error about data that is not there, with the place that a file may mean; None where there is no such place.

    A relative ``data.root`` counts from the working directory. In the config of a run it was written for the directory
    that the run began in, in which its ``lightning_logs`` may still lie.

    Args:
        error: What the command ends with.
        asked: What the command was asked for.
    """
    if any(word.partition("=")[0] == f"--{DATA_ROOT}" for word in asked.typed):
        return None
    says = ((source, config["data"]) for source, config in reversed(asked.given) if config.get("data"))
    source, data = next(says, ("", None))
    init_args = data.get("init_args") if isinstance(data, Mapping) else None
    named = init_args.get("root") if isinstance(init_args, Mapping) else None
    file = Path(source.removeprefix("--config ")) if source.startswith("--config ") else asked.checkpoint
    if data is None or file is None or not isinstance(named, str | None):
        return None
    root = data_root(named)
    there = folder_of_logs(file) / root
    if root.is_absolute() or not there.exists() or there.resolve() == root.resolve():
        return None
    return DataMissingError(f"{error}; {root} counts from the working directory, and there is one at {there.resolve()}")
