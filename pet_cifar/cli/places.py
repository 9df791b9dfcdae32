"""Places that a file names and a run would write to: a checkpoint's must lie at hand, and a config's are told.

The words that the user types are taken as they are, each for its own option. A folder in a config file may be the
user's own or anyone's, so that the user reads where the run writes. A stranger's checkpoint is taken for its net, and
nobody looks for a folder in it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_cifar.cli.diagnosis import option_values
from pet_cifar.data.files.plain_yaml import read_yaml
from pet_cifar.data.root import state_directories
from pet_cifar.errors import InputError
from pet_cifar.runs.other_runs import other_run_around

DATA_ROOT = "data.root"
_NO_PLACES = frozenset({"accelerator", "devices", "mode", "monitor", "precision", "strategy"})
"""What no option of these names is: a link in the working directory may be called ``auto`` or ``val`` by chance."""


@dataclass(frozen=True)
class Given:
    """What a file says.

    Attributes:
        source: What the file is, for the message, such as ``--config FILE``.
        config: The keys in it.
        is_checkpoint: Whether a checkpoint holds it, or the user has chosen it as a config.
    """

    source: str
    config: Mapping[str, Any]
    is_checkpoint: bool


def check_places(
    given: Sequence[Given],
    final: Mapping[str, Any],
    words: Sequence[str],
    checkpoint: Path | None,
    run: Path | None = None,
) -> Iterator[str]:
    """Refuses folders outside that a checkpoint names, and tells of those that a config file names.

    The directories of other runs count as outside for callbacks.

    Args:
        given: What the files say; the last one wins.
        final: What the run does.
        words: What the user has typed.
        checkpoint: The checkpoint that the user has named; a run may write where its runs lie.
        run: The directory of the run that goes on in it; None for a new one.

    Yields:
        A line for each place outside of the working directory that a config file names.

    Raises:
        InputError: A checkpoint names such a place.
    """
    own = [Path.cwd(), *([folder_of_logs(checkpoint)] if checkpoint is not None else [])]
    typed = _typed(words)
    for option, text in outside(final.get("trainer"), "trainer", own):
        if not _is_among(option, text, typed):
            yield from _refused_or_told(given, option, text, "leads out of the working directory", "where a run writes")
    yield from _other_runs(given, final, typed, run)
    yield from _data_root(given, final, typed)


def takes_data_root_of_checkpoint(given: Sequence[Given], final: Mapping[str, Any], words: Sequence[str]) -> bool:
    """Whether a checkpoint says where the data lies, in which case nothing is downloaded into that place.

    Args:
        given: What the files say; the last one wins.
        final: What the run does.
        words: What the user has typed.
    """
    root = _root_in(final)
    if not root or _is_among(DATA_ROOT, root, _typed(words)):
        return False
    return any(one.is_checkpoint for one in _last_that_says(given, DATA_ROOT, root))


def _other_runs(
    given: Sequence[Given], final: Mapping[str, Any], typed: Sequence[tuple[str, str]], run: Path | None
) -> Iterator[str]:
    """Does for the directories of other runs what `check_places` does for what lies outside."""
    for name, text in _texts((final.get("trainer") or {}).get("callbacks"), "trainer.callbacks"):
        others = [other for place in _places(text) if (other := other_run_around(place, run)) is not None]
        option = _shown(name)
        if others and not _is_among(option, text, typed):
            where = f"lies in the run directory {others[0]}"
            yield from _refused_or_told(given, option, text, where, "that a run writes into another")


def _refused_or_told(given: Sequence[Given], option: str, text: str, where: str, decision: str) -> Iterator[str]:
    """Refuses a place that a checkpoint names, and tells of one that a config file names."""
    for one in _last_that_says(given, option, text):
        if one.is_checkpoint:
            raise InputError(
                f"{one.source}: --{option} {text} {where}, and no checkpoint decides {decision}; give --{option} on "
                "the command line"
            )
        yield f"{one.source}: --{option} {text} {where}, and the run writes there"


def _data_root(given: Sequence[Given], final: Mapping[str, Any], typed: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The line about a data folder that a file names, and that nothing was kept beside before."""
    root = _root_in(final)
    if not root or _is_among(DATA_ROOT, root, typed) or not given or not leads_out(root, [Path.cwd()]):
        return
    beside, _ = state_directories(_expanded(root))
    if not beside.is_dir():
        yield f"--data.root {root} comes out of a file: what is derived from the pictures is kept in {beside}"


