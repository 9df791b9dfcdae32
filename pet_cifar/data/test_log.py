"""Which tests were made of a set of pictures, since a test set that is looked at often is no test any more.

The log lies beside the data, and has a line for every test: when it was made, of which pictures, and by which run. It
is there to be read by ``pet-cifar compare``, and holds no score.
"""

import codecs
import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from pet_cifar.data.files.locking import locked
from pet_cifar.data.files.replacing import replacing
from pet_cifar.data.manifest_report import warn_line
from pet_cifar.data.root import state_directories, state_directory
from pet_cifar.errors import InputError
from pet_cifar.names import as_cell, from_cell, without_codes

FILE = "tests.csv"


@dataclass(frozen=True)
class LoggedTest:
    """One test.

    Attributes:
        time: When it was made, in UTC.
        pictures: The hash of the pictures that were scored; see `pet_cifar.data.identity`.
        experiment: The hash of the run's config without its seed.
        seed: The seed of the run; empty where it is not known.
        checkpoint: The hash of the checkpoint that was scored; empty where there was none.
        run: The name of the run directory and of the one that it lies in.
    """

    time: str
    pictures: str
    experiment: str
    seed: str
    checkpoint: str
    run: str


def log_test(root: Path, test: LoggedTest) -> None:
    """Adds a test to the log; where that cannot be written, a warning says so, and the test counts all the same."""
    try:
        file = state_directory(root) / FILE
        with locked(file):
            before = file.read_bytes() if file.exists() else b""
            # A line that a full disk cuts short would spoil the next one, too.
            with replacing(file) as log:
                log.write(before)
                writer = csv.writer(codecs.getwriter("utf-8")(log))
                if not before:
                    writer.writerow([field.name for field in fields(LoggedTest)])
                writer.writerow(as_cell(without_codes(value)) for value in astuple(test))
    except (InputError, OSError) as error:
        warn_line(f"this test is missing in the log of the tests that were made of {root}: {error}")


def read_tests(root: Path, pictures: str) -> list[LoggedTest]:
    """The tests that were made of one set of pictures, the oldest first.

    Args:
        root: The data's folder.
        pictures: The hash of the pictures.

    Raises:
        InputError: The log is damaged.
    """
    rows: list[Sequence[str]] = []
    for file in (folder / FILE for folder in state_directories(root)):
        try:
            if file.is_file():
                with file.open(newline="", encoding="utf-8") as log:
                    rows += list(csv.reader(log))[1:]
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{file} cannot be read as the log of tests: {error}; move it away") from error
    width = len(fields(LoggedTest))
    return [LoggedTest(*map(from_cell, row)) for row in rows if len(row) == width and row[1] == pictures]
