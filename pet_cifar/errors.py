"""What a user is meant to read when something is wrong."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """A problem with the user's data or arguments.

    Its message is one line: what is wrong, with which file or key, and what to do. The command line prints that
    line without a traceback and exits with status 2.
    """


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """A clause naming the nearest known word; empty where none is near."""
    nearest = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]}?" if nearest else ""
