"""Keeps the best net of a run."""

from lightning.pytorch.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Saves ``best.ckpt``, the net with the highest ``val/acc``, which ``test --run`` scores.

    It is a class of its own, because Lightning keeps the states of two `ModelCheckpoint` apart by what they monitor,
    and a user may add one that monitors ``val/acc`` as well.

    Args:
        monitor: The value that is highest for the best net; null saves the net of the last epoch, for runs without a
            validation.
    """

    def __init__(self, monitor: str | None = "val/acc") -> None:
        super().__init__(filename="best", monitor=monitor, mode="max", enable_version_counter=False)
