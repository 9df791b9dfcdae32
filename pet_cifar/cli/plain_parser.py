"""The parser of the commands that have a few options of their own, and words that are needed before any parser."""

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pet_cifar.errors import InputError, did_you_mean

OPTIONS_OF_FIT = ("--model", "--model.", "--data", "--data.", "--trainer", "--trainer.", "--optimizer.")
"""How the options of ``fit`` begin that the commands of several runs pass on."""


class PlainParser(argparse.ArgumentParser):
    """The standard library's parser, which tells of a wrong option as every other command does.

    Args:
        hints: What to say of an option that other commands have and this one lacks, by the option. An option that ends
            in a dot, such as ``--trainer.``, stands for all that begin so.
        **options: Those of the standard library's parser.

    Raises:
        InputError: In ``parse_args``, a word is wrong.
    """

    def __init__(self, *, hints: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._hints = hints or {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses the words, after those were refused that have a hint."""
        for word in args or ():
            if word == "--":
                break
            name = word.partition("=")[0]
            for option, hint in self._hints.items():
                if name == option or (option.endswith(".") and name.startswith(option)):
                    raise InputError(f"{name}: {hint}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raises the message, with an option that the wrong one may stand for."""
        wrong = re.search(r"unrecognized arguments: (\S+)", message)
        near = did_you_mean(wrong[1].partition("=")[0], list(self._option_string_actions)) if wrong else ""
        raise InputError(f"{message}{near or f'; see {self.prog} --help'}")


class _Finder(argparse.ArgumentParser):
    """Finds one option and leaves all other words as they are."""

    def error(self, message: str) -> NoReturn:
        # All that can be wrong with one option of one value is that the value is missing.
        raise InputError(f"{self._actions[0].option_strings[-1]} needs a value; see pet-cifar COMMAND --help")


def split_words(words: Sequence[str], *names: str) -> tuple[list[str], list[str]]:
    """Takes an option out of the words.

    Args:
        words: Options and their values.
        names: The option's names, such as ``-c`` and ``--config``.

    Returns:
        The option's values in their order, and the other words.
    """
    finder = _Finder(add_help=False, allow_abbrev=False)
    finder.add_argument(*names, dest="values", action="append", default=[])
    # What stands behind two dashes is no option.
    end = words.index("--") if "--" in words else len(words)
    found, others = finder.parse_known_args(list(words[:end]))
    return found.values, [*others, *words[end:]]


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether the user wants nothing but help."""
    return any(word in ("-h", "--help") or word.partition("=")[0].endswith(".help") for word in words)