def _root_in(final: Mapping[str, Any]) -> str | None:
    data = final.get("data")
    root = (data.get("init_args") or {}).get("root") if isinstance(data, Mapping) else None
    return None if root is None else str(root)


def _typed(words: Sequence[str]) -> list[tuple[str, str]]:
    """The texts that the user has typed, each with its option."""
    return [
        found
        for name, value in option_values(words, set())
        if value is not None and name.startswith("--")
        for found in _texts(value, name[2:])
    ]


def _is_among(option: str, text: str, found: Sequence[tuple[str, str]]) -> bool:
    """Whether a place was named for this very option; two ways of writing it are the same place."""
    return any(_shown(name) == _shown(option) and (one == text or _places(one) == _places(text)) for name, one in found)


def _last_that_says(given: Sequence[Given], option: str, text: str) -> Sequence[Given]:
    """The file that decides, the first one where none has the text as it is written; none where there are no files."""
    return [one for one in given if _is_among(option, text, list(_texts(one.config, "")))][-1:] or given[:1]


def _shown(option: str) -> str:
    """An option as the user writes it, without the keys that stand between a class and its arguments."""
    return ".".join(part.removesuffix("+") for part in option.split(".") if part not in ("init_args", "dict_kwargs"))


def outside(value: object, option: str, folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """The texts within a value that are paths and lie in none of the folders, each with its option.

    Args:
        value: What a config says.
        option: The option that it is said of.
        folders: The folders that may be written to.
    """
    return ((_shown(name), text) for name, text in _texts(value, option) if leads_out(text, folders))


def leads_out(text: str, folders: Sequence[Path]) -> bool:
    """Whether a text is a path that lies in none of the folders, whatever links and variables are on its way."""
    own = [os.path.realpath(folder) for folder in folders]
    return not all(any(place.is_relative_to(folder) for folder in own) for place in _places(text))


def _places(text: str) -> list[Path]:
    """Where a path leads: with its variables and its ``~`` replaced, and as it is, since not every class does that."""
    text = text.replace("\0", "")
    try:
        return [Path(os.path.realpath(_expanded(text))), Path(os.path.realpath(text))]
    except UnicodeEncodeError:  # No file of this name can be made anywhere.
        return []


def _expanded(text: str) -> Path:
    return Path(os.path.expanduser(os.path.expandvars(text)))  # noqa: PTH111 - a Path refuses the ~ of nobody


def folder_of_logs(file: Path) -> Path:
    """The folder of ``lightning_logs`` for a file in a run directory, else the folder that it lies in."""
    folders = list(file.absolute().parents)
    logs = [place for place, folder in enumerate(folders) if folder.name == "lightning_logs"]
    return folders[logs[0] + 1] if logs else folders[0]


def _texts(value: object, option: str) -> Iterator[tuple[str, str]]:
    """All texts within a config that may be places, each with its option: neither names of classes nor such words."""
    if isinstance(value, str):
        if option.rpartition(".")[2] not in _NO_PLACES:
            yield option, value
            yield from _texts(_within(value), option)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if key != "class_path":
                within = f"{option}.{key}" if option else str(key)
                yield from _texts(one, option if key in ("init_args", "dict_kwargs") else within)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one, option)


def _within(text: str) -> object:
    """The keys or the list that the parser of the command line finds in a text; None where it finds none."""
    if not any(letter in text for letter in "{[:-"):
        return None
    try:
        found = read_yaml(text, "")
    except InputError:  # What the parser could read all the same is refused where the classes in it are checked.
        return None
    return found if isinstance(found, Mapping | list) else None
