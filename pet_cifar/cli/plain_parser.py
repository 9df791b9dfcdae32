"""The parser of the commands that have a few options of their own and need neither a net's nor a data module's."""

import argparse
import re
from typing import Any, NoReturn

from pet_cifar.errors import InputError, did_you_mean


class PlainParser(argparse.ArgumentParser):
    """The standard library's parser, which tells of a wrong option as every other command does.

    Raises:
        InputError: In ``parse_args``, a word is wrong.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises the message, with an option that the wrong one may stand for."""
        wrong = re.search(r"unrecognized arguments: (\S+)", message)
        near = did_you_mean(wrong[1].partition("=")[0], list(self._option_string_actions)) if wrong else ""
        raise InputError(f"{message}{near or f'; see {self.prog} --help'}")
