"""The trials of a sweep, each a run of ``fit`` in a process of its own."""

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pet_cifar.callbacks.experiment import flatten
from pet_cifar.cli.processes import Processes, last_error, sigterm_as_exit
from pet_cifar.cli.sweep_file import Sweep
from pet_cifar.cli.sweep_trial import environment_of
from pet_cifar.durations import described
from pet_cifar.errors import InputError
from pet_cifar.names import printable

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

FAILURES = 3
"""After how many failed trials, before any has succeeded, a sweep ends."""
FAILED, PRUNED, RUN = "failed", "pruned", "run"
"""What a trial keeps beside its values: why it failed, whether it was ended early, and its run directory."""


class TrialFailed(Exception):
    """The run of a trial has failed; its message says why."""


class Search:
    """Makes trials of a study in this process, which may be one of several.

    Args:
        study: The study.
        sweep: What is searched.
        url: The database of the study.
        folder: Where the trials' runs and what they print go.
        clock: Gives the time in seconds.
        processes: Runs the trials.
    """

    def __init__(
        self,
        study: "Study",
        sweep: Sweep,
        url: str,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        processes: Processes | None = None,
    ) -> None:
        self._study, self._sweep, self._url, self._folder = study, sweep, url, folder
        self._clock = clock
        self._processes = processes or Processes()
        self._seconds: list[float] = []
        self._number = 0

    def begin_with(self, own: Mapping[str, Any]) -> None:
        """Makes the config's own values the first trial of a new study, where they lie within the ranges.

        Args:
            own: The whole config of these values.
        """
        flat = {key.replace(".init_args", ""): value for key, value in flatten(own)}
        values = {one.name: one.own_value(flat.get(one.name)) for one in self._sweep.ranges}
        if not self._study.get_trials(deepcopy=False) and None not in values.values():
            self._study.enqueue_trial(values, skip_if_exists=True)

    def run(self, trials: int | None, seconds: float | None) -> "FrozenTrial":
        """Makes trials until the study has as many as are asked for, or the time is over.

        Args:
            trials: How many trials the study has in the end, those of other processes among them; None sets no limit.
            seconds: The time; None sets no limit.

        Returns:
            The best trial of the study.

        Raises:
            InputError: No trial has come to its end, or the first ones have failed.
        """
        began = self._clock()
        left = seconds
        while (trials is None or len(self._counted()) < trials) and (left is None or left > self._typical()):
            with sigterm_as_exit():
                self._study.optimize(self._make, n_trials=1, catch=(TrialFailed,))
            left = None if seconds is None else seconds - (self._clock() - began)
            self._refuse_failures()
            self._tell(trials, left)
        done = [one for one in self._study.get_trials(deepcopy=False) if one.value is not None and not _is_cut(one)]
        if not done:
            raise InputError(
                f"no trial has come to its end; what they printed is in {self._folder}; give a longer --budget or more "
                "--trials"
            )
        best = max(done, key=lambda one: one.value or 0.0)
        self._refuse_others(best.params)
        return best

    def _refuse_others(self, values: Mapping[str, object]) -> None:
        """Refuses values that are in no range, which a stranger may have written into the study.

        Raises:
            InputError: There are some, or a range has none.
        """
        ranges = {one.name: one for one in self._sweep.ranges}
        for name in sorted({*ranges, *values}):
            if name not in ranges or name not in values or not ranges[name].has(values[name]):
                raise InputError(
                    f"--study {self._study.study_name}: a trial in it has --{name} {values.get(name)}, which is in no "
                    f"range of {self._sweep.file}; give another --study"
                )

    def _counted(self) -> "list[FrozenTrial]":
        """The trials that are made or being made; one whose process was killed counts no more."""
        from optuna.exceptions import ExperimentalWarning
        from optuna.storages import fail_stale_trials

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(self._study)
        trials = self._study.get_trials(deepcopy=False)
        return [one for one in trials if one.state.name not in ("FAIL", "WAITING") or FAILED in one.user_attrs]

    def _typical(self) -> float:
        """What a trial takes; before the first one it is nothing, so that one begins in any case."""
        return median(self._seconds) if self._seconds else 0.0

    def _refuse_failures(self) -> None:
        failed = [one for one in self._counted() if FAILED in one.user_attrs]
        if len(failed) >= FAILURES and len(failed) == len(self._counted()):
            raise InputError(
                f"the first {len(failed)} trials failed, the last of them: {failed[-1].user_attrs[FAILED]}"
            )

    def _make(self, trial: "Trial") -> float:
        """Runs a trial, and gives the highest accuracy that it reported."""
        from optuna import TrialPruned

        began, self._number = self._clock(), trial.number
        try:
            values = {one.name: one.suggest(trial) for one in self._sweep.ranges}
        except (ValueError, TypeError) as error:  # A trial that waits in the study has values of its own.
            raise InputError(
                f"--study {self._study.study_name}: a trial that waits in it has a value that no range of "
                f"{self._sweep.file} knows ({error}); give another --study"
            ) from error
        self._refuse_others(trial.params)
        log = self._folder / f"trial_{trial.number}.log"
        words = [*self._sweep.words(values), "--trainer.default_root_dir", str(self._folder)]
        environment = environment_of(self._url, self._study.study_name, trial._trial_id)
        status = self._processes.run(["fit", *words], log, extra=environment)
        told = self._study.get_trials(deepcopy=False)[trial.number]
        if status or not told.intermediate_values:
            why = f"{last_error(log) if status else 'it reported no val/acc'}; all that it printed is in {log}"
            trial.set_user_attr(FAILED, why)
            raise TrialFailed(why)
        self._seconds.append(self._clock() - began)
        if told.user_attrs.get(PRUNED):
            raise TrialPruned
        return max(told.intermediate_values.values())

    def _tell(self, trials: int | None, left: float | None) -> None:
        own = self._study.get_trials(deepcopy=False)[self._number]
        count = len(self._counted())
        rest = [] if trials is None or not self._seconds else [(trials - count) * self._typical()]
        rest += [] if left is None else [left]
        ahead = f"; about {described(min(rest))} left" if rest and min(rest) > 0 else ""
        print(printable(f"trial {count}{f' of {trials}' if trials else ''}: {spoken(own)}{ahead}"), flush=True)


def spoken(trial: "FrozenTrial") -> str:
    """What came of a trial, and with which values."""
    shown = ((name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in trial.params.items())
    values = ", ".join(f"{name} {value}" for name, value in shown)
    if FAILED in trial.user_attrs:
        return f"failed with {values}: {trial.user_attrs[FAILED]}"
    result = "no val/acc" if trial.value is None else f"val/acc {trial.value:.2%}"
    return f"{result}{', ended early,' if _is_cut(trial) else ''} with {values}"


def _is_cut(trial: "FrozenTrial") -> bool:
    return trial.state.name == "PRUNED"
