"""What options there are: of a parser, of a class, and which values each takes.

Everything here is read from the parser's own type hints, so that no list of options is kept by hand.
"""

import dataclasses
import functools
import types
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from inspect import isabstract, isclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser


@dataclasses.dataclass(frozen=True)
class Option:
    """One option.

    Args:
        kind: The type hint of its values.
        required: Whether the class cannot be built without it.
        default: The value that it has where nobody gives one.
    """

    kind: Any
    required: bool = False
    default: Any = None


def options_of(parser: ArgumentParser) -> dict[str, Option]:
    """The options of a parser by their dotted names, without those of the classes that a user can choose."""
    return {
        action.dest: Option(vars(action)["_typehint"], action.required, action.default)
        for action in parser._actions
        if "_typehint" in vars(action) and "help" not in action.dest.split(".")
    }


@functools.cache
def options_of_class(cls: type) -> dict[str, Option]:
    """The arguments of a class, with those that it hands on to its bases."""
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_class_arguments(cls, None, fail_untyped=False, sub_configs=True)
    except ValueError:  # The class, such as SaveConfig, takes what no command line can give.
        return {}
    return options_of(parser)


def flags_of(parser: ArgumentParser) -> set[str]:
    """The options that take no value, such as ``--print_model``, and those that need none, such as ``--model.help``."""
    return {
        name
        for action in parser._actions
        if action.nargs == 0 or action.dest.endswith("help") or action.dest == "print_config"
        for name in action.option_strings
    }


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type hint itself."""
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(part for member in get_args(kind) for part in alternatives(member))
    return (kind,)


def classes_in(kind: Any) -> list[type]:
    """The classes of which a user can choose one, in a type hint such as ``list[Callback] | Callback | None``."""
    found: list[type] = []
    for one in alternatives(kind):
        members = [
            member for inner in get_args(one) for member in alternatives(inner) if get_origin(one) is not Literal
        ]
        for cls in (one, *members):
            if isclass(cls) and get_origin(cls) is None and not _is_plain(cls) and cls not in found:
                found.append(cls)
    return found


def _is_plain(cls: type) -> bool:
    return cls is object or cls.__module__ in ("builtins", "datetime", "pathlib", "collections.abc", "typing")


def subclasses_of(bases: Iterable[type]) -> Iterator[type]:
    """The classes and all that are derived from them, as far as they are imported."""
    for base in bases:
        yield base
        yield from subclasses_of(base.__subclasses__())


def choices(bases: Sequence[type]) -> list[type]:
    """The classes that can be chosen, each once: neither abstract nor private, and no base that others are made of."""
    made_of = {base for base in bases if base.__subclasses__()}
    # Nets have bases of their own, such as TransferClassifier, which are not nets.
    made_of |= {base for cls in subclasses_of(bases) if _is_ours(cls) for base in cls.__bases__ if _is_ours(base)}
    found = dict.fromkeys(cls for cls in subclasses_of(bases) if not isabstract(cls) and cls.__name__[0] != "_")
    return [cls for cls in found if cls not in made_of]


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("pet_cifar.")


def find_class(bases: Iterable[type], name: str) -> type | None:
    """The class of this name, or at this dotted path; None where there is none."""
    bases = tuple(bases)
    module, _, last = name.rpartition(".")
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    if not module:
        return next((cls for cls in subclasses_of(bases) if cls.__name__ == name), None)
    try:
        found = getattr(import_module(module), last, None)
    except Exception:  # a module may fail in any way while it is imported
        return None
    return found if isclass(found) and issubclass(found, bases) else None


def accepts(kind: Any, value: object) -> bool:
    """Whether a value, as text from the command line or as read from YAML, is of a kind."""
    if value in (None, "null", "~"):  # The library takes null for a value that is not given.
        return kind is Any or type(None) in alternatives(kind)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        if isinstance(value, str):
            parser.parse_args([f"--value={value}"])
        else:
            parser.parse_object({"value": value})
    except (ArgumentError, TypeError, ValueError):
        return False
    return True


def described(kind: Any) -> str:
    """A type hint in words, such as ``a number or null``."""
    words: list[str] = []
    literals: list[str] = []
    for one in alternatives(kind):
        if get_origin(one) is Literal:
            literals += [str(value) for value in get_args(one) if str(value) not in literals]
        else:
            words.append(_one_described(one))
    if literals:
        words.append(("one of " if len(literals) > 1 else "") + ", ".join(literals))
    words.sort(key=lambda word: word == "null")
    return " or ".join(dict.fromkeys(words))


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "null",
    timedelta: "a time such as 00:01:30:00",
}
_EXAMPLES = {int: "[16, 32]", float: "[0.5, 0.5]"}


def _one_described(kind: Any) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Callable:
        return "a function such as math.sqrt"
    if isclass(origin) and issubclass(origin, Mapping):
        example = {(int, str): "{3: block4}", (str, float): "{dog: 3}"}.get(inner, "{hours: 1}")
        return f"a mapping such as '{example}'"
    if inner and inner[0] in _EXAMPLES:
        return f"a list such as '{_EXAMPLES[inner[0]]}'"
    if inner:
        return f"a list of {_one_described(alternatives(inner[0])[0]).removeprefix('a ')}"
    if dataclasses.is_dataclass(kind):
        first = dataclasses.fields(kind)[0]
        return f"options of its own such as '{{{first.name}: {str(first.default).lower()}}}'"
    return f"a {kind.__name__}" if isclass(kind) else str(kind)
