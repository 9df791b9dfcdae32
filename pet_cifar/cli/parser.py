"""The parser of every command: it answers what is wrong in one line."""

import functools
import operator
from collections.abc import Mapping
from typing import Any, NoReturn, get_args

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from pet_cifar.cli import constructors, diagnosis
from pet_cifar.cli.options import Option, alternatives, classes_in, find_class, options_of, options_of_class
from pet_cifar.errors import InputError


class Parser(LightningArgumentParser):
    """Raises an `InputError` where the library's parser would print the usage and exit."""

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

    def instantiate_classes(self, cfg: Any, **kwargs: Any) -> Any:
        """Builds the chosen classes; a refusal names the option that the user gave.

        Raises:
            InputError: A constructor refuses its arguments.
        """
        refusals: list[InputError] = []
        action = self._subcommands_action
        parser, _ = self._command(cfg.get(action.dest) if action else None, [])
        with constructors.own_words(refusals):
            return self.instantiate(cfg, instantiators=constructors.instantiators(parser, refusals), **kwargs)

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


def refuse_null(parser: ArgumentParser, config: Namespace) -> None:
    """Refuses null for an argument that needs a value; the library takes it for one that is not given.

    Args:
        parser: The parser of the command.
        config: What it has parsed.

    Raises:
        InputError: An argument is null, and neither its type nor its default is.
    """
    for path, option in options_of(parser).items():
        if path not in config:
            continue
        value = config[path]
        _refuse_null(path, option, value)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping | Namespace) and "class_path" in one:
                cls = find_class(classes_in(option.kind), str(one["class_path"]))
                known = options_of_class(cls) if cls else {}
                for name, inner in (one.get("init_args") or {}).items():
                    if name in known:
                        _refuse_null(f"{path}.{name}", known[name], inner)


def _refuse_null(path: str, option: Option, value: object) -> None:
    # Where null is the default, the class knows what to do with it, whatever its type hint says.
    nullable = option.default is None or option.kind is Any or type(None) in alternatives(option.kind)
    if value is None and not nullable:
        raise InputError(diagnosis.expected(path, option.kind, None, option.default))
