"""Which files the state of a checkpoint callback may name: Lightning deletes them when a better net replaces them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from pet_cifar.errors import InputError
from pet_cifar.names import printable


def check_paths(trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Refuses a checkpoint in which a checkpoint callback names files outside its folder.

    Lightning itself looks whether a path begins with that folder, which ``folder/../elsewhere`` does, and deletes what
    is there, with all that is below it.

    Args:
        trainer: Is about to hand the states to its callbacks.
        checkpoint: What the file holds.

    Raises:
        InputError: A path leads out of the folder.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    states = checkpoint.get("callbacks")
    for callback in callbacks:
        state = states.get(callback.state_key) if isinstance(states, dict) else None
        if isinstance(callback, ModelCheckpoint) and isinstance(state, dict):
            folder = Path(str(state.get("dirpath", callback.dirpath)))
            for path in map(Path, _named(state)):
                if folder not in path.parents or ".." in path.relative_to(folder).parts:
                    raise InputError(
                        f"--ckpt_path {trainer.ckpt_path}: the state of {type(callback).__name__} in it names "
                        f"{printable(str(path))}, which is not in its folder {printable(str(folder))} and might be "
                        "deleted; give another checkpoint"
                    )


def _named(state: Mapping[str, Any]) -> Iterator[str]:
    """The paths in a state."""
    kept = state.get("best_k_models")
    named = [*(kept if isinstance(kept, dict) else ()), *(state[name] for name in state if name.endswith("_path"))]
    return (str(path) for path in named if path)
