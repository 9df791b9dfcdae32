"""The words of the command line that are needed before the whole of it is parsed."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import yaml

from pet_cifar.callbacks.experiment import flatten
from pet_cifar.errors import InputError

FOLLOWS_DATA = ("num_classes", "num_channels", "image_size")
"""The arguments of a net that its data decides."""


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
    found, others = finder.parse_known_args(list(words))
    return found.values, others


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether the user wants nothing but help."""
    return any(word in ("-h", "--help") or word.partition("=")[0].endswith(".help") for word in words)


def check_follows_data(configs: Sequence[Mapping[str, Any]], words: Sequence[str], data: Mapping[str, object]) -> None:
    """Refuses an option of the net that contradicts its data, since the data decides.

    Args:
        configs: The configs, of which the last wins.
        words: The words of the command line, which win over the configs.
        data: What the data has, by the name of the net's argument.

    Raises:
        InputError: The net is asked for something else.
    """
    for name, has in data.items():
        asked = has
        for config in configs:
            asked = dict(flatten(config)).get(f"model.init_args.{name}", asked)
        for text in split_words(words, f"--model.{name}", f"--model.init_args.{name}")[0]:
            asked = yaml.safe_load(text)
        if asked != has:
            remedy = f"give --data.image_size {asked}" if name == "image_size" else "leave it out"
            raise InputError(f"--model.{name} is {asked}, but the net follows the data, which has {has}; {remedy}")
