"""Which messages of the libraries reach the user."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pet_cifar.names import lines_without_codes

_LIGHTNING = "lightning.pytorch.utilities.rank_zero"
_LAUNCHER = "lightning.fabric.strategies.launchers.subprocess_script"
_DATA = "pet_cifar.data.manifest_report"
"""The log of what is left out of the data, and of what else is wrong with it."""


def filter_messages() -> None:
    """Shows our own log, and hides what the libraries say that no user can act on."""
    log = logging.getLogger("pet_cifar")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)
    for handler in log.handlers:
        # A program that calls the command line twice may have replaced the stream in between.
        if type(handler) is logging.StreamHandler:
            handler.stream = sys.stderr
            handler.addFilter(_without_codes)
    logging.getLogger(_LIGHTNING).addFilter(lambda record: "Tip:" not in str(record.msg))
    logging.getLogger(_LIGHTNING).addFilter(_without_codes)
    # A process that failed has told its error, which is to be the last that is read; one that was killed has not.
    logging.getLogger(_LAUNCHER).addFilter(
        lambda record: "Child process with PID" not in record.getMessage() or "with code -" in record.getMessage()
    )
    # The seed is an option, which the run's card and its config show.
    logging.getLogger("lightning.fabric.utilities.seed").addFilter(lambda record: "Seed set to" not in record.msg)
    for message in (
        "LightningCLI's args parameter is intended",  # We pass the words because a checkpoint completes them.
        ".*isinstance.treespec, LeafSpec.. is deprecated",  # Lightning 2.6 says so with torch 2.11 and newer.
        "Experiment logs directory .* exists and is not empty",  # The config was written there just before.
        "The number of training batches .* is smaller than the logging interval",
        "The '.*_dataloader' does not have many workers",  # Our workers are threads, which Lightning does not count.
        "It is recommended to use .*sync_dist=True",  # Our metrics have exchanged their counts by then.
        "Be aware that when using `ckpt_path`, callbacks",  # A test keeps no checkpoints.
        "`training_step` returned `None`",  # The net leaves such a step out, and has said why.
        "Found .* in eval mode at the start of training",  # A frozen backbone stays in evaluation.
        "The dirpath has changed from",  # A run that goes on has a directory of its own.
        "Checkpoint directory .* exists and is not empty",
        ".*configure_optimizers. will be overridden by",  # The user has asked for that with --optimizer.
    ):
        warnings.filterwarnings("ignore", message=message)


def _without_codes(record: logging.LogRecord) -> bool:
    """Keeps what stands in a name of a stranger's from steering the terminal; a message may have several lines."""
    record.msg, record.args = lines_without_codes(record.getMessage()), ()
    return True


@contextmanager
def held_back() -> Iterator[None]:
    """Shows Lightning's messages after what is done here, and none where that fails: then one line tells why."""
    records: list[logging.LogRecord] = []
    with _filtered(records):
        yield
    for record in records:
        logging.getLogger(_LIGHTNING).handle(record)


@contextmanager
def silence() -> Iterator[None]:
    """Hides Lightning's messages and all warnings."""
    with _filtered([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def each_once() -> Iterator[None]:
    """Shows each message about pictures once, where several runs are of the same data."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message in seen:
            return False
        seen.add(message)
        return True

    logs = [logging.getLogger(name) for name in (_LIGHTNING, _DATA)]
    for log in logs:
        log.addFilter(is_new)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(is_new)


@contextmanager
def _filtered(records: list[logging.LogRecord]) -> Iterator[None]:
    """Keeps Lightning's messages from the user, and collects them in ``records``."""

    def hold(record: logging.LogRecord) -> bool:
        records.append(record)
        return False

    log = logging.getLogger(_LIGHTNING)
    log.addFilter(hold)
    try:
        yield
    finally:
        log.removeFilter(hold)
