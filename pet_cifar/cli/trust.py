"""Checks the classes that a config names before any of them is imported.

The words of the command line are the user's own. A config file, and the config that a checkpoint holds, may come from
anyone: a class in it must be one that its option takes, and lie in a trusted module (see `pet_cifar.runs.trusted`).
A function is never taken out of a file, since calling it with what the file says could do anything.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser

from pet_cifar.cli import suggestions
from pet_cifar.cli.diagnosis import option_values
from pet_cifar.cli.options import (
    Option,
    alternatives,
    choices,
    classes_in,
    described,
    find_class,
    flags_of,
    options_of,
    options_of_class,
    subclasses_of,
)
from pet_cifar.data.files.plain_yaml import read_yaml
from pet_cifar.errors import InputError, did_you_mean
from pet_cifar.runs.trusted import import_trusted, is_trusted

_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


def check_config(parser: ArgumentParser, config: Mapping[str, Any], source: str) -> None:
    """Refuses a config that names a class which no file may name.

    Args:
        parser: The parser of the command, whose options are known.
        config: What the file holds.
        source: What it is, for the message, such as ``--config FILE``.

    Raises:
        InputError: A class or a function in it is refused, or a part of it has the wrong shape.
    """
    import_trusted()
    for key in ("trust", "config"):
        if config.get(key):
            raise InputError(f"{source}: {key} {config[key]} is refused in a file; give --{key} on the command line")
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping) and trainer.get("model_registry") is not None:
        raise InputError(
            f"{source}: --trainer.model_registry {trainer['model_registry']} would send the net there; give it on the "
            "command line"
        )
    _Check(source).keys(config, options_of(parser), "", "")


def refuse_files(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Refuses a file where a class belongs, which would be taken for the name of a module.

    Args:
        parser: The parser of the command, whose options are known.
        words: What the user has typed.

    Raises:
        InputError: A word is a file of YAML behind another option than ``--config``.
    """
    options = options_of(parser)
    for name, value in option_values(words, flags_of(parser)):
        path = name.lstrip("-").removesuffix("+")
        takes_class = bool(classes_in(options[path].kind)) if path in options else _is_group(options, path)
        if takes_class and value and Path(value).suffix.lower() in (".yaml", ".yml", ".json") and Path(value).is_file():
            raise InputError(f"{name} {value}: a file of options is given as --config {value}")


def _is_group(options: Mapping[str, Option], path: str) -> bool:
    return any(option.startswith(f"{path}.") for option in options)


