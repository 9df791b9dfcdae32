"""Where in an epoch a run goes on that now takes other numbers of pictures in a step than before."""

import logging
from collections.abc import Mapping
from typing import Any

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only

from pet_cifar.data.datamodule import ImageDataModule
from pet_cifar.data.loader import BatchLoader, pictures_a_step

log = logging.getLogger(__name__)


def note_step_size(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Notes in a checkpoint how many processes there are, and how many pictures they take together in a step."""
    checkpoint["processes"] = trainer.world_size
    loader = trainer.train_dataloader
    if isinstance(loader, BatchLoader):
        checkpoint["pictures_a_step"] = loader.pictures_a_step


def recount_steps(checkpoint: dict[str, Any], trainer: Trainer, data: ImageDataModule) -> None:
    """Lets a run go on at the picture that it had come to, where its steps now have more or fewer pictures.

    A checkpoint counts the steps of the epoch, and an epoch is so many pictures. Where the pictures do not come to
    whole steps, those of the broken step are trained on again, which a line tells.

    Args:
        checkpoint: What was read; its counts of the epoch's steps are changed.
        trainer: Goes on.
        data: The data of the run.
    """
    before = checkpoint.get("pictures_a_step")
    count = len(data.splits["train"])
    now = pictures_a_step(data.batch_size, count, trainer.world_size)
    progress = _epoch_progress(checkpoint)
    if not isinstance(before, int) or before < 1 or before == now or progress is None:
        return
    # Lightning counts a step as completed after its callbacks, of which one saves.
    made = int(progress["processed"])
    # The last step of an epoch is made by this run, which then ends the epoch.
    steps = min(made * before // now, count // now - 1)
    if again := made * before - steps * now:
        _tell(
            f"going on within an epoch in steps of {now} pictures instead of {before}: {again} of its pictures are "
            "trained on twice"
        )
    for name in progress:
        progress[name] = max(0, int(progress[name]) - made + steps)
    for state in checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", ()):
        if isinstance(state, dict) and "step" in state:
            state["step"] = steps
    # The length of the run is counted from the epoch's beginning.
    epoch, step = checkpoint.get("epoch_start", (0, 0))
    checkpoint["epoch_start"] = [epoch, step + made - steps]


def _epoch_progress(checkpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """How many steps of the epoch were begun and made; None where it has not begun, or is over."""
    try:
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        progress: dict[str, Any] = batches["current"]
        return progress if progress["processed"] and not batches["is_last_batch"] else None
    except KeyError:  # It is of another program.
        return None


@rank_zero_only
def _tell(line: str) -> None:
    log.warning(line)
