"""The words of the command line that are needed before the whole of it is parsed."""

from collections.abc import Mapping, Sequence
from typing import Any

from pet_cifar.callbacks.experiment import flatten
from pet_cifar.cli.plain_parser import split_words
from pet_cifar.data.files.plain_yaml import read_yaml
from pet_cifar.errors import InputError

FOLLOWS_DATA = ("num_classes", "num_channels", "image_size")
"""The arguments of a net that its data decides."""


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
            asked = read_yaml(text, f"--model.{name}")
        if asked != has:
            remedy = f"give --data.image_size {asked}" if name == "image_size" else "leave it out"
            raise InputError(f"--model.{name} is {asked}, but the net follows the data, which has {has}; {remedy}")
