"""What a run logs is on the disk at once, in files that are never torn; a full disk is told and never waited for."""

import csv
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from tensorboard.summary.writer import record_writer
from torch import Tensor

from pet_cifar.callbacks.run_loggers import EventFile, RunEvents, RunMetrics, read_rows
from pet_cifar.errors import InputError
from tests.callbacks.event_files import Events


def metrics(folder: Path) -> RunMetrics:
    return RunMetrics(folder, "net", "version_0")


def events(folder: Path) -> RunEvents:
    return RunEvents(folder, "net", "version_0", default_hp_metric=False)


def no_space(*args: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_new_columns_keep_the_rows_and_a_second_logger_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "net/version_0/metrics.csv"
    logger = metrics(tmp_path)
    rows: list[dict[str, Tensor | float]] = [{"a": 1.0}, {"b": 2.0}, {"a": 3.0, "c": 4.0}]
    for number, row in enumerate(rows):
        logger.log_metrics(row, number)
        logger.save()
        assert logger.experiment.count == number + 1
    again = metrics(tmp_path)
    again.log_metrics({"c": 5.0}, 3)
    again.finalize("success")
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [{name: value for name, value in row.items() if value} for row in found] == [
        {"step": "0", "a": "1.0"},
        {"step": "1", "b": "2.0"},
        {"step": "2", "a": "3.0", "c": "4.0"},
        {"step": "3", "c": "5.0"},
    ]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_rows_that_are_there(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any) -> Any:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "net/version_0/metrics.csv"
    logger = metrics(tmp_path)
    logger.log_metrics({"a": 1.0}, 0)
    logger.save()
    logger.log_metrics({"b": 2.0}, 1)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fails)
        with pytest.raises(InputError, match=rf"cannot write .*metrics\.csv: {os.strerror(number)}; make room"):
            logger.save()
        # The error is told; a second one would hide it.
        logger.finalize("failed")
        with pytest.raises(InputError):
            logger.finalize("success")
    assert [row["a"] for row in read_rows(path)] == ["1.0"]
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.csv"]
    logger.finalize("success")
    assert len(read_rows(path)) == 2


def test_every_event_is_in_the_file_before_it_is_closed(tmp_path: Path) -> None:
    logger = events(tmp_path)
    assert not (tmp_path / "net").exists()
    for step in range(20):
        logger.log_metrics({"a": float(step)}, step)
        assert Events(tmp_path / "net/version_0").values("a")[-1] == step
    logger.finalize("success")
    logger.log_metrics({"a": -1.0}, 20)
    logger.finalize("success")
    assert len(list((tmp_path / "net/version_0").glob("events.out.tfevents.*.fit"))) == 2
    # Files of the same second are read in the order of their names, in which 10 comes before 9.
    assert sorted(Events(tmp_path / "net/version_0").steps("a")) == list(range(21))


def test_a_full_disk_ends_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = events(tmp_path)
    logger.log_metrics({"a": 0.0}, 0)
    monkeypatch.setattr(record_writer.RecordWriter, "write", no_space)
    for _ in range(50):  # The queue of TensorBoard's own writer would be full by now, and wait for ever.
        with pytest.raises(InputError, match=r"cannot write .*events\.out\.tfevents.*No space left"):
            logger.log_metrics({"a": 1.0}, 1)
        with pytest.raises(InputError, match="No space left"):
            logger.experiment.add_text("note", "text")
    logger.finalize("failed")


def test_a_value_that_cannot_be_logged_is_told_as_before(tmp_path: Path) -> None:
    wrong: Any = {"a": object()}
    with pytest.raises(ValueError, match="not supported"):
        events(tmp_path).log_metrics(wrong, 0)


def test_a_file_that_nothing_was_written_to_is_not_made(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "new", ".fit")
    file.flush()
    file.close()
    assert file.get_logdir() == str(tmp_path / "new")
    assert not (tmp_path / "new").exists()
