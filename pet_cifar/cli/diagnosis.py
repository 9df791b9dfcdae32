"""Which word of the command line, or which key of a config, is wrong.

The library says so in sentences about its own types. Instead of reading these, we walk through the words once more and
check each against the type hint of its option. That happens only after the library has refused the whole.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_origin

import yaml
from jsonargparse import ArgumentParser

from pet_cifar.cli import suggestions
from pet_cifar.cli.config_files import shipped_configs
from pet_cifar.cli.configs import read_config
from pet_cifar.cli.options import (
    Option,
    accepts,
    alternatives,
    choices,
    classes_in,
    described,
    find_class,
    flags_of,
    options_of,
    options_of_class,
)
from pet_cifar.data.files.plain_yaml import read_yaml
from pet_cifar.errors import InputError, did_you_mean


def diagnose(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Refuses the first word that is wrong; returns where none is found to be.

    Args:
        parser: The parser of the command, whose options are known.
        words: The options and values that it was given, those of the checkpoint's config among them.

    Raises:
        InputError: A word is wrong.
    """
    walk = _Walk(parser)
    for name, value in option_values(words, flags_of(parser)):
        walk.check_word(name, value)
    walk.check_complete()


def expected(option: str, kind: Any, value: object, default: object = None) -> str:
    """The line about a value of the wrong kind."""
    text = "null" if value is None else value or "nothing"
    line = f"--{option}: expected {described(kind)}, got {text}"
    single = [one for one in alternatives(kind) if one is not type(None)]
    # Other tools take 16,32 for a list.
    if getattr(single[0], "__origin__", None) is list and re.fullmatch(r"[\d.]+(,[\d.]+)+", str(value)):
        return f"{line}; write '[{', '.join(str(value).split(','))}]'"
    return f"{line}; its default is {default}" if text == "null" and default is not None else line


def option_values(words: Sequence[str], flags: set[str]) -> Iterator[tuple[str, str | None]]:
    """Each option with its value; None where no value follows, and a word that follows no option on its own."""
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name in flags:
            continue
        if not name.startswith("-"):
            yield f"{name}{equals}{value}", None
        elif equals:
            yield name, value
        else:
            # A negative number is a value as well.
            follows = bool(rest) and (not rest[0].startswith("-") or bool(re.fullmatch(r"-\d*\.?\d+", rest[0])))
            yield name, rest.pop(0) if follows else None