class _Check:
    def __init__(self, source: str) -> None:
        self.source = source

    def keys(self, values: Mapping[Any, Any], options: Mapping[str, Option], within: str, shown: str) -> None:
        """Checks the keys of a mapping.

        Args:
            values: The mapping.
            options: Options by their dotted names.
            within: What the names of this mapping's options begin with.
            shown: What the names begin with that the user reads.
        """
        for key, value in values.items():
            self.refuse_key(shown, str(key))
            # A plus behind it adds to a list.
            path = f"{within}{key}".removesuffix("+")
            if path in options:
                self.value(f"{shown}{key}", options[path], value)
            elif not _is_group(options, path):
                if not shown and isinstance(value, Mapping) and "class_path" in value:
                    parts = {option.partition(".")[0] for option in options}
                    raise InputError(f"{self.source}: there is no key {key}{did_you_mean(str(key), sorted(parts))}")
                # The parser tells of any other key that there is not.
                self.plain(f"{shown}{key}", value)
            elif isinstance(value, Mapping):
                self.keys(value, options, f"{path}.", f"{shown}{key}.")
            elif value is not None:
                raise InputError(f"{self.source}: {shown}{key}: expected keys within it, got {value}")

    def refuse_key(self, shown: str, key: str) -> None:
        """Refuses a key that the parser of the command line would take for others."""
        if key.startswith("__"):
            raise InputError(f"{self.source}: there is no key {shown}{key}")
        if "." in key:
            name, _, rest = key.partition(".")
            raise InputError(f"{self.source}: {shown}{key} is refused; write {rest} as a key under {name}")

    def value(self, path: str, option: Option, value: object) -> None:
        """Checks the value of an option."""
        value = self.parsed(value, path)
        if value is None or isinstance(value, bool | int | float):
            return
        # Only what has a dot can be the name of a function.
        is_word = isinstance(value, str) and "." not in value and str in alternatives(option.kind)
        if _takes_code(option.kind) and value != option.default and not is_word:
            raise InputError(
                f"{self.source}: --{path} takes a function or a class, and none is taken out of a file; give it on the "
                "command line"
            )
        if isinstance(value, str):
            self.word(path, option.kind, value)
        elif isinstance(value, Mapping):
            self.mapping(path, option.kind, value)
        elif isinstance(value, list | tuple):
            for one in value:
                self.value(path, option, one)

    def word(self, path: str, kind: Any, text: str) -> None:
        """Checks a text, which may name a class where the option takes one."""
        classes = classes_in(kind)
        # A word without a dot may be none that a class has, such as a strategy's.
        if classes and _is_name(text) and ("." in text or any(one.__name__ == text for one in subclasses_of(classes))):
            self.resolve(path, kind, text)

    def mapping(self, path: str, kind: Any, value: Mapping[Any, Any]) -> None:
        """Checks a mapping: a class with its arguments, arguments alone, or the plain values of an option."""
        bases = classes_in(kind)
        if "class_path" in value:
            if not bases:
                raise InputError(f"{self.source}: --{path} takes no class, such as {value['class_path']}")
            classes = [self.resolve(path, kind, value["class_path"])]
        else:
            # The class is chosen elsewhere, and every one that may be must be able to take the arguments.
            classes = list(dict.fromkeys((*bases, *choices(bases)))) if bases else []
        arguments = value.get("init_args") if any(key in value for key in _CLASS_KEYS) else value
        for key, one in value.items():
            if key not in _CLASS_KEYS and arguments is not value:
                self.refuse_key(f"{path}.", str(key))
                self.plain(f"{path}.{key}", one)
        self.plain(f"{path}.dict_kwargs", value.get("dict_kwargs"))
        if arguments is not None and not isinstance(arguments, Mapping):
            raise InputError(f"{self.source}: --{path}: expected keys under init_args, got {arguments}")
        for cls in classes:
            self.keys(arguments or {}, options_of_class(cls), "", f"{path}.")
        if not classes:
            self.plain(path, arguments)

    def resolve(self, path: str, kind: Any, name: object) -> type:
        """The class of this name; its module is imported only where it is trusted.

        Raises:
            InputError: It is not trusted, or is none that the option takes.
        """
        bases = classes_in(kind)
        if not isinstance(name, str):
            raise InputError(f"{self.source}: --{path}: expected the name of a class, got {name}")
        if "." in name:
            self.refuse_strangers(path, name)
        cls = find_class(bases, name)
        if cls is None:
            more = " or ".join(described(one) for one in alternatives(kind) if one in (bool, str))
            names = [one.__name__ for one in choices(bases)]
            raise InputError(f"{self.source}: {suggestions.unknown_class(path, name, names, more)}")
        # A trusted module may hold what it has imported from elsewhere, and several classes may have a short name.
        for one in (cls, *(other for other in subclasses_of(bases) if other.__name__ == name)):
            self.refuse_strangers(path, f"{one.__module__}.{one.__qualname__}")
        return cls

    def refuse_strangers(self, path: str, name: str) -> None:
        """Refuses a class in a module that is not trusted."""
        if not is_trusted(name):
            module = name.rpartition(".")[0]
            raise InputError(
                f"{self.source}: --{path} {name} is refused, since {module} is none of the modules whose classes a "
                f"file may name; if you trust it, give --trust {module}"
            )

    def plain(self, path: str, value: object) -> None:
        """Refuses a class anywhere in a value of which nothing is known."""
        value = self.parsed(value, path)
        if isinstance(value, Mapping):
            if "class_path" in value:
                raise InputError(f"{self.source}: --{path} takes no class, such as {value['class_path']}")
            for key, one in value.items():
                self.plain(f"{path}.{key}", one)
        elif isinstance(value, list | tuple):
            for one in value:
                self.plain(path, one)

    def parsed(self, value: object, path: str) -> object:
        """What the parser of the command line makes of a text, which may hold keys or a list itself."""
        if not isinstance(value, str) or not any(letter in value for letter in "{[:-"):
            return value
        try:
            found = read_yaml(value, f"{self.source}: --{path}")
        except InputError as error:
            if isinstance(error.__cause__, yaml.YAMLError):  # The parser cannot read it either, and leaves it as it is.
                return value
            raise
        return found if isinstance(found, Mapping | list) else value


def _is_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.strip().split("."))


def _takes_code(kind: Any) -> bool:
    """Whether a type hint takes a function, a class itself or a module, at any depth."""
    origin = get_origin(kind) or kind
    if origin is Literal or dataclasses.is_dataclass(origin):
        return False
    if origin in (Callable, type, ModuleType) or getattr(origin, "_is_protocol", False):
        return True
    return any(_takes_code(one) for one in get_args(kind))
