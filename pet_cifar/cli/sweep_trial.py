"""What a run that is a trial of a sweep tells the study after each epoch, and whether it ends early."""

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer

from pet_cifar.cli.study import make_pruner, open_storage, storage_errors
from pet_cifar.errors import InputError

log = logging.getLogger(__name__)

ENVIRONMENT = "PET_CIFAR_SWEEP_TRIAL"
"""The variable with which a sweep tells ``fit`` which trial it is; all processes of a run inherit it."""
MONITOR = "val/acc"
"""What a sweep makes as high as it can."""


def environment_of(url: str, study: str, trial_id: int) -> dict[str, str]:
    """The environment of the run of a trial."""
    return {ENVIRONMENT: json.dumps({"url": url, "study": study, "trial_id": trial_id})}


def trial_callbacks(environment: Mapping[str, str] = os.environ) -> list[Callback]:
    """The callback of a run that is a trial; none for any other run."""
    text = environment.get(ENVIRONMENT)
    return [ReportTrial(**json.loads(text))] if text else []


class ReportTrial(Callback):
    """Reports ``val/acc`` after each validation, and ends a run whose trial is worse than the others were then.

    Rank zero alone speaks with the study, and all processes do what it has decided.

    Args:
        url: The storage of the study.
        study: The name of the study.
        trial_id: The trial in the storage.
    """

    def __init__(self, url: str, study: str, trial_id: int) -> None:
        self.url = url
        self.study = study
        self.trial_id = trial_id
        self._trial: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells the study where the run is."""
        run = str(trainer.log_dir)  # All processes exchange it.
        if trainer.is_global_zero:
            from optuna import Trial, load_study

            with storage_errors(self.url):
                study = load_study(study_name=self.study, storage=open_storage(self.url), pruner=make_pruner())
                self._trial = Trial(study, self.trial_id)
                self._trial.set_user_attr("run", run)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports the accuracy, and ends the run where the study has seen better ones at this epoch."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        ends = self._report(trainer) if trainer.is_global_zero else False
        # All processes must leave the epoch's loop together.
        if trainer.strategy.broadcast(ends):
            trainer.should_stop = True

    def _report(self, trainer: Trainer) -> bool:
        accuracy, epoch = trainer.callback_metrics.get(MONITOR), trainer.current_epoch
        if accuracy is None:
            return False
        try:
            with storage_errors(self.url):
                self._trial.report(float(accuracy), epoch)
                if trainer.should_stop or not self._trial.should_prune():
                    return False
                self._trial.set_user_attr("pruned", True)
        except InputError as error:  # The run goes on, since a later epoch may reach the study again.
            log.warning("epoch %d is not reported: %s", epoch, error)
            return False
        log.info("epoch %d: val/acc %.4f is below the other trials' median, so that the trial ends", epoch, accuracy)
        return True
