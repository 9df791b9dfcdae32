"""The parser of every command: it answers what is wrong in one line."""

import functools
import operator
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from pet_cifar.cli import constructors, diagnosis
from pet_cifar.cli.options import Option, alternatives, classes_in, find_class, options_of, options_of_class
from pet_cifar.data.files.plain_yaml import PlainLoader
from pet_cifar.errors import InputError, check_local

# Lightning lets jsonargparse read configs from any address, and jsonargparse would build a class that is given for a
# value of any type.
set_parsing_settings(config_read_mode_fsspec_enabled=False, instantiate_subclass_spec_in_any=False)
_read_in_c = get_loader("yaml")


def _read(text: str) -> Any:
    """Reads YAML as the library does, and also names that are no UTF-8, which its loader in C refuses."""
    try:
        return _read_in_c(text)
    except (yaml.YAMLError, UnicodeEncodeError):
        if not re.search(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]", text):
            raise
        return yaml.load(text, Loader=PlainLoader)


set_loader("yaml", _read, (yaml.YAMLError,))


class Parser(LightningArgumentParser):
    """Raises an `InputError` where the library's parser would print the usage and exit.

    Attributes:
        around_model: The context in which the net is built.
    """

    around_model: constructors.Around = staticmethod(nullcontext)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The library would silently take an option that is cut short for another one.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def prefer_whole_numbers(self) -> None:
        """Takes the 1 of ``--trainer.limit_train_batches 1`` for one batch, and 1.0 for all.

        For a number that may be whole or a share, the library tries the share first where Python itself has cached the
        two types in that order.
        """
        for action in self._actions:
            kinds = get_args(vars(action).get("_typehint"))
            if float in kinds and int in kinds[kinds.index(float) :]:
                # Optional[X] would bring the cached order back; int | X is of another type and does not.
                vars(action)["_typehint"] = functools.reduce(
                    operator.or_, sorted(kinds, key=lambda kind: kind is not int)
                )

    def also_takes(self, name: str, word: str) -> None:
        """Adds a word to those that an option takes, such as ``auto`` to those of ``--trainer.precision``."""
        (action,) = (action for action in self._actions if action.dest == name)
        vars(action)["_typehint"] = vars(action)["_typehint"] | Literal[word]

    def _add_signature_parameter(self, *args: Any, **options: Any) -> None:
        """Keeps the library from reading a file that a class is named like: only ``--config`` reads files, checked."""
        options["sub_configs"] = False
        super()._add_signature_parameter(*args, **options)

    def _create_group_if_requested(self, *args: Any, **options: Any) -> Any:
        """Does the same for a group of options, such as ``--trainer``."""
        options["config_load"] = False
        return super()._create_group_if_requested(*args, **options)  # type: ignore[no-untyped-call]

    def instantiate_classes(self, cfg: Any, **kwargs: Any) -> Any:
        """Builds the chosen classes; a refusal names the option that the user gave.

        Raises:
            InputError: A constructor refuses its arguments.
        """
        refusals: list[InputError] = []
        action = self._subcommands_action
        parser, _ = self._command(cfg.get(action.dest) if action else None, [])
        with constructors.own_words(refusals):
            return self.instantiate(
                cfg, instantiators=constructors.instantiators(parser, refusals, self.around_model), **kwargs
            )

    def dump(self, *args: Any, **options: Any) -> str:
        """Writes a config that this parser has read; to check all its values again would take most of the time."""
        return str(super().dump(*args, **{**options, "skip_validation": True}))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Tells in one line what is wrong; the library's own sentence is passed on where that is not found."""
        if not self.exit_on_error:  # This is a parser within the parser, which goes on to tell where the error was.
            super().error(message, ex)
        words = list(self.args or [])
        parser, words = self._command(words[0] if words else None, words)
        if parser is not self or self._subcommands_action is None:
            diagnosis.diagnose(parser, words)
        raise InputError(" ".join(message.split())) from ex

    def _command(self, name: str | None, words: list[str]) -> tuple["Parser", list[str]]:
        """The parser of a command and the words after it; this parser itself where it has no such command."""
        action = self._subcommands_action
        if action is None or name not in action.choices:
            return self, words
        found = action.choices[name]
        assert isinstance(found, Parser)
        return found, words[1:]


def check_values(parser: ArgumentParser, config: Namespace) -> None:
    """Refuses what the library takes although no class could use it.

    Args:
        parser: The parser of the command.
        config: What it has parsed.

    Raises:
        InputError: An argument is null, and neither its type nor its default is; or it is an address, where the class
            takes a file or a folder.
    """
    for path, option, value in _values(parser, config):
        # Where null is the default, the class knows what to do with it, whatever its type hint says.
        nullable = option.default is None or option.kind is Any or type(None) in alternatives(option.kind)
        if value is None and not nullable:
            raise InputError(diagnosis.expected(path, option.kind, None, option.default))
        if isinstance(value, str) and Path in alternatives(option.kind):
            check_local(f"--{path}", value)


def _values(parser: ArgumentParser, config: Namespace) -> Iterator[tuple[str, Option, object]]:
    """The values of all options and of the arguments of the chosen classes, each with its path and what it takes."""
    for path, option in options_of(parser).items():
        if path not in config:
            continue
        value = config[path]
        yield path, option, value
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping | Namespace) and "class_path" in one:
                cls = find_class(classes_in(option.kind), str(one["class_path"]))
                known = options_of_class(cls) if cls else {}
                for name, inner in (one.get("init_args") or {}).items():
                    if name in known:
                        yield f"{path}.{name}", known[name], inner
