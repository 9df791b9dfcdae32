"""Where config files are, and the names that they give to runs; importing this imports nothing heavy."""

import re
from pathlib import Path

import pet_cifar
from pet_cifar.errors import InputError, check_local, did_you_mean


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
    if not name:
        raise InputError("--config is empty; give a file or the name of a config, such as digits_residual")
    check_local("--config", name)
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


def run_name(config: Path) -> str:
    """The name that a config gives to its runs; a run's saved config keeps the name that the run has."""
    if config.name == "config.yaml" and re.fullmatch(r"version_\d+", config.absolute().parent.name):
        return config.absolute().parent.parent.name
    return config.stem
