"""Several processes train one net only if all of them have the same options, programs and pictures."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning
import torch
from lightning import Callback, LightningModule, Trainer
from torch import distributed

from pet_cifar import __version__
from pet_cifar.callbacks.experiment import flatten
from pet_cifar.data import ImageDataModule
from pet_cifar.data.datamodule import image_data_of
from pet_cifar.data.manifest import ImageRecord, natural_key
from pet_cifar.errors import InputError
from pet_cifar.names import printable

PLACES = {"data.init_args.root", "trainer.default_root_dir"}
"""The options that may differ, since a machine may have its pictures and its runs elsewhere."""
MOST = 3
"""How many differing options a line names."""


class RanksAgree(Callback):
    """Compares the options, the programs and the pictures of all processes before the first step.

    Args:
        verb: The Trainer's verb.
        config: The resolved options of this process.
    """

    def __init__(self, verb: str, config: Mapping[str, Any]) -> None:
        self.facts: dict[str, Any] = {"command": verb}
        self.facts |= {_option(key): value for key, value in flatten(config) if key not in PLACES}
        self.facts |= {"pet_cifar": __version__, "torch": torch.__version__, "lightning": lightning.__version__}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compares.

        Raises:
            InputError: On every process, where one has another option, program, picture or split than the first.
        """
        if trainer.world_size == 1 or not distributed.is_initialized():
            return
        _refuse_other_facts(_gathered(self.facts))
        data = image_data_of(trainer)
        if data is not None:
            _refuse_other_pictures(data)


def _gathered(own: Any) -> list[Any]:
    """What each process has, in their order."""
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def _option(key: str) -> str:
    return f"--{key.replace('.init_args', '').removesuffix('.class_path')}"


def _refuse_other_facts(facts: Sequence[Mapping[str, Any]]) -> None:
    differing = []
    names = {name: None for own in facts for name in own}
    for name in names:
        values = [own.get(name) for own in facts]
        if others := _others(values):
            differing.append(f"{name} is {values[others[0]]} in {_named(others)} and {values[0]} in process 0")
    if differing:
        more = f"; and {len(differing) - MOST} more" if len(differing) > MOST else ""
        raise InputError(
            f"{'; '.join(differing[:MOST])}{more}; give all processes the same command, config files and programs"
        )


def _refuse_other_pictures(data: ImageDataModule) -> None:
    listing = {record.path: _content(record) for record in data.listed}
    digests = {"pictures": _digest(f"{path} {content}" for path, content in listing.items())}
    for name, records in data.splits.items():
        digests[f"{name} split"] = _digest(f"{record.label} {record.hash}" for record in records)
    found = _gathered({**digests, "root": str(data.root)})
    for kind in digests:
        if others := _others([own[kind] for own in found]):
            where = f"{_named(others)} ({printable(found[others[0]]['root'])})"
            first = f"process 0 ({printable(found[0]['root'])})"
            if kind != "pictures":
                raise InputError(
                    f"--data.root: the same pictures are divided otherwise in {where} than in {first}, as the {kind} "
                    "shows; install the same versions on every machine"
                )
            raise InputError(
                f"--data.root: {where} has other pictures than {first}{_example(_gathered(listing), others[0])}; put "
                "the same files on every machine, or give a folder that all share"
            )


def _content(record: ImageRecord) -> str:
    return f"{record.label} {record.split} {record.hash} {record.verdict}"


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _example(listings: Sequence[Mapping[str, str]], rank: int) -> str:
    """The first picture that one process has and another has not, or has with another content."""
    first, other = listings[0], listings[rank]
    differing = [path for path in first.keys() | other.keys() if first.get(path) != other.get(path)]
    if not differing:  # Only their order differs.
        return ""
    path = min(differing, key=natural_key)
    which = (
        "is another file" if path in first and path in other else f"is in process {0 if path in first else rank} alone"
    )
    more = f", and {len(differing) - 1} more differ" if len(differing) > 1 else ""
    return f": {printable(path)} {which}{more}"


def _others(values: Sequence[Any]) -> list[int]:
    """The numbers of the processes that have another value than the first."""
    return [rank for rank, value in enumerate(values) if value != values[0]]


def _named(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (" ..." if len(ranks) > 8 else "")
    return f"process{'es' if len(ranks) > 1 else ''} {shown}"
