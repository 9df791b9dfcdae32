"""The file of a sweep: a config, the ranges of its options that are searched, and options that are fixed."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pet_cifar.callbacks.experiment import flatten
from pet_cifar.cli import configs
from pet_cifar.cli.config_files import find_config
from pet_cifar.cli.places import DATA_ROOT, outside
from pet_cifar.data.root import expanded
from pet_cifar.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from optuna import Trial

KEYS = ("config", "ranges", "fixed")
PARTS = ("model", "data", "trainer", "optimizer", "lr_scheduler", "budget", "seed_everything")
"""What the options of a sweep begin with. The others, such as those that trust a module, are typed."""
RANGE_KEYS = ("low", "high", "log", "step")
_NOT_SEARCHED = {
    "seed_everything": "all trials have one seed, which stands under fixed",
    "budget": "all trials have one budget, which stands under fixed",
    "ckpt_path": "every trial begins anew",
    "config": "a sweep has one config",
}


@dataclass(frozen=True)
class Range:
    """The values of one option.

    Attributes:
        name: The option without its dashes, such as ``model.lr``.
        choices: The values as words of the command line; empty for numbers from ``low`` to ``high``.
        low: The lowest number; where it and ``high`` are whole, all numbers between them are.
        high: The highest number.
        log: Whether the search looks at factors instead of differences.
        step: The distance of two numbers; None takes any number between.
    """

    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole ones."""
        return all(isinstance(one, int) for one in (self.low, self.high, self.step or 1))

    def ends(self) -> tuple[str, ...]:
        """The values at its ends, or all of its choices."""
        return self.choices or (str(self.low), str(self.high))

    def own_value(self, value: object) -> str | float | None:
        """A value of a config as the study knows it; None where it is not within the range."""
        if self.choices:
            return word(value) if word(value) in self.choices else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        steps = (value - self.low) / (self.step or 1)
        return value if (self.step is None and not self.is_whole) or steps.is_integer() else None

    def has(self, value: object) -> bool:
        """Whether a study may say that a trial had this value."""
        if self.choices:
            return value in self.choices
        return not isinstance(value, bool) and isinstance(value, int | float) and self.low <= value <= self.high

    def suggest(self, trial: "Trial") -> str:
        """A value for a trial, as a word of the command line."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, self.choices))
        if self.is_whole:
            step = int(self.step or 1)
            return str(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log, step=step))
        return str(trial.suggest_float(self.name, self.low, self.high, log=self.log, step=self.step))


@dataclass(frozen=True)
class Sweep:
    """What is searched.

    Attributes:
        file: The file that says so.
        config: The file of the config.
        ranges: The options that are searched.
        fixed: The words of the options that all trials share.
        content: What tells this sweep from another: the config's content, the ranges and the fixed options.
    """

    file: Path
    config: Path
    ranges: tuple[Range, ...]
    fixed: tuple[str, ...]
    content: str

    def words(self, values: Mapping[str, str] | None = None) -> list[str]:
        """The options of ``fit`` with values for the ranges; without them the config keeps its own."""
        chosen = [word for name, value in (values or {}).items() for word in (f"--{name}", value)]
        return ["--config", str(self.config), *self.fixed, *chosen]

    def as_config(self, values: Mapping[str, str]) -> dict[str, Any]:
        """The same options as a file of a config would have them, so that the classes in them are checked as there."""
        names = (name.removeprefix("--") for name in self.fixed[::2])
        found: dict[str, Any] = {}
        for name, value in [*zip(names, self.fixed[1::2], strict=True), *values.items()]:
            *outer, last = name.split(".")
            inner = found
            for key in outer:
                inner = inner.setdefault(key, {})
            inner[last] = value
        return found


def read_sweep(file: Path) -> Sweep:
    """Reads and checks a file such as this one.

    ```yaml
    config: digits_residual
    ranges:
      model.lr: {low: 1e-4, high: 1e-1, log: true}
      model.optimizer: [sgd, adamw]
    fixed:
      budget: 1min
    ```

    Raises:
        InputError: The file cannot be read, has no ranges, or a key or a range is wrong.
    """
    if not file.is_file():
        raise InputError(
            f"--config {file}: there is no such file; a sweep is a YAML file with config, ranges and fixed, such as "
            "docs/repeat.md shows"
        )
    content = configs.read_config(file)
    if "ranges" not in content and {"model", "data", "trainer"} & content.keys():
        raise InputError(
            f"--config {file}: this is the config of a run and no sweep; write a file with config: {file.stem} and "
            "ranges, such as ranges: {model.lr: {low: 0.0001, high: 0.1, log: true}}"
        )
    for key in content:
        if key not in KEYS:
            raise InputError(
                f"--config {file}: a sweep has no key {key}; it has {', '.join(KEYS)}{did_you_mean(str(key), KEYS)}"
            )
    if not isinstance(content.get("config"), str):
        raise InputError(f"--config {file}: config is missing; write config: digits_residual, or the path of a file")
    ranges = content.get("ranges")
    if not isinstance(ranges, Mapping) or not ranges:
        raise InputError(
            f"--config {file}: the sweep has no ranges; write such as ranges: {{model.lr: {{low: 0.0001, high: 0.1, "
            "log: true}, model.optimizer: [sgd, adamw]}"
        )
    fixed = content.get("fixed") or {}
    if not isinstance(fixed, Mapping):
        raise InputError(f"--config {file}: fixed is {fixed}; write options with their values, such as budget: 1min")
    flat = dict(flatten(fixed))
    if double := next((name for name in ranges if name in flat), None):
        raise InputError(f"--config {file}: {double} is in ranges and in fixed; leave one of them out")
    for name in (*flat, *map(str, ranges)):
        if name.partition(".")[0] not in (*PARTS, *_NOT_SEARCHED):
            near = did_you_mean(name.partition(".")[0], PARTS)
            raise InputError(
                f"--config {file}: {name} is no option of a sweep; they are those of {', '.join(PARTS)}{near}"
            )
    for key, options in (("fixed", flat), ("ranges", ranges)):
        _refuse_places(f"--config {file}: {key}", {str(name): value for name, value in options.items()})
    config = _config_of(file, content["config"])
    return Sweep(
        file,
        config,
        tuple(_range(file, str(name), value) for name, value in ranges.items()),
        tuple(text for name, value in flat.items() for text in (f"--{name}", word(value))),
        json.dumps({"config": configs.read_config(config), "ranges": ranges, "fixed": flat}, sort_keys=True),
    )


def _refuse_places(where: str, options: Mapping[str, Any]) -> None:
    """Refuses options with which a trial would write elsewhere, or with which a folder for data would be made there."""
    trainer = {name: value for name, value in options.items() if name.partition(".")[0] == "trainer"}
    for option, text in outside(trainer, "", [Path.cwd()]):
        raise InputError(f"{where}: {option} {text} leads out of the working directory; leave it out")
    data = {name: value for name, value in options.items() if name.partition(".")[0] == "data"}
    for option, text in outside(data, "", [Path.cwd()]):
        if option == DATA_ROOT and not expanded(text, DATA_ROOT).is_dir():
            raise InputError(f"{where}: {option} {text}: there is no such directory; give one that is there")


def word(value: object) -> str:
    """A value of YAML as a word of the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _config_of(file: Path, name: str) -> Path:
    """The config that a sweep names: a path from its own folder, or what ``--config`` takes."""
    beside = file.parent / name
    try:
        return beside if beside.is_file() else find_config(name)
    except InputError as error:
        raise InputError(f"--config {file}: {str(error).removeprefix('--')}") from error


