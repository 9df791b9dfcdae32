"""Reads YAML that may come from anyone: it is small, names no type of Python's, and cannot grow when it is read."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from pet_cifar.data.files.regular import check_regular
from pet_cifar.errors import InputError
from pet_cifar.names import printable

MAX_BYTES = 2**18
"""No config comes near."""
MAX_VALUES = 50_000
"""The values of a text once every alias stands for what it repeats."""
LETTERS_OF_A_VALUE = 100
"""The letters of a text that count as one more value, since an alias repeats them, too."""
MAX_DEPTH = 40
MAX_LETTERS = 10_000
"""The letters of one value; PyYAML reads a long number in quadratic time."""
LETTERS_SHOWN = 200
"""The letters of each end of a long text that a line repeats."""


class PlainLoader(yaml.SafeLoader):
    """Takes a date for text, as the parser of the command line does.

    PyYAML's own loader in Python, unlike the one in C, reads the escapes of names that are no UTF-8.
    """


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader in C, with which the parser of the command line reads."""


PlainLoader.yaml_implicit_resolvers = _FastLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str, source: str) -> Any:
    """Reads a text as mappings, lists, texts, numbers, truths and nulls.

    Args:
        text: The text.
        source: What it is, for the message, such as ``--config FILE``.

    Raises:
        InputError: It is no YAML, is large or deep, has tags, would grow beyond `MAX_VALUES` values, or is not the same
            to all that read it.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{source} has more than {MAX_BYTES // 2**10} kB of YAML; give a config, which is short")
    try:
        _check_events(yaml.parse(text, Loader=PlainLoader), source)
        found = yaml.load(text, Loader=PlainLoader)
    # A number of thousands of digits and a wrong escape raise what is no error of YAML's.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{source} cannot be read as YAML: {_shown(' '.join(str(error).split()))}") from error
    with suppress(yaml.YAMLError, ValueError):  # Names that are no UTF-8 are read by one of the two alone.
        if repr(yaml.load(text, Loader=_FastLoader)) != repr(found):
            raise InputError(f"{source} can be read in two ways; put a space behind each colon and each comma")
    return found


def read_yaml_file(path: Path, source: str) -> Any:
    """Reads a file as `read_yaml` does.

    Raises:
        InputError: It cannot be read, or `read_yaml` refuses its content.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        return read_yaml(content.decode("utf-8"), source)
    except (OSError, UnicodeDecodeError) as error:
        # A decoding error would repeat the whole content.
        reason = error.strerror if isinstance(error, OSError) else f"{error.reason} at byte {error.start}"
        raise InputError(f"{source} cannot be read as YAML: {reason}; give a text file in UTF-8") from error


def check_plain(value: object, source: str) -> None:
    """Refuses what no YAML could hold, or what is too large or too deep once every repeated part is written out.

    Args:
        value: What a file other than YAML has given, such as a checkpoint's hyper-parameters.
        source: What it is, for the message.

    Raises:
        InputError: It is not made of mappings, lists, texts, numbers, truths and nulls, or is too large.
    """
    # The parts of one level are counted with repetitions, so that a value that repeats itself is found in few steps.
    level: list[object] = [value]
    count = 0
    for _ in range(MAX_DEPTH):
        count += sum(_weight(one) if isinstance(one, str) else 1 for one in level)
        if count > MAX_VALUES:
            break
        below: list[object] = []
        for one in level:
            if isinstance(one, Mapping):
                below += [*one.keys(), *one.values()]
            elif isinstance(one, list | tuple):
                below += one
            elif not isinstance(one, str | int | float | None):
                raise InputError(f"{source} holds a {type(one).__name__}, where only text and numbers belong")
            if len(below) > MAX_VALUES:
                break
        if not below:
            return
        level = below
    raise InputError(f"{source} holds more than {MAX_VALUES:,} values or {MAX_DEPTH} levels; give a config")


def _shown(words: str) -> str:
    """What a text of a stranger looks like within a line: without control codes, and its two ends where it is long."""
    found = printable(words)
    return found if len(found) <= 2 * LETTERS_SHOWN else f"{found[:LETTERS_SHOWN]} ... {found[-LETTERS_SHOWN:]}"


def _weight(text: str) -> int:
    """For how many values a text counts."""
    return 1 + len(text) // LETTERS_OF_A_VALUE


def _check_events(events: Iterable[yaml.Event], source: str) -> None:
    """Refuses tags, depth and growth before anything is built."""
    # Each open list or mapping with its anchor and the values that it holds so far.
    open_parts: list[tuple[str | None, int]] = [(None, 0)]
    sizes: dict[str, int] = {}
    for event in events:
        size, anchor = 0, None
        if isinstance(event, yaml.AliasEvent):
            if any(event.anchor == name for name, _ in open_parts):
                raise InputError(
                    f"{source}: the alias *{_shown(str(event.anchor))} stands for what it is within; write it out"
                )
            # PyYAML itself refuses an alias that stands for nothing.
            size = sizes.get(str(event.anchor), 0)
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.tag is not None:
                raise InputError(f"{source}: the tag {_shown(event.tag)} is refused; write the value without it")
            if isinstance(event, yaml.ScalarEvent):
                size, anchor = _weight(event.value), event.anchor
                if len(event.value) > MAX_LETTERS:
                    raise InputError(f"{source}: a value has more than {MAX_LETTERS:,} letters; give a shorter one")
            else:
                open_parts.append((event.anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_parts.pop()
        if anchor is not None:
            sizes[anchor] = size
        outer, total = open_parts[-1]
        open_parts[-1] = (outer, total + size)
        if total + size > MAX_VALUES:
            raise InputError(
                f"{source}: its aliases stand for more than {MAX_VALUES:,} values; write the values without aliases"
            )
        if len(open_parts) > MAX_DEPTH:
            raise InputError(f"{source}: its values lie more than {MAX_DEPTH} levels deep; give a config")
