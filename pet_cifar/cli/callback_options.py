"""The options of callbacks: which of several of one kind counts, and that they win over those in a checkpoint."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer

from pet_cifar.errors import InputError

_KEPT_APART_BY = ("monitor", "mode", "every_n_train_steps", "every_n_epochs", "train_time_interval")
"""Lightning keeps the states of two callbacks of one class apart where one of these options differs."""


class CallbackOptions(Callback):
    """Gives every callback the options that it was built with, where its state in a checkpoint has brought others.

    Lightning's EarlyStopping, for example, takes its ``patience`` out of the checkpoint, whatever the user asks for.

    Args:
        given: Callbacks, each with the options that it was built with.
    """

    def __init__(self, given: Sequence[tuple[Callback, Mapping[str, Any]]]) -> None:
        self._given = [
            (callback, name, getattr(callback, name))
            for callback, options in given
            for name in options
            if isinstance(getattr(callback, name, ()), bool | int | float | str | None)
        ]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the options; by now the callbacks have their states."""
        for callback, name, value in self._given:
            if getattr(callback, name) != value:
                setattr(callback, name, value)


def without_repeats(callbacks: Sequence[Any]) -> list[Any]:
    """The callbacks of a config without those that a later one of the same class and the same monitor replaces.

    Args:
        callbacks: The class and arguments of each callback; those of a checkpoint come before the user's.
    """
    kept = {_key(one): one for one in callbacks}
    return [one for one in callbacks if kept[_key(one)] is one]


def _key(callback: Any) -> tuple[str, ...]:
    init_args = callback.get("init_args") or {}
    name = str(callback["class_path"]).rpartition(".")[2]
    return name, *(str(init_args.get(option)) for option in _KEPT_APART_BY)


def refuse_same_state(callbacks: Sequence[Callback]) -> None:
    """Refuses two callbacks whose states a checkpoint could not tell apart.

    Raises:
        InputError: There are two.
    """
    keys = Counter(one.state_key for one in callbacks if type(one).state_dict is not Callback.state_dict)
    for key, count in keys.items():
        if count > 1:
            name = key.partition("{")[0]
            raise InputError(
                f"--trainer.callbacks {name}: there are {count} that a checkpoint could not tell apart; leave one "
                "out, or let them differ in one of " + ", ".join(_KEPT_APART_BY)
            )


def overridden(old: Sequence[Any], new: Sequence[Any]) -> Iterator[str]:
    """One line for each option of a callback that has another value in the final config, or whose callback is gone.

    Args:
        old: The callbacks as a checkpoint or a config file has them: names, or classes with arguments.
        new: The callbacks of the final config, with all their arguments.
    """
    remaining = list(new)
    for one in old:
        name = (one if isinstance(one, str) else str(one.get("class_path"))).rpartition(".")[2]
        same = [other for other in remaining if str(other["class_path"]).rpartition(".")[2] == name]
        if not same:
            yield f"overridden: --trainer.callbacks {name} -> none"
            continue
        init_args = {} if isinstance(one, str) else one.get("init_args") or {}
        nearest = min(same, key=lambda other: len(list(_changed(init_args, other))))
        remaining.remove(nearest)
        for option, before, after in _changed(init_args, nearest):
            yield f"overridden: --trainer.callbacks.{option} {before} -> {after} ({name})"


def _changed(init_args: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    final = other.get("init_args") or {}
    for option, before in init_args.items():
        if option in final and final[option] != before:
            yield option, before, final[option]
