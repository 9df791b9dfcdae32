"""The parser of every command: a wrong option is answered in one line, with the closest right one."""

import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from pet_cifar.cli import did_you_mean
from pet_cifar.errors import InputError


class Parser(LightningArgumentParser):
    """Raises an `InputError` where the library's would print the usage and exit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Tells what is wrong in one line."""
        raise InputError(" ".join(message.split()) + self._advice(message)) from ex

    def _advice(self, message: str) -> str:
        wrong = re.search(r"(?:[Uu]nrecognized arguments|[Kk]ey|[Oo]ption)s?:? ['\"]?(-{0,2}[\w.]+)", message)
        return did_you_mean(wrong[1], list(self._option_string_actions)) if wrong else ""

    def print_usage(self, *_: Any) -> None:
        """Prints nothing: the usage of some hundred options hides the line that matters."""
