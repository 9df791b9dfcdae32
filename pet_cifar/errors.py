"""The errors that a user is meant to read, and the checks of arguments that raise them."""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

ANOTHER_ROOT = ", or set the root to another folder"
ELSEWHERE = ", or put runs elsewhere: --trainer.default_root_dir DIR"
"""They end the line about a file that cannot be written: one beside the data, one of a run."""


class InputError(Exception):
    """A problem with the user's data or arguments.

    Its message is one line: what is wrong, with which file or argument, and what to do. A constructor begins it with
    the bare name of the argument (``lr is -1``), in whose place the command line puts the option (``--model.lr is
    -1``). The command line prints the line without a traceback and exits with `status`.
    """

    status: ClassVar[int] = 2


class NotFiniteError(InputError):
    """A loss that is infinite or not a number; the run has failed, although nothing of its input could be refused."""

    status: ClassVar[int] = 1


class DataMissingError(InputError):
    """Data that is not where the root says, and was not downloaded either."""


class RunRefusedError(InputError):
    """A run that has begun and cannot be made as it was asked for; nothing of it is kept to go on from."""


@contextmanager
def disk_errors(path: Path, otherwise: str = ANOTHER_ROOT) -> Iterator[None]:
    """Turns an error of the local disk into an `InputError` about the file, so that nothing else is blamed for it.

    Args:
        path: The file or folder that is written.
        otherwise: What else the user can do than making room for it.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room or give write permission there{otherwise}"
        ) from error


def check_new_folder(option: str, folder: Path) -> None:
    """Refuses a folder in which something lies already.

    Args:
        option: The option that names it.
        folder: The folder.

    Raises:
        InputError: Something lies there, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{option} {folder}: there is something already; give a new folder")


def check_local(name: str, path: object) -> None:
    """Refuses an address in the place of a file or a folder of this machine; nothing is sent there.

    Args:
        name: The option or argument.
        path: What was given.

    Raises:
        InputError: It has the form of an address, such as ``https://...`` or ``s3://...``.
    """
    # fsspec, with which Lightning opens files, also takes a scheme with two colons; a `Path` keeps one slash of two. A
    # single letter is a drive.
    if re.match(r"\w[\w+.-]+(:/|::)", str(path)):
        raise InputError(
            f"{name} {path} is an address, and only files of this machine are taken; download it, and give the file"
        )


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuses a word that an argument does not know.

    Args:
        name: The argument's name.
        value: The value that was given.
        choices: The values that it knows.

    Raises:
        InputError: The value is none of them.
    """
    if value not in (known := list(choices)):
        near = did_you_mean(str(value), map(str, known))
        raise InputError(f"{name} is {value!r}; it is one of {', '.join(map(str, known))}{near}")


def check_positive(name: str, value: float, otherwise: str = "") -> None:
    """Refuses a factor or divisor of 0, below 0, of infinity, or that is not a number.

    Args:
        name: The argument's name.
        value: The value that was given.
        otherwise: What else the user can do.

    Raises:
        InputError: The value is not a number above 0.
    """
    if not 0 < value < math.inf:
        raise InputError(f"{name} is {value}; it is a number above 0{otherwise}")


def check_stages(widths: Sequence[int], blocks: int = 1) -> None:
    """Refuses a net without layers, and layers without channels.

    Args:
        widths: The channels of each stage.
        blocks: The blocks of each stage.

    Raises:
        InputError: There is no number, or one below 1.
    """
    if blocks < 1:
        raise InputError(f"blocks is {blocks}; give the blocks of a stage, at least 1")
    if not widths or min(widths) < 1:
        raise InputError(f"widths are {list(widths)}; give the channels of one stage or more, each at least 1")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A clause that names the nearest known word; it is empty where none is near."""
    near = nearest(word, words)
    return f"; did you mean {near}?" if near else ""


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The known word that is spelled most alike, or that begins alike; case, dashes and underscores do not count."""
    known = {_letters(one): one for one in reversed(list(words))}
    key = _letters(word)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    # A word of one or two letters begins like too many.
    alike = [one for one in known if len(key) > 2 and len(one) > 2 and (one.startswith(key) or key.startswith(one))]
    return known[(close or alike)[0]] if close or alike else None


def _letters(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum() or letter in "./")
