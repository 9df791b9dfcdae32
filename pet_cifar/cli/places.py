"""Places that a file names and a run would write to: a checkpoint's must lie at hand, and a config's are told.

The words that the user types are taken as they are. A folder in a config file may be the user's own or anyone's, so
that the user reads where the run writes. A stranger's checkpoint is taken for its net, and nobody looks for a folder in
it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_cifar.data.root import state_directories
from pet_cifar.errors import InputError


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
    given: Sequence[Given], final: Mapping[str, Any], words: Sequence[str], checkpoint: Path | None
) -> Iterator[str]:
    """Refuses folders outside that a checkpoint names, and tells of those that a config file names.

    Args:
        given: What the files say; the last one wins.
        final: What the run does.
        words: What the user has typed.
        checkpoint: The checkpoint that the user has named; a run may write where its runs lie.

    Yields:
        A line for each place outside of the working directory that a config file names.

    Raises:
        InputError: A checkpoint names such a place.
    """
    own = [Path.cwd(), *([_root_of(checkpoint)] if checkpoint is not None else [])]
    typed = {os.path.normpath(part) for word in words for part in (word, word.partition("=")[2])}
    for option, text in outside(final.get("trainer"), "trainer", own):
        if os.path.normpath(text) in typed or any(text in word for word in words):
            continue
        said = [one for one in given if any(_same(text, other) for _, other in _texts(one.config, ""))]
        for one in said[-1:] or given[:1]:
            if one.is_checkpoint:
                raise InputError(
                    f"{one.source}: --{option} {text} leads out of the working directory, and no checkpoint decides "
                    f"where a run writes; give --{option} on the command line"
                )
            yield f"{one.source}: --{option} {text} leads out of the working directory, and the run writes there"
    yield from _data_root(given, final, typed)


def _data_root(given: Sequence[Given], final: Mapping[str, Any], typed: set[str]) -> Iterator[str]:
    """The line about a data folder that a file names, and that nothing was kept beside before."""
    data = final.get("data")
    root = (data.get("init_args") or {}).get("root") if isinstance(data, Mapping) else None
    if not root or os.path.normpath(root) in typed or not given or not leads_out(root, [Path.cwd()]):
        return
    beside, _ = state_directories(_expanded(root))
    if not beside.is_dir():
        yield f"--data.root {root} comes out of a file: what is derived from the pictures is kept in {beside}"


def outside(value: object, option: str, folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """The texts within a value that are paths and lie in none of the folders, each with its option.

    Args:
        value: What a config says.
        option: The option that it is said of.
        folders: The folders that may be written to.
    """
    return ((name, text) for name, text in _texts(value, option) if leads_out(text, folders))


def leads_out(text: str, folders: Sequence[Path]) -> bool:
    """Whether a text is a path that lies in none of the folders, whatever links are on its way."""
    if not any(sign in text for sign in ("/", "\\", "..", "~")):
        return False
    path = os.path.realpath(_expanded(text.replace("\0", "")))
    return not any(Path(path).is_relative_to(os.path.realpath(folder)) for folder in folders)


def _expanded(text: str) -> Path:
    return Path(os.path.expanduser(os.path.expandvars(text)))  # noqa: PTH111 - a Path refuses the ~ of nobody


def _same(text: str, other: str) -> bool:
    return os.path.normpath(text) == os.path.normpath(other)


def _root_of(checkpoint: Path) -> Path:
    """The folder of ``lightning_logs`` for a checkpoint in a run directory, else the folder that it lies in."""
    folders = list(checkpoint.absolute().parents)
    logs = [place for place, folder in enumerate(folders) if folder.name == "lightning_logs"]
    return folders[logs[0] + 1] if logs else folders[0]


def _texts(value: object, option: str) -> Iterator[tuple[str, str]]:
    """All texts within a config, each with its option, but the names of classes."""
    if isinstance(value, str):
        yield option, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if key != "class_path":
                within = f"{option}.{key}" if option else str(key)
                yield from _texts(one, option if key == "init_args" else within)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one, option)
