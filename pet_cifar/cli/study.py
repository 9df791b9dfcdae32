"""The study of a sweep: an Optuna study in a database, which several processes and machines share."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pet_cifar.errors import InputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

CONTENT = "pet_cifar_sweep"
"""The attribute of a study that tells which sweep it belongs to."""
LOCK_SECONDS = 30
"""How long a process waits for others that write to an SQLite file."""
HEARTBEAT_SECONDS = 30
"""How often a process says that its trial is alive; a trial that says nothing three times is taken for dead."""


def check_installed() -> None:
    """Refuses to search where Optuna is missing.

    Raises:
        InputError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError("sweep needs Optuna, which is not installed: pip install 'pet_cifar[sweep]'") from error
    # Each trial is told in a line of our own.
    optuna.logging.set_verbosity(logging.ERROR)


def open_storage(url: str) -> "RDBStorage":
    """The database at a URL.

    Raises:
        InputError: It cannot be opened.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RDBStorage

    options = {"connect_args": {"timeout": LOCK_SECONDS}} if url.startswith("sqlite") else {}
    with warnings.catch_warnings(), storage_errors(url):
        # A sweep that was killed leaves a trial that would count as running for ever.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(
            url, engine_kwargs=options, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=3 * HEARTBEAT_SECONDS
        )


def open_study(url: str, name: str, content: str, file: Path) -> "Study":
    """The study of this name, made where there is none.

    Args:
        url: The database.
        name: The name of the study.
        content: What tells a sweep from another.
        file: The file of the sweep.

    Raises:
        InputError: The database cannot be used, or a study of this name belongs to something else.
    """
    import optuna

    storage = open_storage(url)
    with storage_errors(url):
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
            pruner=make_pruner(),
        )
        kept = study.user_attrs.get(CONTENT)
        if kept is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(CONTENT, content)
            kept = content
    if kept is None:
        raise InputError(
            f"--study {name}: the study in {_shown(url)} was not made by pet-cifar sweep; give another name"
        )
    if kept != content:
        raise InputError(
            f"--study {name}: the study in {_shown(url)} searches for something else than {file} says now: its config, "
            "ranges or fixed options are others; give another --study, or put them back"
        )
    return study


def make_pruner() -> Any:
    """Ends a trial whose best accuracy so far is below the median of the others' at the same epoch.

    The first trials are never ended, and none is after its first epoch.
    """
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=4, n_warmup_steps=1)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Tells in one line that the database of a study cannot be used.

    Raises:
        InputError: It is locked, cannot be reached, is none, or its driver is missing.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        words = " ".join(str(cause).split("\n")[0].split()) or type(cause).__name__
        if "locked" in words:
            words = f"it is locked by another program for more than {LOCK_SECONDS} s; end that, or give another file"
        raise InputError(f"--storage {_shown(url)}: the study's database cannot be used: {words}") from error


def _shown(url: str) -> str:
    """A URL as it may be printed, without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url
