"""What a user is meant to read when something is wrong."""

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ANOTHER_ROOT = ", or set the root to another folder"


class InputError(Exception):
    """A problem with the user's data or arguments.

    Its message is one line: what is wrong, with which file or key, and what to do. The command line prints that
    line without a traceback and exits with status 2.
    """


@contextmanager
def disk_errors(path: Path, otherwise: str = ANOTHER_ROOT) -> Iterator[None]:
    """Turns an error of the local disk into one `InputError`; no mirror, archive or picture is blamed for it.

    Args:
        path: what is written.
        otherwise: what else can be done than making room for it.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room or give write permission there{otherwise}"
        ) from error


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Refuses a word that an option does not know.

    Args:
        name: of the option.
        value: that was given.
        choices: that there are.

    Raises:
        InputError: it is none of them.
    """
    if value not in (known := list(choices)):
        nearest = did_you_mean(str(value), map(str, known))
        raise InputError(f"{name} is {value!r}; it is one of {', '.join(map(str, known))}{nearest}")


def check_positive(name: str, value: float, otherwise: str = "") -> None:
    """Refuses what nothing can be multiplied with or divided by: 0, a negative number, infinity, or none at all.

    Args:
        name: of the option.
        value: that was given.
        otherwise: what else can be done.

    Raises:
        InputError: it is not a number above 0.
    """
    if not 0 < value < math.inf:
        raise InputError(f"{name} is {value}; it is a number above 0{otherwise}")


def check_stages(widths: Sequence[int], blocks: int = 1) -> None:
    """Refuses a net without layers, and layers without channels.

    Raises:
        InputError: there is no number, or one below 1.
    """
    if blocks < 1:
        raise InputError(f"blocks is {blocks}; give the blocks of a stage, at least 1")
    if not widths or min(widths) < 1:
        raise InputError(f"widths are {list(widths)}; give the channels of one stage or more, each at least 1")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A clause naming the nearest known word; empty where none is near."""
    nearest = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]}?" if nearest else ""