def _range(file: Path, name: str, value: object) -> Range:
    where = f"--config {file}: ranges: {name}"
    if name in _NOT_SEARCHED:
        raise InputError(f"{where} cannot be searched: {_NOT_SEARCHED[name]}")
    if isinstance(value, list):
        choices = tuple(dict.fromkeys(map(word, value)))
        if len(choices) < 2:
            raise InputError(f"{where} is {value}; a range has two values or more, and one value stands under fixed")
        return Range(name, choices)
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {value}; write a list of values, or {{low: 0.001, high: 0.1, log: true}}")
    for key in value:
        if key not in RANGE_KEYS:
            raise InputError(
                f"{where} has no {key}; it has {', '.join(RANGE_KEYS)}{did_you_mean(str(key), RANGE_KEYS)}"
            )
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{where}: log is {log}; it is true or false")
    low, high = (_number(f"{where}: {end}", value.get(end)) for end in ("low", "high"))
    step = None if value.get("step") is None else _number(f"{where}: step", value["step"])
    if not low < high:
        raise InputError(f"{where} goes from {low} to {high}; low is below high")
    if log and low <= 0:
        raise InputError(f"{where}: low is {low}; with log: true it is above 0")
    if step is not None and (log or not 0 < step <= high - low):
        raise InputError(f"{where}: step is {step}; it is above 0, at most {high - low}, and does not go with log")
    return Range(name, low=low, high=high, log=log, step=step)


def _number(where: str, value: object) -> float:
    """A number; YAML takes one such as 1e-4 for text, because it has no point."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: expected a number such as 0.001")
    return value
