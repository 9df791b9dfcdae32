"""The word ``auto`` of ``--trainer.precision``, settled before Lightning sees it; a run keeps what it became."""

from collections.abc import Mapping
from typing import Any

from pet_cifar.cli.configs import precision_of
from pet_cifar.hardware import native_precision

AUTO = "auto"


def settled(accelerator: object, checkpoint: Mapping[str, Any]) -> tuple[str, str]:
    """The precision that ``auto`` stands for, and why.

    Args:
        accelerator: The Trainer's accelerator.
        checkpoint: The config of the checkpoint from which a run goes on or is scored, empty without one. Its precision
            is kept on any hardware, so that a run is one experiment from its first step to its test.
    """
    # A run whose config says nothing has Lightning's default. No run of ours keeps the word itself.
    if "trainer" in checkpoint and (kept := precision_of(checkpoint) or "32-true") != AUTO:
        return str(kept), "which the checkpoint's run has"
    found = native_precision(str(accelerator))
    if found == "32-true":
        return found, "since this hardware does not gain from bfloat16"
    return found, "which this hardware computes natively"


def with_word(config: Mapping[str, Any], word: str) -> Mapping[str, Any]:
    """A config in which a precision of ``auto`` is another word."""
    return {**config, "trainer": {**config["trainer"], "precision": word}} if precision_of(config) == AUTO else config
