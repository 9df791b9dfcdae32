"""The parser of every command: a wrong option is answered in one line, with the closest right one."""

import functools
import inspect
import operator
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn, get_args

from jsonargparse import Namespace
from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

from pet_cifar.data import ImageDataModule
from pet_cifar.data.augment import Augment
from pet_cifar.errors import InputError, did_you_mean
from pet_cifar.training import ImageClassifier

# of an option that may also be null, within a class
_WRONG_VALUE = (
    r"class_path .*? Parser key \"([\w.]+)\": Does not validate .*?Subtypes: \[(.+?), <class 'NoneType'>\] "
    r".*?Given value:(.*?) - Expected a <class 'NoneType'>"
)
# of an option that takes words, numbers or both
_NO_KIND = (
    r"Parser key \"([\w.]+)\": Does not validate against any of the Union subtypes "
    r"Subtypes: \[((?:<class '\w+'>|typing\.Literal\[[^\]]+\]|, )+)\] Errors: - Expected .*?Given value: (\S+)"
)


class Parser(LightningArgumentParser):
    """Raises an `InputError` where the library's would print the usage and exit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # an option cut short would be taken for another one without a word
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def take_whole_numbers_as_such(self) -> None:
        """Takes the 1 of ``--trainer.limit_train_batches 1`` for one batch, and 1.0 for all.

        Of a number that may be whole or a share the library tries the share first, where Python itself has cached
        the two types in that order.
        """
        for action in self._actions:
            kinds = get_args(vars(action).get("_typehint"))
            if float in kinds and int in kinds[kinds.index(float) :]:
                # int | X is of another type than Optional[X], whose order would be the cached one again
                vars(action)["_typehint"] = functools.reduce(
                    operator.or_, sorted(kinds, key=lambda kind: kind is not int)
                )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Tells what is wrong in one line."""
        if not self.exit_on_error:  # a parser within the parser, whose error is still to be put in its place
            super().error(message, ex)
        raise InputError(self._explain(" ".join(message.split()))) from ex

    def _explain(self, message: str) -> str:
        key = re.match(r"Parser key \"([\w.]+)\"", message)
        name = key[1] if key else ""
        if wrong := re.search(r"Parser key \"([\w.]+)\": Expected an? (.+?)\. Got value: (\S+)", message):
            return f"--{name}.{wrong[1]}: expected {_plain(wrong[2])}, got {wrong[3]}"
        if wrong := re.search(r"class_path '[\w.]*?(\w+)': the following arguments are required: (\w+)", message):
            return f"--{name} {wrong[1]}: {wrong[2]} is missing; give --{name}.{wrong[2]} after it"
        if wrong := re.search(r"(?:class_path '[\w.]*?(\w+)': )?Option '([\w.]+)' is not accepted", message):
            near = did_you_mean(wrong[2], _argument_names(name, wrong[1]))
            return f"--{name}.{wrong[2]}: there is no such option{near}; see --{name}.help {wrong[1] or 'CLASS'}"
        if wrong := re.search(r"Expected a dot import path string: (\S+)", message):
            classes = [cls.__name__ for cls in _subclasses(name)]
            # of callbacks there are dozens
            known = f"; there are {classes}" if name in ("model", "data") else ""
            return f"--{name} {wrong[1]}: there is no such class{did_you_mean(wrong[1], classes)}{known}"
        if wrong := re.search(_NO_KIND, message):
            path = ".".join(re.findall(r"Parser key \"([\w.]+)\"", message[: wrong.end(1) + 1]))
            kinds = wrong[2].removesuffix(", <class 'NoneType'>")
            return f"--{path}: expected {_plain(kinds)}, got {wrong[3]}"
        if wrong := re.search(_WRONG_VALUE, message):
            return f"--{name}.{wrong[1]}: expected {_plain(wrong[2])}, got {wrong[3].strip() or 'nothing'}"
        if wrong := re.search(r"Errors: - Expected an? (.+?) - Expected .* Given value: (\S+)", message):
            return f"--{name}: expected {_plain(wrong[1])}, got {wrong[2]}"
        if wrong := re.search(r"[Uu]nrecognized arguments: (-{0,2}[\w.]+)", message):
            return message + did_you_mean(wrong[1], list(self._option_string_actions))
        if wrong := re.search(r"arguments are required: \w+\.(model|data)", message):
            what = wrong[1]
            return f"no {what} is given; give --config FILE, such as configs/digits_residual.yaml, or --{what} CLASS"
        return message


@contextmanager
def unwrapped() -> Iterator[None]:
    """Brings out the words of a constructor, which jsonargparse wraps in a page of type errors."""
    try:
        yield
    except MisconfigurationException as error:  # the Trainer's
        raise InputError(" ".join(str(error).split())) from error
    except ValueError as error:
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, InputError):
            inner = inner.__cause__
        # another library's
        words = re.search(r"Union subtypes Subtypes: .*? Errors: - (.+?) - ", " ".join(str(error).split()))
        if inner is None and words:
            raise InputError(words[1]) from error
        raise inner or error from None


def refuse_null(option: str, chosen: Namespace) -> None:
    """Refuses null for an argument that needs a value, which the library takes for one that is not given.

    Args:
        option: ``model`` or ``data``.
        chosen: its ``class_path`` and ``init_args``.
    """
    module, _, name = chosen["class_path"].rpartition(".")
    parameters = _parameters(getattr(import_module(module), name))
    for key, value in (chosen.get("init_args") or {}).items():
        one = parameters.get(key)
        # where it is the default the class knows what to do with it, whatever it is said to take
        if value is not None or one is None or one.default is None:
            continue
        kind = one.annotation
        if not isinstance(kind, str) and kind not in (Any, one.empty) and type(None) not in get_args(kind):
            raise InputError(f"--{option}.{key}: expected {_plain(str(kind))}, got null")


def _plain(kind: str) -> str:
    return re.sub(r"<class '(\w+)'>", r"\1", kind).replace("typing.Literal", "one of ")


def _subclasses(option: str) -> list[type]:
    bases: dict[str, type] = {"model": ImageClassifier, "data": ImageDataModule, "trainer.callbacks": Callback}
    found: list[type] = [bases[option]] if option in bases else []
    for cls in found:
        found += cls.__subclasses__()
    return found


def _argument_names(option: str, cls: str | None) -> list[str]:
    """Of a class by its name, or of all that the option takes."""
    classes = [one for one in _subclasses(option) if cls in (None, one.__name__)]
    classes += [Augment] if option == "data" else []
    return [name for one in classes for name in _parameters(one)]


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class and, where it hands the others on, of its bases."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__[:-1]:
        own = inspect.signature(base).parameters.values()
        named = [one for one in own if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        found = {one.name: one for one in named} | found
        if not any(one.kind is one.VAR_KEYWORD for one in own):
            break
    return found
