"""Keeps the state that a run goes on from."""

import copy
import signal
from time import monotonic
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from pet_cifar.callbacks.stop_request import Stopped, StopRequest
from pet_cifar.errors import check_positive

AGREE_EVERY = 10
"""The number of steps after which several processes agree on saving; each time they wait for each other."""
SECONDS_BETWEEN_EPOCHS = 5.0
"""The least seconds between two checkpoints before epochs, so that short epochs do not wait for the disk."""
LARGEST_SHARE = 0.01
"""The largest share of the time that saving within an epoch may take."""


class LastCheckpoint(ModelCheckpoint):
    """Saves ``last.ckpt`` before epochs, within an epoch every few minutes, at the end, and before a stop.

    Before an epoch it saves unless it has done so less than five seconds ago, so that a kill loses at most the epoch
    that it falls into and these seconds.

    A run that goes on from one of them comes to the same as one that was never stopped. So nothing is saved where a
    step is half done, or where values of the epoch are counted and not yet logged: an error saves nothing, and leaves
    the last checkpoint as it is.

    It is a callback of its own, because one callback for the best and the last would overwrite the best on a stop.

    Args:
        minutes: The minutes after which it is saved within an epoch. They become more where saving takes more than a
            hundredth of them.

    Attributes:
        stop: Whoever sets its ``signal`` stops the run at its next step, after a checkpoint.
    """

    def __init__(self, minutes: float = 5.0) -> None:
        check_positive("minutes", minutes)
        super().__init__(filename="last", enable_version_counter=False)
        self.minutes = minutes
        self.stop = StopRequest()
        self._seconds = 60 * minutes
        self._saved_at = 0.0
        self._has_saved = False
        self._is_between_epochs = False
        self._is_finished = False

    def state_dict(self) -> dict[str, Any]:
        """Also says whether the run has come to its end."""
        return {**super().state_dict(), "finished": self._is_finished}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, and lets a run that goes on with an epoch's beginning begin it."""
        super().on_train_start(trainer, pl_module)
        self.stop.is_heard = not trainer.fast_dev_run  # type: ignore[attr-defined]
        self._is_finished = self._has_saved = False
        self._saved_at = monotonic()
        progress: Any = trainer.fit_loop.epoch_progress.current
        if progress.ready == progress.processed == progress.completed:
            # Under max_steps Lightning 2.6 would take the epoch for one that goes on.
            vars(trainer.fit_loop)["_restarting"] = False
            trainer.fit_loop.epoch_loop.restarting = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves if it is time to; all values of the epoch before are logged by now."""
        is_time = not self._has_saved or monotonic() - self._saved_at >= SECONDS_BETWEEN_EPOCHS
        wish = is_time or self.stop.signal != 0
        if self._saves(trainer) and trainer.strategy.reduce_boolean_decision(wish, all=False):
            self._save(trainer, is_between_epochs=True)
        self._stop_if_asked(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves where it is time to, or where the run is to stop; the last step of an epoch is left to its end."""
        wish = self.stop.signal != 0 or monotonic() - self._saved_at >= self._seconds
        if (not wish and trainer.world_size == 1) or not self._saves(trainer):
            return
        loop = trainer.fit_loop.epoch_loop
        is_whole = not loop._num_ready_batches_reached() and not loop._should_accumulate() and not _is_over(trainer)
        if is_whole and self._agree(trainer, wish, batch_idx):
            if _is_validated_next(trainer):
                self._save_before_a_validation(trainer)
            else:
                self._save(trainer)
            self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Saves where the run is to stop; when it goes on, the validation begins anew.

        A validation may fall into a step that several batches make. What they have added up is in no checkpoint, so
        that the run stops at the end of that step. The validation behind the last step of all is made to its end.
        """
        batch_idx: int = args[2]
        if trainer.fit_loop.epoch_loop._should_accumulate() or _is_over(trainer):
            return
        if self._saves(trainer) and self._agree(trainer, self.stop.signal != 0, batch_idx):
            _validate_again(trainer)
            self._save(trainer)
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves nothing, because the epoch's other values are not logged yet."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves nothing, because the epoch's values are logged after this."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Saves nothing, because a step may be half done."""
        self.stop.is_heard = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the end of the run."""
        self.stop.is_heard = False
        if self._saves(trainer):
            self._is_finished = True
            self._save(trainer, is_between_epochs=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lets a checkpoint between two epochs say that the next one has not begun."""
        if self._is_between_epochs:
            loops = checkpoint["loops"]["fit_loop"]
            for progress in (loops["epoch_progress"]["current"], loops["epoch_progress"]["total"]):
                progress["ready"] = progress["started"]
            batches = loops["epoch_loop.batch_progress"]
            batches["current"] = dict.fromkeys(batches["current"], 0)
            batches["is_last_batch"] = False
            loops["state_dict"].pop("combined_loader", None)

    def _saves(self, trainer: Trainer) -> bool:
        is_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        return is_fit and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _agree(self, trainer: Trainer, wish: bool, batch_idx: int) -> bool:
        """Whether any process has the wish; several ask each other every few steps."""
        if trainer.world_size == 1:
            return wish
        return batch_idx % AGREE_EVERY == 0 and trainer.strategy.reduce_boolean_decision(wish, all=False)

    def _save(self, trainer: Trainer, *, is_between_epochs: bool = False) -> None:
        began = monotonic()
        self._is_between_epochs = is_between_epochs
        try:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        finally:
            self._is_between_epochs = False
        self._saved_at, self._has_saved = monotonic(), True
        self._seconds = max(60 * self.minutes, (self._saved_at - began) / LARGEST_SHARE)

    def _save_before_a_validation(self, trainer: Trainer) -> None:
        """Saves after a batch that a validation follows, with which a run that goes on begins.

        Lightning 2.6 takes such a validation for one that was made.
        """
        loop = trainer.fit_loop.epoch_loop
        counts = (loop.batch_progress, loop.val_loop.batch_progress)
        before = [copy.deepcopy(count.state_dict()) for count in counts]
        # As within a validation, the batch is over.
        loop.batch_progress.increment_completed()
        _validate_again(trainer)
        try:
            self._save(trainer)
        finally:
            for count, state in zip(counts, before, strict=True):
                count.load_state_dict(state)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self.stop.signal != 0, all=False):
            # A process that got no signal of its own stops with the others.
            raise Stopped(self.stop.signal or signal.SIGTERM, is_agreed=True)


def _is_over(trainer: Trainer) -> bool:
    """Whether no step follows, so that a run that goes on would do nothing.

    What is still to be validated and logged then would be lost with a stop.
    """
    has_all_steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return has_all_steps or bool(trainer.should_stop and trainer.fit_loop._can_stop_early)


def _is_validated_next(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that has just been trained on."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None, "batches are fetched from the beginning of a fit"
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _validate_again(trainer: Trainer) -> None:
    """Lets a run that goes on from here begin the validation anew that it is within.

    Lightning 2.6 goes back to a validation whose first batch has begun.
    """
    validated = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress: Any
    for progress in (validated.current, validated.total):
        progress.ready = progress.started = 1
        progress.processed = progress.completed = 0
    validated.is_last_batch = False