class _Walk:
    """The state of the walk: which classes are chosen so far, and which of their arguments are given."""

    def __init__(self, parser: ArgumentParser) -> None:
        self.parser = parser
        self.options = options_of(parser)
        self.chosen: dict[str, type] = {}
        self.given: set[str] = set()
        self.source = ""

    def check_word(self, name: str, value: str | None) -> None:
        if name in ("-c", "--config"):
            if value is None:
                raise InputError(f"{name} needs a value: a file, or the name of a shipped config")
            self._check_config(value)
        elif not name.startswith("-"):
            raise InputError(suggestions.stray_word(name, self._known(), shipped_configs()))
        elif not name.startswith("--"):
            raise InputError(suggestions.unknown_option(name, value, self._known()))
        else:
            path, option = self._find(name[2:].removesuffix("+"), name, value)
            if value is None:
                raise InputError(f"{name} needs a value; expected {described(option.kind)}")
            self._check(path, option, value)

    def check_complete(self) -> None:
        for path in self.chosen:
            self._check_required(path)
        for section, example in (("model", "ResidualCNN"), ("data", "DigitsDataModule")):
            if section in self.options and section not in self.chosen:
                raise InputError(
                    f"no {section} is given; give --config FILE, such as --config digits_residual, or --{section} "
                    f"CLASS, such as --{section} {example}"
                )

    def _check_required(self, path: str) -> None:
        cls = self.chosen[path]
        for name, option in options_of_class(cls).items():
            if option.required and f"{path}.{name}" not in self.given and self._needs_arguments(path):
                raise InputError(
                    f"{self.source}--{path} {cls.__name__}: {name} is missing; give --{path}.{name} after it"
                )

    def _needs_arguments(self, path: str) -> bool:
        return path in self.options and path not in ("optimizer", "lr_scheduler")

    # Finding options

    def _known(self) -> dict[str, list[str]]:
        """All options; those that the chosen net or data module lacks with the names of the classes that have them."""
        found: dict[str, list[str]] = {path: [] for path in self.options}
        for path, option in self.options.items():
            own = options_of_class(self.chosen[path]) if path in self.chosen else {}
            found |= {f"{path}.{name}": [] for name in own}
            for cls in choices(classes_in(option.kind)) if path in ("model", "data") else ():
                for name, inner in options_of_class(cls).items():
                    if path not in self.chosen or name in own:
                        found[f"{path}.{name}"] = []
                    else:
                        found.setdefault(f"{path}.{name}", []).append(cls.__name__)
                    for part in filter(is_dataclass, classes_in(inner.kind)):
                        found |= {f"{path}.{name}.{field.name}": [] for field in fields(part)}
        return found

    def _find(self, key: str, name: str, value: str | None) -> tuple[str, Option]:
        """The option that a dotted key stands for, by the path that the command line gives it."""
        parts = key.split(".")
        for length in range(len(parts), 0, -1):
            path = ".".join(parts[:length])
            if path in self.options:
                return self._within(path, self.options[path], parts[length:])
        if any(option.startswith(f"{key}.") for option in self.options):
            within = next(option for option in self.options if option.startswith(f"{key}."))
            raise InputError(f"{name}: this is no option itself; there are options within it, such as --{within}")
        if self.source:
            raise InputError(self.source + suggestions.unknown_key(key, self._known()))
        raise InputError(suggestions.unknown_option(name, value, self._known()))

    def _within(self, path: str, option: Option, rest: list[str]) -> tuple[str, Option]:
        """The option at the end of a path that leads through the arguments of chosen classes."""
        rest = [part for part in rest if part not in ("init_args", "dict_kwargs")]
        if not rest or rest == ["class_path"]:
            return path, option
        bases = classes_in(option.kind)
        classes = [self.chosen[path]] if path in self.chosen else choices(bases)
        if bases and path in self.options and path not in self.chosen and path not in ("model", "data"):
            plus = "+" if f"--{path}+" in self.parser._option_string_actions else ""
            raise InputError(f"--{path}.{'.'.join(rest)}: this is no option yet; give --{path}{plus} CLASS before it")
        for cls in classes:
            arguments = options_of_class(cls)
            if rest[0] in arguments:
                self.given.add(f"{path}.{rest[0]}")
                return self._within(f"{path}.{rest[0]}", arguments[rest[0]], rest[1:])
        if any(get_origin(one) is dict or one is dict for one in alternatives(option.kind)):
            return path, Option(Any)
        if not bases:
            raise InputError(f"{self.source}--{path}.{'.'.join(rest)}: --{path} has no options within it")
        names = dict.fromkeys(name for cls in classes for name in options_of_class(cls))
        raise InputError(f"{self.source}{self._no_argument(path, rest[0], list(names), classes)}")

    def _no_argument(self, path: str, name: str, names: list[str], classes: list[type]) -> str:
        owner = classes[0].__name__ if len(classes) == 1 else "CLASS"
        known = self._known()
        if owners := known.get(f"{path}.{name}"):
            return f"--{path}.{name}: {owner} has no such option; {' and '.join(owners)} would take it"
        near = did_you_mean(name, names)
        if not near and suggestions.meant_option(name, known):
            return suggestions.unknown_option(f"--{path}.{name}", None, known)
        has_help = f"--{path}.help" in self.parser._option_string_actions
        more = f"; see --{path}.help {owner}" if has_help else f"; there are {', '.join(names)}"
        return f"--{path}.{name}: there is no such option{more}{near}"

    # Checking values

    def _check(self, path: str, option: Option, value: object) -> None:
        bases = classes_in(option.kind)
        if not bases:
            if not accepts(option.kind, value):
                raise InputError(self.source + expected(path, option.kind, value, option.default))
            return
        parsed = _parsed(value)
        if isinstance(parsed, Mapping):
            self._check_class(path, option, parsed)
        elif isinstance(parsed, list):
            for one in parsed:
                if path in self.chosen:
                    self._check_required(path)
                self._check(path, option, one)
        elif isinstance(parsed, str) and (cls := find_class(bases, parsed)) and not all(map(is_dataclass, bases)):
            self.chosen[path] = cls
        elif not accepts(option.kind, value):
            self._refuse_class(path, option, value)

    def _check_class(self, path: str, option: Option, value: Mapping[Any, Any]) -> None:
        """Checks a class with its arguments, as a config writes them."""
        bases = classes_in(option.kind)
        arguments = value
        if "class_path" in value:
            cls = find_class(bases, str(value["class_path"]))
            if cls is None:
                self._refuse_class(path, option, value["class_path"])
            else:
                self.chosen[path] = cls
        if "class_path" in value or "init_args" in value:
            for key in value.keys() - {"class_path", "init_args", "dict_kwargs", "__path__"}:
                raise InputError(f"{self.source}--{path}: write {key} under init_args, beside which it stands")
            arguments = value.get("init_args") or {}
        elif path not in self.chosen and not all(map(is_dataclass, bases)):
            raise InputError(
                f"{self.source}--{path}: its class is missing; write class_path: CLASS, and "
                f"{', '.join(map(str, value))} under init_args"
            )
        for key, one in arguments.items():
            self._check(*self._within(path, option, str(key).split(".")), one)

    def _refuse_class(self, path: str, option: Option, value: object) -> None:
        bases = classes_in(option.kind)
        if not isinstance(value, str) or all(map(is_dataclass, bases)) or not isinstance(_parsed(value), str):
            raise InputError(self.source + expected(path, option.kind, value, option.default))
        others = tuple(one for one in alternatives(option.kind) if one in (bool, str))
        more = " or ".join(described(one) for one in others)
        names = [cls.__name__ for cls in choices(bases)]
        raise InputError(self.source + suggestions.unknown_class(path, value, names, more))

    def _check_config(self, value: str) -> None:
        if value.lstrip().startswith("{"):
            config = read_yaml(value, "--config")
        else:
            config = read_config(Path(value))
            self.source = f"--config {value}: "
        self._check_keys(config, "")
        self.source = ""

    def _check_keys(self, config: Mapping[Any, Any], prefix: str) -> None:
        for key, value in config.items():
            path = f"{prefix}{key}"
            inner = any(option.startswith(f"{path}.") for option in self.options)
            if path not in self.options and inner and isinstance(value, Mapping):
                self._check_keys(value, f"{path}.")
            elif path not in self.options and inner:
                raise InputError(f"{self.source}{path}: expected keys within it, got {value}")
            elif path not in _FLAGS:
                self._check(*self._find(path, f"--{path}", str(value)), value)


# Keys that a saved config holds although they are flags on the command line.
_FLAGS = ("print_model", "print_config", "config", "subcommand")


def _parsed(value: object) -> object:
    """What YAML makes of a text; the text itself where it is none."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value
