"""What is no file, or a giant one, is neither waited for nor read to its end, wherever a stranger may have put it."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pet_cifar.callbacks.experiment import read_record
from pet_cifar.data import ImageFolderDataModule
from pet_cifar.data.exclusions import read_exclusions
from pet_cifar.data.files.plain_tensors import read_plain_tensors
from pet_cifar.data.files.plain_yaml import read_yaml_file
from pet_cifar.data.files.regular import MAX_BYTES, read_regular
from pet_cifar.data.labels_file import read_labels
from pet_cifar.data.manifest import is_listing, read_csv
from pet_cifar.data.pixels.convert import of_pictures
from pet_cifar.errors import InputError
from pet_cifar.runs.checkpoint_file import check_hash
from pet_cifar.runs.curves import read_curves


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listener(path: Path) -> None:
    # The name of a socket is short.
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def giant(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)


KINDS = [pipe, device, listener]
