"""A constructor's refusal, told with the option that the user gave.

From Python a class says ``lr is -1``. Where the command line builds it, the line names ``--model.lr``. Classes of other
libraries raise errors of all kinds, often without a name; which of their options is to blame is found by building the
class without it.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser

from pet_cifar.cli import log_filters
from pet_cifar.cli.options import classes_in, options_of, options_of_class
from pet_cifar.errors import InputError

Instantiator = tuple[Callable[..., Any], type, bool]
Around = Callable[[], AbstractContextManager[None]]


def instantiators(
    parser: ArgumentParser, refusals: list[InputError], around_model: Around = nullcontext
) -> list[Instantiator]:
    """Builders for all classes that the parser's options take, and for those within these.

    Args:
        parser: The parser of the command.
        refusals: Gets the refusal of a constructor, which the library would wrap in a page of type errors.
        around_model: The context in which the net is built.
    """
    found: dict[type, str] = {}
    for path, option in options_of(parser).items():
        for base in classes_in(option.kind):
            found.setdefault(base, path)
            for name, inner in options_of_class(base).items() if path in ("model", "data") else ():
                for cls in classes_in(inner.kind):
                    found.setdefault(cls, f"{path}.{name}")
    return [
        (partial(_build, path, refusals, around_model if path == "model" else nullcontext), base, True)
        for base, path in found.items()
    ]


def _build(option: str, refusals: list[InputError], around: Around, cls: type, *args: Any, **kwargs: Any) -> Any:
    try:
        with around():
            return cls(*args, **kwargs)
    except Exception as error:
        refusals.append(refusal(option, cls, error, kwargs, args))
        raise refusals[-1] from error


@contextmanager
def own_words(refusals: list[InputError]) -> Iterator[None]:
    """Raises a constructor's own refusal where the library has wrapped it."""
    try:
        yield
    except Exception:
        if refusals:
            raise refusals[-1] from None
        raise


def refusal(
    option: str, cls: type, error: Exception, kwargs: Mapping[str, Any], args: Sequence[Any] = ()
) -> InputError:
    """What to tell of an error that a constructor raised.

    Args:
        option: The option that the class was chosen with, such as ``trainer.callbacks``.
        cls: The class.
        error: The error.
        kwargs: The arguments that the class was to be built with.
        args: Those of them that have no name.

    Returns:
        One line that names the option to blame, as far as it is found.

    Raises:
        Exception: The error itself, where one of our own classes fails and none of its arguments is to blame.
    """
    if isinstance(error, InputError):
        message = name_option(option, cls, str(error))
        if "--" not in message:
            message = f"--{option} {cls.__name__}: {message}"
        return InputError(message)
    words = " ".join(str(error).split()) or type(error).__name__
    with log_filters.silence():
        culprit = _culprit(partial(cls, *args), cls, kwargs)
    if culprit is not None:
        return InputError(f"--{option}.{culprit} {kwargs[culprit]}: {words}")
    if cls.__module__.startswith("pet_cifar."):
        raise error
    return InputError(f"--{option} {cls.__name__}: {words}")


def name_option(option: str, cls: type, message: str) -> str:
    """Puts the whole option in the place of the argument with which a message begins.

    Args:
        option: The option that the class was chosen with, such as ``model``.
        cls: The class, after whose name the argument may stand (``Board's max_megabytes is -1``).
        message: The message.
    """
    found = re.match(rf"(?:{cls.__name__}(?:'s?)? )?([a-z_]\w*(?:\.\w+)*)(?=[ :,])", message)
    if found is None or found[1].split(".")[0] not in options_of_class(cls):
        return message
    return f"--{option}.{found[1]}{message[found.end() :]}"


def _culprit(build: Callable[..., Any], cls: type, kwargs: Mapping[str, Any]) -> str | None:
    """The argument that fails on its own, or else the one without which the others succeed."""
    parameters = inspect.signature(cls).parameters
    needed = {name for name in kwargs if name in parameters and parameters[name].default is inspect.Parameter.empty}
    free = [name for name in kwargs if name not in needed and not _is_default(parameters.get(name), kwargs[name])]
    alone = {name: [name, *needed] for name in free}
    others = {name: [other for other in (*free, *needed) if other != name] for name in free}
    for name in free:
        if not _succeeds(build, kwargs, alone[name]) and _succeeds(build, kwargs, needed):
            return name
    for name in free:
        if _succeeds(build, kwargs, others[name]):
            return name
    return next(iter(needed)) if len(needed) == 1 else None


def _is_default(parameter: inspect.Parameter | None, value: object) -> bool:
    return parameter is not None and isinstance(value, str | float | int | None) and parameter.default == value


def _succeeds(build: Callable[..., Any], kwargs: Mapping[str, Any], names: Any) -> bool:
    try:
        build(**{name: kwargs[name] for name in names})
    # Whatever another library raises, it did not succeed.
    except Exception:
        return False
    return True
